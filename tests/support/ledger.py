"""A ledger: what writers wrote, what of it the surviving database has, and what a feed delivered, set against each other.

What lives here: writers whose rows carry a number that is never used twice, feeds that write down what they deliver, and
the verdict. What does not: the faults (`support.standby`). A row that the surviving database has must have been delivered,
or the feed must have said, after it was written, that it cannot prove that nothing was missed (`lost_track`). What vanished
with another database may have been delivered.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import asyncpg

from insforge_realtime.pg.database import LINK_ERRORS
from support.databases import wait_until
from support.feeds import Listener, listening
from support.standby import Node, connection_to

if TYPE_CHECKING:
    from insforge_realtime.pg.database import Connection

PUBLISH = "SELECT realtime.publish($1, 'e', jsonb_build_object('writer', $2::int, 'n', $3::int))"
NUMBERS = "SELECT (payload ->> 'n')::int AS n FROM realtime.messages ORDER BY seq"
CHANNELS = [f"room:{number}" for number in range(5)]
SENTINEL = 99
"""The writer of the rows by which it is seen that all is quiet."""


following = partial(listening, fallback=0.5)
"""Feeds that look now and then without being rung, too."""


def counted_gaps(follower: Listener) -> tuple[int, str | None]:
    """What its health tells of them: how many, and why the last."""
    return follower.feed.metrics.feed_gaps, follower.feed.health.last_gap


async def outlast_the_trail(follower: Listener, seconds: float = 2.5) -> None:
    """Let the feed look for longer than its trail is. The time itself is the condition."""
    looks = follower.feed.metrics.feed_looks
    await asyncio.sleep(seconds)
    await wait_until(lambda: follower.feed.metrics.feed_looks > looks + 3)


@dataclass
class Verdict:
    """What came of it.

    Args:
        lost: rows of the surviving database that were not delivered, and nobody said so.
        excused: those that were not, and of which the feed said that it cannot know.
        doubled: rows that were delivered more than once.
        disordered: rows that came after a later one of the same writer in the same channel.
        vanished: rows that were delivered, and are in no surviving database.
    """

    lost: list[int]
    excused: list[int]
    doubled: list[int]
    disordered: list[int]
    vanished: list[int]


@dataclass
class Ledger:
    """All that was written. Numbers go up, whether or not a commit succeeded."""

    begun: dict[int, float] = field(default_factory=dict)
    """When each row's statement was sent."""
    acknowledged: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """The rows whose commit each database has confirmed."""
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _writers: itertools.count[int] = field(default_factory=lambda: itertools.count(SENTINEL + 1))

    async def write(self, connection: Connection, writer: int) -> int:
        """Publish one row in the connection's transaction; its number."""
        n = next(self._numbers)
        self.begun[n] = time.monotonic()
        assert await connection.fetchval(PUBLISH, CHANNELS[n % 5], writer, n), "no channel"
        return n

    @contextlib.asynccontextmanager
    async def writing(self, dsn: str, writers: int = 3, pause: float = 0.004) -> AsyncIterator[None]:
        """Traffic for the length of a block: single rows and transactions with savepoints of which some are rolled back."""
        tasks = [asyncio.create_task(self._write(dsn, next(self._writers), pause)) for _ in range(writers)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def write_some(self, dsn: str, rows: int) -> None:
        """Traffic until so many more rows have been acknowledged by this database."""
        wanted = len(self.acknowledged[dsn]) + rows
        async with self.writing(dsn, pause=0.0):
            await wait_until(lambda: len(self.acknowledged[dsn]) >= wanted, 30)

    async def _write(self, dsn: str, number: int, pause: float) -> None:
        dice = random.Random(number)
        while True:
            try:
                async with connection_to(dsn) as connection:
                    while True:
                        self.acknowledged[dsn] += await self._transaction(connection, number, dice)
                        await asyncio.sleep(pause)
            except LINK_ERRORS:
                await asyncio.sleep(0.02)

    async def _transaction(self, connection: Connection, number: int, dice: random.Random) -> list[int]:
        if dice.random() < 0.8:
            return [await self.write(connection, number)]
        kept = []
        async with connection.transaction():
            for _ in range(dice.choice((2, 5))):
                savepoint = connection.transaction()
                await savepoint.start()
                n = await self.write(connection, number)
                if dice.random() < 0.3:
                    await savepoint.rollback()
                else:
                    await savepoint.commit()
                    kept.append(n)
        return kept

    async def prepare(self, dsn: str, writer: int, name: str) -> None:
        """Leave a prepared transaction with one row. What has rung cannot be prepared: so amid traffic, and again."""
        async with self.writing(dsn, pause=0.0), connection_to(dsn) as connection, asyncio.timeout(20):
            while True:
                await connection.execute("BEGIN")
                await self.write(connection, writer)
                try:
                    await connection.execute(f"PREPARE TRANSACTION '{name}'")
                    return
                except asyncpg.FeatureNotSupportedError:
                    await asyncio.sleep(0.02)

    async def settle(self, dsn: str, *followers: Listener) -> None:
        """Until all is quiet: a row that was written after all others has come. (Where it is lost itself, another one.)"""
        for follower in followers:
            async with asyncio.timeout(25), connection_to(dsn) as connection:
                while await self.write(connection, SENTINEL) not in await _soon(follower, self):
                    pass

    async def judge(self, node: Node, follower: Listener) -> Verdict:
        """Set what the surviving database has against what was delivered. To be called when all is quiet."""
        async with connection_to(node.dsn) as connection:
            surviving = [row["n"] for row in await connection.fetch(NUMBERS)]
        came = Counter(follower.numbers)
        said = max((at for at, _ in follower.gaps), default=0.0)
        missing = [n for n in surviving if n not in came]
        return Verdict(
            lost=[n for n in missing if self.begun[n] > said],
            excused=[n for n in missing if self.begun[n] <= said],
            doubled=[n for n, times in came.items() if times > 1],
            disordered=_disordered(follower),
            vanished=sorted(came.keys() - set(surviving)),
        )


async def _soon(follower: Listener, ledger: Ledger) -> list[int]:
    """What was delivered, once the ledger's last row was, or a while later."""
    last = max(ledger.begun)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.5):
            while last not in follower.numbers[-50:]:
                await asyncio.sleep(0.01)
    return follower.numbers


def _disordered(follower: Listener) -> list[int]:
    last: dict[tuple[str, int], int] = {}
    late = []
    for message in follower.payloads:
        key = (message["meta"]["channel"], message["writer"])
        if message["n"] < last.get(key, -1):
            late.append(message["n"])
        last[key] = message["n"]
    return late
