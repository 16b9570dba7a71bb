"""A real `insforge-realtime serve`, in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from insforge_realtime.auth import mint
from support.databases import free_port
from support.forkserver import Forked

SECRET = "a secret for tests that is long enough for HS256"
ANON_KEY = "anon_test"
API_KEY = "ik_test"

Process = subprocess.Popen[str] | Forked


def token(subject: str | None = None, *, role: str = "authenticated", ttl: float = 3600, **claims: object) -> str:
    """A token that the test servers accept."""
    return mint(SECRET, subject=subject, role=role, ttl=ttl, claims=claims)


class Server:
    """One server process.

    Args:
        database_url: its database.
        settings: further environment variables, without `REALTIME_` and in any case: `max_connections=3`.
            With `forked=False` it is not forked: where a library is to read the environment while it is imported.
    """

    def __init__(self, database_url: str, **settings: object) -> None:
        self.port = int(settings.pop("port", 0))  # type: ignore[call-overload]
        self._forked = settings.pop("forked", True)
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("REALTIME_")},
            "DATABASE_URL": database_url,
            "REALTIME_JWT_SECRET": SECRET,
            "REALTIME_ANON_KEY": ANON_KEY,
            "REALTIME_API_KEY": API_KEY,
            "REALTIME_LOG_FORMAT": "json",
            "PYTHONUNBUFFERED": "1",
            **{f"REALTIME_{name.upper()}": str(value) for name, value in settings.items()},
        }
        self.lines: list[dict[str, Any]] = []
        """What it logged."""
        self.raw: list[str] = []
        self.process: Process = None  # type: ignore[assignment]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/socket.io/?EIO=4&transport=websocket"

    def start(self, seconds: float = 20.0) -> Server:
        """Start it, and return once it serves. A second start takes the port of the first."""
        self.process = self._launch()
        before = len(self.lines)
        self._reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self._reader.start()
        try:
            self._wait_until_it_serves(seconds, before)
        except BaseException:
            self.process.kill()  # nobody else would: it is not in anybody's list yet
            self.stop()
            raise
        return self

    def _launch(self) -> Process:
        if self._forked:
            return Forked(self._command()[3:], env=self._environment, cwd="/")
        return subprocess.Popen(
            self._command(),
            stderr=subprocess.STDOUT,
            stdout=subprocess.PIPE,
            text=True,
            env=self._environment,
            cwd="/",
        )

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "insforge_realtime", "serve", "--port", str(self.port)]

    def _wait_until_it_serves(self, seconds: float, before: int) -> None:
        line = self.wait_for_log("serving", seconds, start=before)
        self.port = int(line["address"].rsplit(":", 1)[1])

    def stop(self, number: int = signal.SIGTERM, seconds: float = 15.0) -> int:
        """End it, and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status

    def wait_for_log(self, event: str, seconds: float = 20.0, *, start: int = 0) -> dict[str, Any]:
        """The first line (from the `start`-th on) that says `event`."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for line in self.lines[start:]:
                if line.get("event") == event:
                    return line
            if self.process.poll() is not None and not self._reader.is_alive():
                break
            time.sleep(0.005)
        raise AssertionError(f"no log line {event!r}; the log was:\n" + "\n".join(self.raw[-40:]))

    def feed(self) -> dict[str, Any]:
        """What its health says of the feed and of connections."""
        with urllib.request.urlopen(f"{self.url}/api/health", timeout=10) as answer:
            feed: dict[str, Any] = json.load(answer)["feed"]
        return feed

    def errors(self) -> list[dict[str, Any]]:
        """The lines of level error, and whatever was no log line at all (a traceback, say)."""
        return [line for line in self.lines if line.get("level") in ("error", "critical", None)]

    def _read(self, process: Process) -> None:
        assert process.stdout is not None
        for text in process.stdout:
            self.raw.append(text.rstrip())
            try:
                self.lines.append(json.loads(text))
            except json.JSONDecodeError:
                self.lines.append({"text": text})


class AsgiServer(Server):
    """Our application behind somebody else's server.

    Args:
        command: what starts it, after `python`; `{port}` stands for the port, here and in the environment.
        database_url: its database.
        environment: further variables.
        settings: as for `Server`.
    """

    def __init__(
        self,
        command: Sequence[str],
        database_url: str,
        *,
        environment: Mapping[str, str] = MappingProxyType({}),
        **settings: object,
    ) -> None:
        super().__init__(database_url, port=free_port(), forked=False, **settings)
        self._arguments = command
        self._environment |= {name: value.format(port=self.port) for name, value in environment.items()}

    def _command(self) -> list[str]:
        return [sys.executable, *(argument.format(port=self.port) for argument in self._arguments)]

    def _wait_until_it_serves(self, seconds: float, before: int) -> None:
        deadline = time.monotonic() + seconds
        while not self._is_healthy():
            said = "\n".join(self.raw[-40:])
            assert self.process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.02)

    def _is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/api/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@contextlib.contextmanager
def serving(database_url: str, **settings: object) -> Iterator[Server]:
    """A server that runs for the length of a block, and is shown to have ended well."""
    server = Server(database_url, **settings).start()
    try:
        yield server
    finally:
        server.stop()
