"""What is published from SQL while the soak runs, and the witnesses: a client for every few rooms, in the process that
publishes, so that both ends of a latency are read from one clock."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import asyncpg

from benchmarks.load.clients import WebSocketClient
from benchmarks.load.identities import common_token
from benchmarks.soak.ledger import BURST, TRIGGER, Ledger
from benchmarks.timing import paced

TABLES = Path(__file__).with_name("tables.sql")
CHANGES_PER_SECOND = 40
BURST_ROWS, BURST_SECONDS = 5000, 60
WITNESSES = 10
CHANGE = "UPDATE soak_orders SET n = n + 1 WHERE id = $1 RETURNING n"
PUBLISH_MANY = (
    "SELECT count(realtime.publish($1, 'burst', jsonb_build_object('w', $2::int, 'n', n, 'text', repeat('x', 60))))"
    " FROM generate_series($3::int + 1, $3::int + $4::int) n"
)


class Traffic:
    """The writers, and the witnesses that watch them.

    Args:
        url: of the database.
        rooms: where to publish.
    """

    def __init__(self, url: str, rooms: Sequence[str]) -> None:
        self.sent = 0
        self.latencies: list[tuple[float, float]] = []
        """When something was received, and how many milliseconds after its commit."""
        self.ledgers = [Ledger(all_along=True) for _ in range(WITNESSES)]
        self._url = url
        self._rooms = rooms
        self._chance = random.Random(7)
        self._witnesses: list[WebSocketClient] = []
        self._committed: dict[tuple[str, int], float] = {}
        self._received: dict[tuple[str, int], float] = {}

    async def prepare(self) -> None:
        """Make the application's table, with a row for each room."""
        connection = await asyncpg.connect(self._url)
        await connection.execute(TABLES.read_text())
        await connection.executemany("INSERT INTO soak_orders (id, room) VALUES ($1, $2)", list(enumerate(self._rooms)))
        await connection.close()

    async def watch(self, port: int) -> None:
        """Connect the witnesses, before anything is published."""
        for number, ledger in enumerate(self.ledgers):
            witness = await WebSocketClient.connect(port, common_token(), partial(self._on_event, ledger))
            self._witnesses.append(witness)
            for room in self._rooms[number::WITNESSES]:
                ledger.enter(room)
                await witness.subscribe(room)

    @property
    def closed(self) -> int:
        return sum(witness.closed for witness in self._witnesses)

    def abort(self) -> None:
        for witness in self._witnesses:
            witness.abort()

    async def change(self, stopping: asyncio.Event) -> None:
        """Change rows as an application does, one to a transaction, at a fixed rate."""
        connection = await asyncpg.connect(self._url)
        async for _ in paced(1 / CHANGES_PER_SECOND):
            if stopping.is_set():
                break
            order = self._chance.randrange(len(self._rooms))
            number = await connection.fetchval(CHANGE, order)
            self._pair((self._rooms[order], number), self._committed, self._received)
            self.sent += 1
        await connection.close()

    async def burst(self, stopping: asyncio.Event) -> None:
        """Publish many rows in one statement to one room, now and then."""
        connection = await asyncpg.connect(self._url)
        for turn in itertools.count():
            try:
                async with asyncio.timeout(BURST_SECONDS / 2 if turn == 0 else BURST_SECONDS):
                    await stopping.wait()
                break
            except TimeoutError:
                room = self._rooms[turn % len(self._rooms)]
                before = BURST_ROWS * (turn // len(self._rooms))
                await connection.execute(PUBLISH_MANY, room, BURST, before, BURST_ROWS)
                self.sent += BURST_ROWS
        await connection.close()

    async def totals(self) -> dict[str, int]:
        """Return how many messages were committed in each room."""
        connection = await asyncpg.connect(self._url)
        rows = await connection.fetch("SELECT channel_name, count(*) FROM realtime.messages GROUP BY 1")
        await connection.close()
        return {row["channel_name"]: row["count"] for row in rows}

    def _on_event(self, ledger: Ledger, event: bytes) -> None:
        taken = ledger.take(event)
        if taken is not None and taken[1] == TRIGGER:
            self._pair((taken[0], taken[2]), self._received, self._committed)

    def _pair(
        self, key: tuple[str, int], here: dict[tuple[str, int], float], there: dict[tuple[str, int], float]
    ) -> None:
        """Note the commit's answer or the receipt. They come in either order, and the second makes a latency."""
        now = time.monotonic()
        if key not in there:
            here[key] = now
            return
        other = there.pop(key)
        self.latencies.append((now, (now - other) * 1000 if there is self._committed else 0.0))
