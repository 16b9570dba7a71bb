"""What honest clients notice of an attack, and what the server uses meanwhile: memory, open sockets."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import psutil

from benchmarks.database import Database
from benchmarks.growth.probe import CHANNEL, PUBLISH, Probe, probe
from benchmarks.load.clients import WebSocketClient
from benchmarks.load.identities import token_of, user
from benchmarks.server import Server

PAUSE = 0.05
"""Seconds between two messages, between two clients that connect, and between two looks at the server."""
PATIENCE = 20.0
"""Seconds; what has taken so long has failed."""


class Waits:
    """How long something takes, again and again."""

    def __init__(self) -> None:
        self.number = self.failed = 0
        self._longest = 0.0
        self._begun: float | None = None

    def longest(self) -> int:
        """Return the longest, in ms; one that still lasts counts with what it has lasted so far."""
        passed = 0.0 if self._begun is None else time.monotonic() - self._begun
        return round(max(self._longest, passed) * 1000)

    async def time(self, work: Awaitable[object]) -> None:
        """Do something once, take the time, and rest a little. What takes too long has failed."""
        self._begun = time.monotonic()
        self.number += 1
        try:
            await asyncio.wait_for(work, PATIENCE)
        except (OSError, RuntimeError):  # a TimeoutError is an OSError
            self.failed += 1
        self._longest, self._begun = max(self._longest, time.monotonic() - self._begun), None
        await asyncio.sleep(PAUSE)


class Witness:
    """Somebody that listens, clients that come in, and an eye on the server."""

    def __init__(self, listener: Probe, server: Server) -> None:
        self._listener = listener
        self._port = server.port
        self._server = psutil.Process(server.pid)
        self._sockets = self._open_files()
        self._memory = self._grown_to = self._server.memory_info().rss
        self._receipts = Waits()
        self._connects = Waits()
        self._number = 0

    def report(self) -> dict[str, float]:
        """Return what was seen since this was made. Waits in ms, memory in MB."""
        return {
            "receipt_max_ms": self._receipts.longest(),
            "connect_max_ms": self._connects.longest(),
            "connects": self._connects.number,
            "connects_failed": self._connects.failed,
            "grown_mb": round((self._grown_to - self._memory) / 1e6, 1),
            "sockets_held": self._open_files() - self._sockets,
        }

    async def look(self) -> None:
        """Look until cancelled."""
        await asyncio.gather(self._listen(), self._come_and_go(), self._watch())

    async def _listen(self) -> None:
        while True:
            await self._receipts.time(self._listener.latencies(1, 0.0))

    async def _come_and_go(self) -> None:
        while True:
            self._number += 1
            await self._connects.time(self._come())

    async def _come(self) -> None:
        somebody = await WebSocketClient.connect(self._port, token_of(user(100_000 + self._number)))
        try:
            await somebody.subscribe(CHANNEL)
        finally:
            somebody.abort()

    async def _watch(self) -> None:
        while True:
            self._grown_to = max(self._grown_to, self._server.memory_info().rss)
            await asyncio.sleep(PAUSE)

    def _open_files(self) -> int:
        return len(list(Path(f"/proc/{self._server.pid}/fd").iterdir()))


@contextlib.asynccontextmanager
async def witness(there: Database, server: Server) -> AsyncIterator[Witness]:
    """Have a witness look for the length of a block."""
    async with probe(there, server) as listener:
        await listener.connection.execute(PUBLISH, CHANNEL, 0)
        found = Witness(listener, server)
        looking = asyncio.create_task(found.look())
        try:
            yield found
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
