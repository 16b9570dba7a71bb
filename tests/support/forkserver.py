"""Processes of ours without the half second of importing: forked from one that has imported everything, and runs nothing.

What lives here: both ends, `Forked` in the tests and `main` in the fork server, which each pytest worker starts when first
needed. A child is what `python -m insforge_realtime …` is from its first statement on: its environment, folder, output and
limits are the caller's, and it ends as a process does. Tests of starting itself use `subprocess`.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import json
import os
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import IO, Any

IMPORTED = ("insforge_realtime.cli.main", "insforge_realtime.cli.serve")


class Forked:
    """As much of `subprocess.Popen` as the tests use.

    Args:
        arguments: what follows `python -m insforge_realtime`.
        env, cwd: as for `Popen`.
        outputs: where standard output and standard error go; else both can be read from `stdout`.

    Raises:
        ConnectionError: the fork server has ended.
    """

    def __init__(
        self, arguments: Sequence[str], env: Mapping[str, str], cwd: str, outputs: tuple[int, int] | None = None
    ) -> None:
        self.stdout: IO[str] | None = None
        self.returncode: int | None = None
        self._news, far = socket.socketpair()
        with contextlib.ExitStack() as ours:
            ours.enter_context(far)
            if outputs is None:
                read, write = os.pipe()
                self.stdout = open(read, encoding="utf-8")  # noqa: SIM115
                ours.callback(os.close, write)
                outputs = write, write
            socket.send_fds(_fork_server(), [b"+"], [*outputs, far.fileno()])
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        request = {"argv": list(arguments), "env": dict(env), "cwd": cwd, "descriptors": limits}
        self._news.sendall(json.dumps(request).encode() + b"\n")
        self._lines = self._news.makefile("r", encoding="ascii")
        self.pid = self._next()

    def poll(self) -> int | None:
        """The exit status; None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and return its exit status, negative for a signal.

        Args:
            timeout: in seconds.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        if self.returncode is None:
            if not select.select([self._news], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("forked", timeout or 0)
            self.returncode = self._next()
            self._lines.close()
            self._news.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has ended, and the news is on its way
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _next(self) -> int:
        line = self._lines.readline()
        if not line:
            raise ConnectionError("the fork server has ended")
        return int(line)


def run(arguments: Sequence[str], env: Mapping[str, str], cwd: str = "/") -> subprocess.CompletedProcess[str]:
    """Run one to its end, and return what it wrote, as `subprocess.run` does.

    Raises:
        subprocess.TimeoutExpired: it had not ended after 60 s.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = Forked(arguments, env, cwd, (output.fileno(), errors.fileno()))
        try:
            status = process.wait(60)
        finally:
            process.kill()
        written = []
        for file in (output, errors):
            file.seek(0)
            written.append(file.read().decode())
        return subprocess.CompletedProcess(arguments, status, *written)


@functools.cache
def _fork_server() -> socket.socket:
    """Start it, and return how to reach it. It ends when this end is closed, at the latest with this process."""
    near, far = socket.socketpair()
    # Pipes from the start: rich looks once for a terminal, Python once for a file that can seek.
    process = subprocess.Popen(
        [sys.executable, "-m", "support.forkserver", str(far.fileno())],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=[far.fileno()],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONUNBUFFERED": "1"},
    )
    far.close()
    atexit.register(_stop, near, process)
    return near


def _stop(near: socket.socket, process: subprocess.Popen[bytes]) -> None:
    near.close()
    process.communicate()


def main(control: socket.socket) -> list[str]:
    """Fork whatever is wanted. Returns in each child, with its arguments; in the fork server itself, never."""
    for module in IMPORTED:
        __import__(module)
    gc.collect()
    gc.freeze()  # a child that looks through all that was imported, at its end at the latest, copies every page of it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        _, descriptors, _, _ = socket.recv_fds(control, 1, 3)
        if not descriptors:
            raise SystemExit
        if os.fork() == 0:
            control.close()
            return _tend(*descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _tend(output: int, errors: int, news: int) -> list[str]:
    """Be the parent that tells the test of its child's end. Returns in the child."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with socket.socket(fileno=news) as test:
        with test.makefile("rb") as lines:
            request = json.loads(lines.readline())
        pid = os.fork()
        if pid != 0:
            os.close(output)
            os.close(errors)
            test.sendall(b"%d\n" % pid)
            _, status = os.waitpid(pid, 0)
            with contextlib.suppress(OSError):  # the test is over
                test.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
            os._exit(0)
    return _become(output, errors, request)


def _become(output: int, errors: int, request: dict[str, Any]) -> list[str]:
    os.dup2(output, 1)
    os.dup2(errors, 2)
    os.close(output)
    os.close(errors)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    resource.setrlimit(resource.RLIMIT_NOFILE, tuple(request["descriptors"]))
    return list(request["argv"])


if __name__ == "__main__":
    sys.argv[1:] = main(socket.socket(fileno=int(sys.argv[1])))
    runpy.run_module("insforge_realtime", run_name="__main__", alter_sys=True)
