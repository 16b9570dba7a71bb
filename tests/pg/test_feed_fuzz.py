"""Rows of every kind that a database can be made to hold, at random, beside a witness that must never wait.

What lives here: writers that publish, insert, copy, roll back, prepare, and break links, each noting what is to arrive; and
the verdict. `FUZZ_SECONDS=240 make test ARGS="-k fuzz"` runs it for longer; the seed of a run is in its output.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

import asyncpg
import pytest

from insforge_realtime.model import Message
from insforge_realtime.pg.database import LINK_ERRORS, Database
from insforge_realtime.pg.feed import Feed
from insforge_realtime.pg.migrate import migrate
from support.databases import running_cluster, wait_until

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

SECONDS = float(os.environ.get("FUZZ_SECONDS", "12"))
PATIENCE = 20.0
"""What the witness may wait on a machine that does much else; the figure itself is printed."""
LARGEST = 4 * 1024 * 1024

CHANNELS = [f"room:{number}" for number in range(4)]
INSERT = """
INSERT INTO realtime.messages (event_name, channel_name, channel_id, payload, created_at, xid)
SELECT $1, $2, id, $3::text::jsonb, $4::text::timestamptz, coalesce($5::text::xid8, pg_current_xact_id())
FROM realtime.channels WHERE pattern = 'room:%'
"""
ODD_TEXTS = ["", "\x01" * 200, "é\u202e\U0001f600", '"\\/', "%_\\", "\u2028", "x" * 3000, "a" * 70_000]
ODD_NUMBERS = ["1e308", "-0", "1e-300", "1" * 400, "0." + "3" * 500, "1e130000", "12345678901234567890123"]
ODD_NAMES = ["e", "*", "a b", "'; --", "é\U0001f600", "__proto__", "E" * 200, '"', "\\"]
ODD_TIMES = ["now", "infinity", "-infinity", "4713-01-01 00:00:00 BC", "294276-12-31 23:59:59"]
POISON = "(SELECT jsonb_build_object('k', $1::int, 'n', jsonb_agg('1e131000'::numeric)) FROM generate_series(1, 8400))"


class Book:
    """What is to arrive, what must not, and what did."""

    def __init__(self) -> None:
        self.keys = itertools.count(1)
        self.wanted: set[int] = set()
        self.unwanted: set[int] = set()
        self.came: Counter[int] = Counter()
        self.order: dict[tuple[int, str], list[int]] = defaultdict(list)
        self.witnessed: dict[int, float] = {}

    async def deliver(self, messages: list[Message]) -> None:
        for message in messages:
            _, data = json.loads(message.event, parse_int=lambda digits: int(digits[:18]))  # some have 130 000
            payload = data.get("payload", data)  # what is not an object comes wrapped
            key = payload["k"] if isinstance(payload, dict) else payload[0]
            self.came[key] += 1
            self.witnessed[key] = time.monotonic()
            if isinstance(payload, dict) and "w" in payload:
                self.order[payload["w"], message.channel].append(key)


class Writer:
    """One session that does anything. `number` names it; its rows of a channel must arrive in the order of their keys."""

    def __init__(
        self, book: Book, connection: Connection, number: int, dice: random.Random, *, two_phase: bool
    ) -> None:
        self.book, self.connection, self.number, self.dice = book, connection, number, dice
        self.kinds: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (30, self.publish), (8, self.transaction), (6, self.bulk), (6, self.insert), (5, self.foreign),
            (5, self.replica), (3, self.oversized), (2, self.remove), (8 if two_phase else 0, self.prepared),
        ]  # fmt: skip

    async def act(self) -> None:
        weights, actions = zip(*self.kinds, strict=True)
        await self.dice.choices(actions, weights)[0]()

    def payload(self, key: int) -> str:
        odd = self.dice.random()
        value = f'"{"x" * self.dice.choice((1, 30, 400, 5000))}"'
        if odd < 0.15:
            value = json.dumps(self.dice.choice(ODD_TEXTS))
        elif odd < 0.3:
            value = self.dice.choice(ODD_NUMBERS)
        elif odd < 0.33:
            value = f"[{','.join([self.dice.choice(ODD_NUMBERS)] * self.dice.choice((3, 20)))}]"
        elif odd < 0.36:
            value = "[" * 500 + "]" * 500
        extra = ', "meta": {"senderType": "forged"}' if self.dice.random() < 0.1 else ""
        return f'{{"k": {key}, "w": {self.number}, "v": {value}{extra}}}'

    async def write(self) -> int:
        key = next(self.book.keys)
        await self.connection.execute(
            "SELECT realtime.publish($1, $2, $3::text::jsonb)",
            self.dice.choice(CHANNELS), self.dice.choice(ODD_NAMES), self.payload(key),
        )  # fmt: skip
        return key

    async def publish(self) -> None:
        self.book.wanted.add(await self.write())

    async def transaction(self) -> None:
        """Long or short, with savepoints, some rolled back, as a whole too."""
        kept = []
        transaction = self.connection.transaction(isolation=self.dice.choice(("read_committed", "repeatable_read")))
        await transaction.start()
        for _ in range(self.dice.choice((1, 3, 12))):
            savepoint = self.connection.transaction()
            await savepoint.start()
            key = await self.write()
            if self.dice.random() < 0.3:
                await savepoint.rollback()
            else:
                await savepoint.commit()
                kept.append(key)
        await asyncio.sleep(self.dice.choice((0, 0, 0.05, 0.4)))
        if self.dice.random() < 0.2:
            await transaction.rollback()
        else:
            await transaction.commit()
            self.book.wanted.update(kept)

    async def bulk(self) -> None:
        keys = [next(self.book.keys) for _ in range(self.dice.choice((20, 500, 3000)))]
        await self.connection.execute(
            "SELECT realtime.publish($1, 'e', jsonb_build_object('k', k, 'w', $2::int)) FROM unnest($3::int[]) k",
            self.dice.choice(CHANNELS), self.number, keys,
        )  # fmt: skip
        self.book.wanted.update(keys)

    async def insert(self) -> None:
        """What only the owner can: payloads that are not objects, times and names beyond all reason."""
        key = next(self.book.keys)
        payload = f"[{key}, null]" if self.dice.random() < 0.3 else self.payload(key)
        name = self.dice.choice([*ODD_NAMES, "", "N" * 20_000, "connect"])
        await self.connection.execute(
            INSERT, name, self.dice.choice(CHANNELS), payload, self.dice.choice(ODD_TIMES), None
        )
        self.book.wanted.add(key)

    async def foreign(self) -> None:
        """Rows that bring another transaction's id along are copies of what was delivered elsewhere."""
        key = next(self.book.keys)
        self.book.unwanted.add(key)
        async with self.connection.transaction():
            own = int(await self.connection.fetchval("SELECT pg_current_xact_id()::text"))
            xid = self.dice.choice((3, own - 5, own - 1, own + 1, own + 40, own + 10**6, 2**50))
            await self.connection.execute(INSERT, "e", CHANNELS[0], f"[{key}]", "now", str(xid))

    async def replica(self) -> None:
        async with self.connection.transaction():
            await self.connection.execute("SET LOCAL session_replication_role = replica")
            key = await self.write()
        self.book.wanted.add(key)

    async def oversized(self) -> None:
        """Small as they are stored, or not: larger than any event may be, or no text at all."""
        key = next(self.book.keys)
        self.book.unwanted.add(key)
        payload = self.dice.choice(
            [
                "jsonb_build_object('k', $1::int, 'v', repeat('x', 5000000))",
                "(SELECT jsonb_build_object('k', $1::int, 'n', jsonb_agg('1e131000'::numeric)) FROM generate_series(1, 50))",
                POISON,
            ]
        )
        await self.connection.execute(
            "INSERT INTO realtime.messages (event_name, channel_name, channel_id, payload) "
            f"SELECT 'e', 'room:0', id, {payload} FROM realtime.channels WHERE pattern = 'room:%'", key,
        )  # fmt: skip

    async def remove(self) -> None:
        """Rows that have been read may go."""
        key = self.dice.choice(list(self.book.came) or [0])
        await self.connection.execute("DELETE FROM realtime.messages WHERE payload -> 'k' = to_jsonb($1::int)", key)

    async def prepared(self) -> None:
        name = f"fuzz_{self.number}"
        await self.connection.execute("BEGIN")
        keys = [await self.write() for _ in range(self.dice.choice((1, 4)))]
        await self.connection.execute(f"PREPARE TRANSACTION '{name}'")
        await asyncio.sleep(self.dice.choice((0, 0.05, 0.3)))
        if self.dice.random() < 0.3:
            await self.connection.execute(f"ROLLBACK PREPARED '{name}'")
        else:
            await self.connection.execute(f"COMMIT PREPARED '{name}'")
            self.book.wanted.update(keys)


async def write_until(stop: asyncio.Event, dsn: str, book: Book, number: int, *, two_phase: bool) -> None:
    connection = await asyncpg.connect(dsn)
    writer = Writer(book, connection, number, random.Random(f"{seed()}/{number}"), two_phase=two_phase)
    while not stop.is_set():
        await writer.act()
    await connection.close()


async def witness(stop: asyncio.Event, dsn: str, book: Book) -> float:
    """Something ordinary, over and over: the longest that it took to arrive."""
    connection = await asyncpg.connect(dsn)
    longest = 0.0
    while not stop.is_set():
        key = next(book.keys)
        await connection.execute("SELECT realtime.publish('witness', 'w', jsonb_build_object('k', $1::int))", key)
        book.wanted.add(key)
        committed = time.monotonic()
        await wait_until(lambda key=key: key in book.came, PATIENCE)  # type: ignore[misc]
        longest = max(longest, book.witnessed[key] - committed)
        await asyncio.sleep(0.02)
    await connection.close()
    return longest


async def cut_links(stop: asyncio.Event, dsn: str) -> None:
    """Now and then the feed loses its connection."""
    connection = await asyncpg.connect(dsn)
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 4)
        with contextlib.suppress(*LINK_ERRORS):
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '%realtime feed'"
            )
    await connection.close()


def seed() -> str:
    return os.environ.get("FUZZ_SEED", "1")


@contextlib.asynccontextmanager
async def feeding(dsn: str, book: Book) -> AsyncIterator[Feed]:
    feed = Feed(Database(dsn), book.deliver, largest=LARGEST)
    task = asyncio.create_task(feed.run())
    async with asyncio.timeout(20):
        await feed.ready.wait()
    yield feed
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.timeout(SECONDS + 100)
@pytest.mark.parametrize(("major", "prepared"), [(15, 0), (18, 16)], ids=["pg15", "pg18, two-phase"])
async def test_rows_of_all_kinds_arrive_or_are_passed_over_and_a_witness_never_waits(major: int, prepared: int) -> None:
    with running_cluster(major, max_prepared_transactions=str(prepared)) as cluster:
        dsn = cluster.dsn
        await migrate(Database(dsn))
        owner = await asyncpg.connect(dsn)
        await owner.execute("INSERT INTO realtime.channels (pattern) VALUES ('room:%'), ('witness')")
        book, stop = Book(), asyncio.Event()
        async with feeding(dsn, book) as feed:
            writers = [
                asyncio.create_task(write_until(stop, dsn, book, number, two_phase=prepared > 0)) for number in range(3)
            ]
            others = [asyncio.create_task(witness(stop, dsn, book)), asyncio.create_task(cut_links(stop, dsn))]
            await asyncio.wait([*writers, *others], timeout=SECONDS, return_when=asyncio.FIRST_EXCEPTION)
            stop.set()
            longest, *_ = await asyncio.gather(*others[:1], *others[1:], *writers)
            await wait_until(lambda: book.wanted <= book.came.keys(), 60)
        print(
            f"seed {seed()}: {len(book.wanted)} rows, {len(book.unwanted)} odd ones, {feed.health}, witness {longest:.2f} s"
        )
        judge(book)
        assert feed.metrics.feed_gaps == 0
        await owner.close()


def judge(book: Book) -> None:
    assert not [key for key, times in book.came.items() if times > 1], "doubled"
    assert not book.came.keys() & book.unwanted, "delivered what is nobody's"
    assert book.came.keys() == book.wanted, "delivered what was not committed"
    for writer, keys in book.order.items():
        assert keys == sorted(keys), f"{writer}: in disorder"
