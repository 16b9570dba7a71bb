"""The database's clock is set while webhooks are in flight or wait: none goes twice, none waits longer than it should.

The clock is really another one: what servers notice is that now() does not grow as it should, so rows whose times are
shifted would not do.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from aiohttp import web

from insforge_realtime.pg.database import Database
from insforge_realtime.pg.migrate import migrate
from support.databases import wait_until
from support.faketime import LIBRARY, ClockedPostgres, clocked_cluster
from support.receivers import LOOPBACK, Hooked, hooked, receiving, status
from support.servers import Server

pytestmark = pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not installed")
Start = Callable[..., Server]

HOUR = 3600


@pytest.fixture
def cluster() -> Iterator[ClockedPostgres]:
    with clocked_cluster() as found:
        yield found


@pytest.fixture
async def db(cluster: ClockedPostgres) -> AsyncIterator[Hooked]:
    await migrate(Database(cluster.dsn))
    async with hooked(cluster.dsn) as found:
        yield found


@pytest.fixture
def begin(db: Hooked, start: Start) -> Start:
    return lambda **settings: start(db.url, webhook_allow_networks=LOOPBACK, **settings)


class Gate:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def __call__(self, _request: web.Request, _before: int) -> web.StreamResponse:
        await self.open.wait()
        return web.Response()


@contextlib.contextmanager
def stopped(servers: list[Server]) -> Iterator[None]:
    """While they do nothing at all."""
    for server in servers:
        server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for server in servers:
            server.process.send_signal(signal.SIGCONT)


async def every_server_has_looked(db: Hooked, servers: list[Server]) -> None:
    """All of them have claimed since: each has had a message of its own receiver to send.

    A statement of a server that was stopped may still be on its way to PostgreSQL and claim a message or two: so there are
    more until the one server that runs has sent one.
    """
    async with receiving() as receiver:
        await db.channel("look:%", receiver.url)
        for server in servers:
            with stopped([other for other in servers if other is not server]):
                before = len(receiver.hits)
                while len(receiver.hits) == before:
                    await db.publish("look:1")
                    await asyncio.sleep(0.05)
        while any(row["state"] == "pending" for row in await db.rows() if row["host"].endswith(str(receiver.port))):
            await asyncio.sleep(0.01)
        await db.connection.execute("UPDATE realtime.channels SET webhook_urls = NULL WHERE pattern = 'look:%'")


@pytest.mark.parametrize("step", [HOUR, -HOUR])
async def test_what_is_in_flight_is_not_sent_again_by_anybody(
    db: Hooked, begin: Start, cluster: ClockedPostgres, step: int
) -> None:
    gate = Gate()
    async with receiving(gate) as receiver:
        await db.channel("order:%", receiver.url)
        servers = [begin(webhook_timeout=60) for _ in range(2)]
        await db.publish_many("order:1", 10)
        await wait_until(lambda: len(receiver.hits) == 10)
        cluster.set_clock(step)
        await every_server_has_looked(db, servers)
        await every_server_has_looked_again(db, servers)
        gate.open.set()
        rows = await db.all_over()
        assert Counter(receiver.ids).most_common(1)[0][1] == 1
        mine = [row for row in rows if row["host"].endswith(str(receiver.port))]
        assert {(row["state"], row["attempts"], len(row["history"])) for row in mine} == {("delivered", 1, 1)}
    for server in servers:
        server.wait_for_log("the database's clock was set")


async def every_server_has_looked_again(db: Hooked, servers: list[Server]) -> None:
    """When it knows of the step already."""
    await db.connection.execute("DELETE FROM realtime.channels WHERE pattern = 'look:%'")
    await every_server_has_looked(db, servers)


async def test_what_waits_for_its_next_attempt_does_not_wait_for_an_hour(
    db: Hooked, begin: Start, cluster: ClockedPostgres
) -> None:
    async with receiving(status(500, 200)) as receiver:
        await db.channel("order:%", receiver.url)
        begin(webhook_retry_delays="5")
        await db.publish("order:1")
        while [row["attempts"] for row in await db.rows()] != [1]:
            await asyncio.sleep(0.01)
        cluster.set_clock(-HOUR)
        row = await db.the_row()
        assert (row["state"], row["attempts"]) == ("delivered", 2)


async def test_what_was_published_before_the_clock_went_back_and_a_server_began_is_sent(
    db: Hooked, begin: Start, cluster: ClockedPostgres
) -> None:
    async with receiving() as receiver:
        await db.channel("order:%", receiver.url)
        await db.publish_many("order:1", 20)
        cluster.set_clock(-HOUR)
        begin()
        assert Counter(row["state"] for row in await db.all_over()) == {"delivered": 20}


@pytest.mark.parametrize("step", [HOUR, -HOUR])
async def test_what_a_killed_server_had_in_flight_is_taken_over_all_the_same(
    db: Hooked, begin: Start, cluster: ClockedPostgres, step: int
) -> None:
    gate = Gate()
    async with receiving(gate) as receiver:
        await db.channel("order:%", receiver.url)
        server = begin(webhook_timeout=1, webhook_lease_margin=1)
        await db.publish_many("order:1", 5)
        await wait_until(lambda: len(receiver.hits) == 5)
        server.stop(signal.SIGKILL)
        cluster.set_clock(step)
        gate.open.set()
        server.start()
        rows = await db.all_over()
        assert {(row["state"], row["attempts"]) for row in rows} == {("delivered", 1)}
