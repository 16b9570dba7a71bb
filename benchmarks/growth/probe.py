"""A subscriber of a quiet room, in the process that publishes to it: both ends of a latency are read from one clock."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator

import asyncpg

from benchmarks.database import Connection, Database
from benchmarks.figures import percentile
from benchmarks.load.clients import WebSocketClient
from benchmarks.load.identities import common_token
from benchmarks.server import Server
from benchmarks.timing import paced

CHANNEL = "bench-quiet"
PUBLISH = "SELECT realtime.publish($1, 'tick', jsonb_build_object('n', $2::int, 'text', repeat('x', 40)))"


class Probe:
    """One subscriber, and a connection to publish with."""

    def __init__(self, connection: Connection) -> None:
        self.client: WebSocketClient = None  # type: ignore[assignment]
        self.connection = connection
        self._committed: dict[int, float] = {}
        self._received: dict[int, float] = {}
        self._next = 0

    async def latencies(self, number: int, pause: float) -> list[float]:
        """Publish to the quiet room at a fixed rate, and return the milliseconds from each commit to its receipt.

        Raises:
            TimeoutError: one did not come.
        """
        self._committed.clear()
        self._received.clear()
        async for _ in paced(pause, number):
            self._next += 1
            await self.connection.execute(PUBLISH, CHANNEL, self._next)
            self._committed[self._next] = time.monotonic()
        async with asyncio.timeout(30):
            while len(self._received) < number:
                await asyncio.sleep(0.005)
        # The message may overtake the answer to its COMMIT.
        return [max(0.0, self._received[n] - committed) * 1000 for n, committed in self._committed.items()]

    async def echo(self) -> float:
        """Return how many milliseconds the simplest request takes: a subscribe to a room that one is in already."""
        begun = time.monotonic()
        await self.client.subscribe(CHANNEL)
        return (time.monotonic() - begun) * 1000

    def on_event(self, event: bytes) -> None:
        if event.startswith(b'["tick"'):
            self._received[json.loads(event)[1]["n"]] = time.monotonic()


@contextlib.asynccontextmanager
async def probe(there: Database, ours: Server) -> AsyncIterator[Probe]:
    """Subscribe a probe for the length of a block."""
    connection = await asyncpg.connect(there.url)
    try:
        found = Probe(connection)
        found.client = await WebSocketClient.connect(ours.port, common_token(), found.on_event)
        await found.client.subscribe(CHANNEL)
        yield found
        found.client.abort()
    finally:
        await connection.close()


def describe(latencies: list[float]) -> dict[str, float]:
    ordered = sorted(latencies)
    return {"latency_p50_ms": percentile(ordered, 0.5), "latency_p99_ms": percentile(ordered, 0.99)}
