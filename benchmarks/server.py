"""Our server as a benchmark runs it: `insforge-realtime serve`, or whatever BENCHMARK_SERVER names."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

from benchmarks.processes import child
from insforge_realtime.pg.embedded.processes import death_watch

ONE_ADDRESS = {
    "REALTIME_MAX_HANDSHAKES_PER_SECOND": "1000000",
    "REALTIME_MAX_CONNECTS_PER_SECOND": "1000000",
    "REALTIME_MAX_SOCKETS_PER_ADDRESS": "1000000",
    "REALTIME_MAX_MESSAGES_PER_SECOND": "1000000",
    "REALTIME_MAX_PENDING_PER_USER": "1000000",
}
"""A crowd comes from one address, sooner and in greater number than any office would, and mostly is one user. The limits
count all the same, and so what counting costs is measured: they are only too high to be met."""
SECRET = "a secret for benchmarks that is long enough for HS256"
_ADDRESS = re.compile(r'"address": ?"[^"]*:(\d+)"')


class Server:
    """A running server, ours or a peer's: the process to measure, and the port to connect to."""

    def __init__(self, pid: int, port: int) -> None:
        self.pid = pid
        self.port = port


def _command(url: str, settings: dict[str, object]) -> tuple[list[str], dict[str, str]]:
    """Return the command that serves, and its environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("REALTIME_")}
    environment |= {
        "DATABASE_URL": url,
        "REALTIME_JWT_SECRET": SECRET,
        "REALTIME_LOG_FORMAT": "json",
        "REALTIME_PING_INTERVAL": "3600",
        **({} if settings.pop("defaults", False) else ONE_ADDRESS),
        "PYTHONUNBUFFERED": "1",
        **{f"REALTIME_{name.upper()}": str(value) for name, value in settings.items()},
    }
    given = os.environ.get("BENCHMARK_SERVER")
    command = given.split() if given else [sys.executable, "-m", "insforge_realtime"]
    return [*command, "serve", "--port", "0"], environment


@contextlib.asynccontextmanager
async def server(folder: Path, url: str, **settings: object) -> AsyncIterator[Server]:
    """Run a server for the length of a block.

    `BENCHMARK_SERVER` in the environment is the command to run instead of `python -m insforge_realtime`: to profile it,
    or to measure a changed copy.

    Args:
        folder: where its log goes.
        url: of its database.
        settings: environment variables, without `REALTIME_` and in any case. With `defaults`, all others are as for
            everybody; without, the limits allow for all clients having one address.

    Raises:
        RuntimeError: it did not start within 30 s.
    """
    log = folder / f"server-{time.monotonic_ns()}.log"
    command, environment = _command(url, settings)
    async with child(command, log, environment=environment, talks=False) as running:
        deadline = time.monotonic() + 30
        while not (listening := _ADDRESS.search(log.read_text())):
            if running.process.returncode is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start:\n{log.read_text()[-2000:]}")
            await asyncio.sleep(0.02)
        yield Server(running.pid, int(listening[1]))


@contextlib.asynccontextmanager
async def server_with_unread_log(folder: Path, url: str, **settings: object) -> AsyncIterator[Server]:
    """Run the same, but its stderr is a pipe that nobody reads once it serves. `folder` is not used.

    Raises:
        RuntimeError: it did not start.
    """
    command, environment = _command(url, settings)
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, preexec_fn=death_watch()
    )
    assert process.stderr is not None
    try:
        while not (listening := _ADDRESS.search(process.stderr.readline().decode())):
            if process.poll() is not None:
                raise RuntimeError("the server did not start")
        yield Server(process.pid, int(listening[1]))
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
