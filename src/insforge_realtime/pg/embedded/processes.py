"""The server as a process: how it ends with its parent, its pid file, shutting it down."""

from __future__ import annotations

import ctypes
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("insforge_realtime.embedded")

POLL = 0.005
# After SIGQUIT the postmaster SIGKILLs children that linger for 5 s; wait a second more, and none is left.
IMMEDIATE_LIMIT = 6.0
PR_SET_PDEATHSIG = 1
# Fast, not immediate, when we are killed. Measured on 2 cores: all processes gone after 25-50 ms idle, 0.3 s
# with 250 MB just written, and the next start takes 0.05 s. SIGQUIT: gone after 10-40 ms, but the next start
# pays for crash recovery (0.2 s idle, 2 s after that load) and unlogged tables are emptied. Should a fast
# shutdown ever hang, the next start takes the orphan over and sends the SIGQUIT.
DEATH_SIGNAL = signal.SIGINT


def death_watch() -> Callable[[], None] | None:
    """Return what the child is to do after fork, and after setuid, which would clear the death signal."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    prctl.argtypes = (ctypes.c_int, ctypes.c_ulong)
    parent = os.getpid()

    def arrange() -> None:
        prctl(PR_SET_PDEATHSIG, DEATH_SIGNAL)
        if os.getppid() != parent:  # we died before the signal was arranged
            os._exit(1)

    return arrange


def until(condition: Callable[[], bool], limit: float) -> bool:
    """Wait for the condition, at most `limit` seconds; return whether it was met."""
    deadline = time.monotonic() + limit
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(POLL)
    return met


def shut_down(pid: int, is_gone: Callable[[], bool], timeout: float) -> None:
    """Shut down fast, after `timeout` seconds immediately, finally with SIGKILL."""
    limits = {signal.SIGINT: timeout, signal.SIGQUIT: IMMEDIATE_LIMIT, signal.SIGKILL: IMMEDIATE_LIMIT}
    for number, limit in limits.items():
        if is_gone():
            return
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        until(is_gone, limit)


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listened on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _pid_file(cluster: Path) -> list[str]:
    with suppress(FileNotFoundError):
        return (cluster / "postmaster.pid").read_text(errors="replace").splitlines()
    return []


def is_ready(cluster: Path, pid: int) -> bool:
    """Return whether the server is ready, as pg_ctl sees it: the postmaster's pid in line 1, its status in line 8."""
    lines = _pid_file(cluster)
    return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready"


def clear_pid_file(cluster: Path) -> None:
    """Remove the pid file. We hold the lock: it records an orphan to stop, or a process that does not serve this cluster."""
    first = "".join(_pid_file(cluster)[:1])
    pid = int(first) if re.fullmatch(r"[1-9][0-9]{0,8}", first) else None
    if pid and _serves(pid, cluster):
        logger.warning("Stopping PostgreSQL %d, left in %s by a launcher that died", pid, cluster)
        shut_down(pid, lambda: not _serves(pid, cluster), timeout=5.0)
    (cluster / "postmaster.pid").unlink(missing_ok=True)


def _serves(pid: int, cluster: Path) -> bool:
    """Return whether that process is the live postmaster of `cluster`; a zombie no longer has a command line."""
    command, gap = _command_line(pid)
    program, _, rest = command.partition(f"{gap}-D{gap}")
    return "postgres" in program and f"{rest}{gap}".startswith(f"{cluster}{gap}")


def _command_line(pid: int) -> tuple[str, str]:
    if sys.platform != "linux":
        ps = subprocess.run(["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True)  # noqa: S603
        return os.fsdecode(ps.stdout).strip(), " "
    with suppress(OSError):
        return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()), "\0"
    return "", "\0"
