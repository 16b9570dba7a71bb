"""A soak with faults: hundreds of clients that come, go and break off in every way, while messages are published.

The oracle. A few clients are never disturbed. What they got in a channel must be exactly what was committed there, and all
of them in the same order. Whatever anybody else got between the ack of a subscribe and the end of that stay must be a piece
of it without a gap, which begins no later than with the first message that was published after the ack. And the server
forgets everybody, keeps its memory, and has nothing to complain about.

SOAK_SECONDS says how long (20 by default, 120 in .ci/run), SOAK_SEED repeats a run's random choices.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import statistics
from collections import Counter
from collections.abc import Callable

import asyncpg
import psutil
import pytest

from insforge_realtime.pg.demo import ALICE, BOB
from support.databases import wait_until
from support.restless import Over, Session, Stay
from support.scenario import connected
from support.servers import Server, token

SECONDS = float(os.environ.get("SOAK_SECONDS", "20"))
CLIENTS, UNDISTURBED = 200, 20
CHANNELS = [f"soak:{number}" for number in range(8)]
PING_INTERVAL, PING_TIMEOUT = 5.0, 10.0
OPEN = """
    INSERT INTO realtime.channels (pattern) VALUES ('soak:%');
    CREATE POLICY soak_subscribe ON realtime.channels FOR SELECT TO authenticated USING (pattern = 'soak:%');
    CREATE POLICY soak_publish ON realtime.messages FOR INSERT TO authenticated WITH CHECK (channel_name LIKE 'soak:%')
"""


class Soak:
    """One run.

    Args:
        server: under test.
        database: its.
        chance: of the whole run; every client has its own, made of it.
    """

    def __init__(self, server: Server, database: str, chance: random.Random) -> None:
        self.server = server
        self.database = database
        self.chance = chance
        self.done = asyncio.Event()
        self.published: Counter[str] = Counter()
        """How many messages SQL has begun to publish in each channel, numbered from 1."""
        self.number: dict[str, int] = {}
        """The number of a message of SQL's."""
        self.sessions: list[Session] = []
        self.undisturbed: list[Session] = []
        self.did: Counter[str] = Counter()
        self.memory: list[float] = []
        self.committed: dict[str, list[str]] = {}

    # The clients

    def session(self) -> Session:
        """A new one. When a subscribe is acknowledged, it writes down what SQL will publish next."""
        user = self.chance.choice((ALICE, BOB))
        return Session(self.server.port, token(user), lambda channel: self.published[channel] + 1)

    async def undisturbed_client(self, transport: str) -> None:
        """One that subscribes to everything, and stays."""
        session = self.session()
        self.undisturbed.append(session)
        await session.open("websocket" if transport == "websocket" else "polling")
        for channel in CHANNELS:
            await session.subscribe(channel)
        if transport == "upgraded":
            await session.upgrade()

    async def restless_client(self, chance: random.Random) -> None:
        """One session after the other."""
        while not self.done.is_set():
            session = self.session()
            self.sessions.append(session)
            try:
                await session.open(chance.choice(("polling", "polling", "websocket")))
                while not self.done.is_set() and not session.over.is_set():
                    await self._do_something(session, chance)
            except Over:
                self.did["ended"] += 1
            session.abort()
            await asyncio.sleep(chance.uniform(0, 0.5))

    async def _do_something(self, session: Session, chance: random.Random) -> None:
        inside = [stay.channel for stay in session.stays if not stay.left]
        polling = session.polls
        what = chance.choices(
            ("wait", "subscribe", "unsubscribe", "publish", "upgrade", "abandon", *FAULTS),
            (20, 20, 6, 10, 6, 4, *FAULTS.values()),
        )[0]
        self.did[what] += 1
        session.history.append(what)
        if what == "wait":
            await asyncio.sleep(chance.uniform(0.1, 2))
        elif what == "subscribe":
            await session.subscribe(
                chance.choice([channel for channel in CHANNELS if channel not in inside] or CHANNELS)
            )
        elif what == "unsubscribe" and inside:
            await session.unsubscribe(chance.choice(inside))
        elif what == "publish" and inside:
            message = {
                "channel": chance.choice(inside),
                "event": "said",
                "payload": {"text": "x" * chance.randrange(2000)},
            }
            answer = await session.call("realtime:publish", message)
            assert answer["ok"], answer
        elif what == "upgrade" and polling:
            await session.upgrade()
        elif what == "abandon" and polling:
            await session.upgrade(give_up=chance.choice(("handshake", "probe", "between")))
        elif what == "close":
            await session.close()
        elif what == "abort":
            session.abort()
        elif what == "half close":
            await session.half_close()
        elif what == "nonsense":
            await session.speak_nonsense()
        elif what == "slow":
            await session.stop_reading(chance.uniform(1, 15))
        elif what == "vanish":
            await session.vanish(PING_INTERVAL + PING_TIMEOUT + 5)

    # The writer

    async def write(self) -> None:
        """A few messages in random channels now, a burst of large ones then."""
        async with connected(self.database) as sql:
            statement = await sql.prepare(
                """SELECT realtime.publish($1, 'number', jsonb_build_object('n', n, 'text', repeat('x', $4::int)))::text
                   FROM generate_series($2::int, $3::int) n"""
            )

            async def publish(channel: str, many: int, size: int) -> None:
                first = self.published[channel] + 1
                self.published[channel] += many
                rows = await statement.fetch(channel, first, self.published[channel], size)
                self.number |= {row[0]: number for number, row in enumerate(rows, first)}

            for turn in itertools.count(1):
                if self.done.is_set():
                    break
                await publish(self.chance.choice(CHANNELS), self.chance.randrange(1, 4), 500)
                if turn % 40 == 0:
                    await publish(self.chance.choice(CHANNELS), 20, 20_000)
                await asyncio.sleep(0.1)
            for channel in CHANNELS:
                await publish(channel, 1, 10)

    async def watch_memory(self) -> None:
        process = psutil.Process(self.server.process.pid)
        while not self.done.is_set():
            self.memory.append(process.memory_info().rss / 1e6)
            await asyncio.sleep(1)

    def abort(self) -> None:
        """Everybody leaves."""
        for session in self.sessions + self.undisturbed:
            session.abort()

    # The run

    async def run(self) -> None:
        """All of it; the undisturbed clients have everything at its end."""
        for transport in itertools.islice(itertools.cycle(("websocket", "polling", "upgraded")), UNDISTURBED):
            await self.undisturbed_client(transport)
        for session in self.undisturbed:
            session.history.append("undisturbed")
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS - UNDISTURBED):
                group.create_task(self.restless_client(random.Random(self.chance.random())))
            group.create_task(self.write())
            group.create_task(self.watch_memory())
            await asyncio.sleep(SECONDS)
            self.done.set()
        async with connected(self.database) as sql, asyncio.timeout(60):
            # What somebody published who left at once may be committed a little later.
            while not await self._has_all_arrived(sql):
                await asyncio.sleep(0.1)

    async def _has_all_arrived(self, sql: asyncpg.Connection[asyncpg.Record]) -> bool:
        """Whether the undisturbed have what was committed until now, and no message is on its way."""
        self.committed = {channel: [] for channel in CHANNELS}
        for id, channel in await sql.fetch("SELECT id::text, channel_name FROM realtime.messages ORDER BY seq"):
            if channel in self.committed:
                self.committed[channel].append(id)
        total = sum(len(ids) for ids in self.committed.values())
        return all(_received(session) == total for session in self.undisturbed)


FAULTS = {"close": 2.0, "abort": 3.0, "half close": 2.0, "nonsense": 1.0, "slow": 2.0, "vanish": 0.5}
"""The ways to break off, and how likely they are."""


def _received(session: Session) -> int:
    return sum(len(stay.ids) for stay in session.stays)


def wrong_with(stay: Stay, reference: list[str], number: dict[str, int]) -> str | None:
    """What is wrong with what a client got in a stay; None for nothing."""
    if not stay.ids:
        return None
    if stay.ids[0] not in reference:
        return "a message that was never committed"
    first = reference.index(stay.ids[0])
    if stay.ids != reference[first : first + len(stay.ids)]:
        return "missing, doubled or out of order"
    missed = [number[id] for id in reference[:first] if id in number and number[id] >= stay.begun]
    return f"{missed} of SQL's were published after the ack and did not come" if missed else None


@pytest.mark.timeout(SECONDS + 240)
async def test_a_soak_with_faults(demo: str, start: Callable[..., Server]) -> None:
    seed = os.environ.get("SOAK_SEED") or str(random.randrange(10**6))
    print(f"SOAK_SEED={seed} SOAK_SECONDS={SECONDS:g}")
    async with connected(demo) as sql:
        await sql.execute(OPEN)
    server = start(demo, ping_interval=PING_INTERVAL, ping_timeout=PING_TIMEOUT, max_buffered_bytes=1_000_000)
    soak = Soak(server, demo, random.Random(seed))
    try:
        await soak.run()
    except BaseException:
        lost = [session for session in soak.undisturbed if session.over.is_set()]
        print(f"undisturbed, but over: {lost}")
        print([_received(session) for session in soak.undisturbed], sum(len(ids) for ids in soak.committed.values()))
        soak.abort()
        raise

    feed = server.feed()
    received = sum(_received(session) for session in soak.sessions + soak.undisturbed)
    print(
        f"{len(soak.sessions)} sessions, {sum(len(ids) for ids in soak.committed.values())} messages, {received} deliveries,"
    )
    print(f"{feed['slowConsumers']} slow consumers, {dict(soak.did)}")
    print("memory, MB:", [round(value) for value in soak.memory[:: max(1, len(soak.memory) // 20)]])

    # The undisturbed.
    reference = {stay.channel: stay.ids for stay in soak.undisturbed[0].stays}
    for channel in CHANNELS:
        assert sorted(reference[channel]) == sorted(soak.committed[channel]), channel
        numbers = [soak.number[id] for id in reference[channel] if id in soak.number]
        assert numbers == list(range(1, soak.published[channel] + 1)), channel
    for session in soak.undisturbed:
        assert {stay.channel: stay.ids for stay in session.stays} == reference
        assert not session.over.is_set()
        session.abort()
    # Everybody else.
    wrong = Counter(
        wrong_with(stay, reference[stay.channel], soak.number) for session in soak.sessions for stay in session.stays
    )
    assert set(wrong) <= {None}, wrong
    # The server.
    await wait_until(lambda: server.feed()["connections"] == 0, PING_INTERVAL + PING_TIMEOUT + 10)
    await wait_until(lambda: server.feed()["channels"] == 0)
    assert server.errors() == []
    quarter = len(soak.memory) // 4
    early, late = statistics.median(soak.memory[quarter : 2 * quarter]), statistics.median(soak.memory[-quarter:])
    print(f"memory: {early:.1f} MB in the second quarter, {late:.1f} MB in the last")
    assert late < early * 1.15 + 5
