"""Two-phase commit: where transactions may be prepared, those that have published may be, and arrive once committed."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg
import pytest

from insforge_realtime.pg.database import Database
from insforge_realtime.pg.embedded import EmbeddedPostgres
from insforge_realtime.pg.migrate import migrate
from support.databases import MAJORS, Cluster, free_port, running_cluster, wait_until
from support.feeds import listening

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]


@pytest.fixture(params=MAJORS, ids=[f"pg{major}" for major in MAJORS])
def postgres(request: pytest.FixtureRequest) -> Iterator[EmbeddedPostgres]:
    """A server of the test's own on which transactions may be prepared; it comes back on the same port."""
    with running_cluster(request.param, port=free_port(), max_prepared_transactions="20") as cluster:
        yield cluster


@pytest.fixture
async def url(postgres: EmbeddedPostgres) -> str:
    """The URL of a migrated database with one channel pattern, which has a webhook."""
    await migrate(Database(postgres.dsn))
    async with connection_to(postgres.dsn) as db:
        await db.execute(
            "INSERT INTO realtime.channels (pattern, webhook_urls) VALUES ('room:%', '{http://127.0.0.1:1/}')"
        )
    return postgres.dsn


@asynccontextmanager
async def connection_to(url: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        connection.terminate()


async def prepare(db: Connection, n: int) -> None:
    """Publish, and prepare the transaction `t<n>`."""
    await db.execute("BEGIN")
    await db.execute(f"SELECT realtime.publish('room:1', 'e', '{{\"n\": {n}}}')")
    await db.execute(f"PREPARE TRANSACTION 't{n}'")


async def commit(db: Connection, n: int) -> float:
    """Commit what was prepared; when that was."""
    await db.execute(f"COMMIT PREPARED 't{n}'")
    return time.monotonic()


async def test_a_transaction_that_has_published_can_be_prepared_whether_much_comes_or_nothing(url: str) -> None:
    async with listening(url) as [ear], connection_to(url) as db:
        delays = []
        for n in range(20):
            looks = ear.feed.metrics.feed_looks
            # Every other time after a while in which nothing came: longer than any feed stays awake.
            least = looks + 40 * (n % 2)
            await wait_until(lambda least=least: ear.feed.asleep or ear.feed.metrics.feed_looks > least)  # type: ignore[misc]
            await prepare(db, n)
            assert n not in ear.numbers
            committed = await commit(db, n)
            await wait_until(lambda n=n: n in ear.numbers)  # type: ignore[misc]
            delays.append(ear.arrived[-1] - committed)
        assert ear.numbers == list(range(20))
        assert sorted(delays)[10] < 0.2
        assert ear.feed.health.paced
        assert ear.feed.metrics.feed_naps == 0
        assert await db.fetchval("SELECT count(*) FROM realtime.webhook_deliveries") == 20


async def test_a_transaction_that_is_rolled_back_after_it_was_prepared_is_never_heard_of(url: str) -> None:
    async with listening(url) as [ear], connection_to(url) as db:
        await prepare(db, 1)
        await db.execute("ROLLBACK PREPARED 't1'")
        await prepare(db, 2)
        await commit(db, 2)
        await wait_until(lambda: ear.numbers)
        assert ear.numbers == [2]


async def test_a_prepared_message_arrives_after_postgresql_and_the_feed_were_restarted(
    postgres: EmbeddedPostgres, url: str
) -> None:
    async with listening(url) as [before]:
        async with connection_to(url) as db:
            for n in (1, 2, 3):
                await prepare(db, n)
            await commit(db, 1)
            await wait_until(lambda: before.numbers == [1])
        postgres.stop()
        postgres.start()
        await wait_until(lambda: before.feed.health.state == "live")
        async with connection_to(url) as db, listening(url) as [after]:
            await commit(db, 2)
            await wait_until(lambda: before.numbers == [1, 2])
            await wait_until(lambda: after.numbers == [2])
            await prepare(db, 4)
            await commit(db, 4)
            await commit(db, 3)
            await wait_until(lambda: sorted(before.numbers) == [1, 2, 3, 4])
            await wait_until(lambda: sorted(after.numbers) == [2, 3, 4])


async def test_a_feed_that_left_without_a_word_stops_no_transaction_from_being_prepared(url: str) -> None:
    """It was of a time when nobody could prepare: writers still see its ticket."""
    async with connection_to(url) as db:
        await db.execute("SELECT nextval('realtime.asleep')")
        await prepare(db, 1)
        async with listening(url) as [ear]:
            await commit(db, 1)
            await wait_until(lambda: ear.numbers == [1])


async def test_a_database_that_never_prepares_can_say_so_and_is_rung_for(url: str) -> None:
    async with connection_to(url) as db:
        await db.execute("ALTER DATABASE postgres SET realtime.two_phase = 'off'")
    async with listening(url, fallback=0.3) as [ear], connection_to(url) as db:
        await wait_until(lambda: ear.feed.asleep)
        with pytest.raises(asyncpg.PostgresError, match=r"cannot PREPARE a transaction that has executed .*NOTIFY"):
            await prepare(db, 1)
        await wait_until(lambda: ear.feed.asleep)
        rings = ear.feed.metrics.feed_rings
        await db.execute("SELECT realtime.publish('room:1', 'e', '{\"n\": 2}')")
        await wait_until(lambda: ear.numbers == [2])
        assert ear.feed.metrics.feed_rings > rings
        # A session, or a role, may think otherwise: what it publishes is found without a ring.
        await db.execute("SET realtime.two_phase = 'on'")
        await wait_until(lambda: ear.feed.asleep)
        await prepare(db, 3)
        await commit(db, 3)
        await wait_until(lambda: ear.numbers == [2, 3])


async def test_where_nothing_can_be_prepared_feeds_sleep_and_are_rung_as_ever(cluster: Cluster, database: str) -> None:
    async with listening(database) as [ear], connection_to(database) as db:
        await db.execute("INSERT INTO realtime.channels (pattern) VALUES ('room:%')")
        await wait_until(lambda: ear.feed.asleep)
        await db.execute("SELECT realtime.publish('room:1', 'e', '{\"n\": 1}')")
        await wait_until(lambda: ear.numbers == [1])
        assert ear.feed.metrics.feed_rings
        assert not ear.feed.health.paced
