"""No row stops delivery: what cannot be an event is marked and passed over, by sockets and webhooks alike, while a witness
waits for nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from insforge_realtime.pg import pages
from insforge_realtime.pg.database import Database
from insforge_realtime.pg.deliveries import DeliveryQueue
from support.databases import Cluster, wait_until
from support.feeds import Listener, listening

LARGEST = 4 * 1024 * 1024

INSERT = "INSERT INTO realtime.messages (event_name, channel_name, channel_id, payload, wh_audience_count)"
OF_CHANNEL = "FROM realtime.channels WHERE pattern = 'news'"
DIGITS = f"{INSERT} SELECT 'x', 'news', id, jsonb_build_object('n', (SELECT jsonb_agg('1e131000'::numeric) \
FROM generate_series(1, 9000))), 1 {OF_CHANNEL}"
"""81 KB as they are stored, over 1 GB as text. Only the owner can still insert it."""
TEXT = "('{\"t\":\"' || convert_from('\\xff', 'SQL_ASCII') || '\"}')::jsonb"
BYTE = f"{INSERT} SELECT 'x', 'news', id, {TEXT}, 1 {OF_CHANNEL}"
"""A byte without a form in UTF-8."""
WITNESS = "SELECT realtime.publish('news', 'witness', '{}')::text"

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]


@contextlib.asynccontextmanager
async def watching(url: str, **options: Any) -> AsyncIterator[Listener]:
    async with listening(url, fallback=0.2, **options) as [watch]:
        yield watch


async def prepare(url: str, pattern: str = "news") -> Connection:
    connection = await asyncpg.connect(url)
    await connection.execute(
        "INSERT INTO realtime.channels (pattern, webhook_urls) VALUES ($1, '{https://hooks.example/1}')", pattern
    )
    return connection


async def assert_the_witness_arrives(owner: Connection, watch: Listener) -> None:
    message = await owner.fetchval(WITNESS)
    await wait_until(lambda: message in watch.ids, 60)


async def marks(owner: Connection) -> list[str]:
    rows = await owner.fetch("SELECT undeliverable FROM realtime.messages WHERE undeliverable IS NOT NULL ORDER BY seq")
    return [row["undeliverable"] for row in rows]


async def test_a_row_of_a_gigabyte_of_text_is_marked_and_passed_over(database: str) -> None:
    owner = await prepare(database)
    async with watching(database) as watch:
        await owner.execute(DIGITS)
        await assert_the_witness_arrives(owner, watch)
        assert watch.feed.metrics.messages_undeliverable == 1
        assert watch.feed.health.state == "live"
    [mark] = await marks(owner)
    assert mark.startswith("54000 ")
    assert len(watch.ids) == 1
    await owner.close()


async def test_several_of_them_among_others_cost_each_a_try_and_the_others_nothing(demo: str) -> None:
    owner = await prepare(demo)
    async with watching(demo) as watch:
        async with owner.transaction():
            for _ in range(2):
                await owner.execute(DIGITS)
                await owner.execute("SELECT realtime.publish('news', 'e', '{}') FROM generate_series(1, 50)")
        await wait_until(lambda: len(watch.ids) == 100, 60)
    assert len(set(watch.ids)) == 100
    assert watch.feed.metrics.messages_undeliverable == 2
    assert len(await marks(owner)) == 2
    await owner.close()


async def test_what_is_marked_is_not_tried_again(database: str) -> None:
    owner = await prepare(database)
    async with watching(database) as watch:
        await owner.execute(DIGITS)
        await assert_the_witness_arrives(owner, watch)
        assert len(await marks(owner)) == 1
        # It comes back to what it has seen, as after every lost connection.
        await owner.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name LIKE '% feed'"
        )
        await wait_until(lambda: watch.feed.health.state == "down")
        await wait_until(lambda: watch.feed.health.state == "live")
        await assert_the_witness_arrives(owner, watch)
        assert watch.feed.metrics.messages_undeliverable == 1
    await owner.close()


async def test_where_the_row_cannot_be_marked_it_is_passed_over_all_the_same(database: str) -> None:
    owner = await prepare(database)
    await owner.execute(
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not today'; END $$;"
        "CREATE TRIGGER no BEFORE UPDATE ON realtime.messages FOR EACH ROW EXECUTE FUNCTION no()"
    )
    async with watching(database) as watch:
        await owner.execute(DIGITS)
        await assert_the_witness_arrives(owner, watch)
        assert watch.feed.metrics.messages_undeliverable == 1
    assert await marks(owner) == []
    await owner.close()


@pytest.fixture
async def ascii_only(cluster: Cluster) -> AsyncIterator[str]:
    """A database that takes any bytes for text. `migrate` refuses those, so it is made of another one."""
    url = await cluster.database()
    name = url.rsplit("/", 1)[1]
    await cluster.execute(
        f"UPDATE pg_database SET encoding = pg_char_to_encoding('SQL_ASCII') WHERE datname = '{name}'"
    )
    yield url
    await cluster.drop(url)


async def test_a_byte_that_is_not_utf8_is_marked_and_passed_over(ascii_only: str) -> None:
    owner = await prepare(ascii_only)
    async with watching(ascii_only) as watch:
        await owner.execute(BYTE)
        await assert_the_witness_arrives(owner, watch)
        assert watch.feed.metrics.messages_undeliverable == 1
    [mark] = await marks(owner)
    assert mark.startswith("22021 ")
    await owner.close()


async def test_an_event_larger_than_what_a_client_may_leave_unread_goes_to_nobody(database: str) -> None:
    owner = await prepare(database)
    large = f"{INSERT} SELECT 'large', 'news', id, jsonb_build_object('t', repeat('x', $1)), 0 {OF_CHANNEL}"
    async with watching(database, largest=1_000_000) as watch:
        await owner.execute(large, 999_000)
        await wait_until(lambda: len(watch.ids) == 1)
        await owner.execute(large, 1_000_000)
        await assert_the_witness_arrives(owner, watch)
        assert (watch.feed.metrics.messages_oversized, watch.feed.metrics.messages_undeliverable) == (1, 0)
        assert len(watch.ids) == 2
    assert await marks(owner) == [], "another server may have another limit"
    await owner.close()


async def test_webhooks_of_such_rows_fail_for_good_and_hold_up_no_other(database: str) -> None:
    owner = await prepare(database)
    await owner.execute(DIGITS)
    await owner.fetchval(WITNESS)
    queue = DeliveryQueue(Database(database), lease=30)
    async with queue.connection() as worker:
        claims, _ = await queue.claim(worker, 10, 10, {})
    assert sorted((claim.event, claim.payload) for claim in claims if claim.event == "witness") == [("witness", "{}")]
    assert [claim.payload for claim in claims if claim.event == "x"] == [None]
    await owner.close()


async def test_a_page_of_rows_that_are_small_as_stored_and_large_as_text_is_cut_by_text(database: str) -> None:
    """20 rows of 400 bytes, 3.9 MB each as text: a page by what they take in the table would be 78 MB."""
    owner = await prepare(database)
    await owner.execute(
        f"{INSERT} SELECT 'e', 'news', id, jsonb_build_object('n', (SELECT jsonb_agg('1e131000'::numeric) "
        "FROM generate_series(1, 30))), 0 FROM realtime.channels, generate_series(1, 20) WHERE pattern = 'news'"
    )
    before = await owner.fetchval("SELECT '1:1:'")
    page = await owner.fetchrow(
        "SELECT events, more FROM realtime.read_page($1::text::pg_snapshot, NULL, NULL, 4000, 1000000, $2)",
        before,
        LARGEST,
    )
    assert page is not None
    assert (len(page["events"]), page["more"]) == (1, True)
    await owner.close()


async def test_a_look_that_takes_too_long_is_given_more_time_and_meanwhile_it_is_not_live(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = await prepare(database)
    monkeypatch.setattr(pages, "LOOK_SECONDS", 0.004)
    states = set()
    async with watching(database) as watch:
        await owner.execute("SELECT realtime.publish('news', 'e', '{}') FROM generate_series(1, 30000)")
        while len(watch.messages) < 30000:
            states.add((watch.feed.health.state, watch.feed.health.reason))
            await asyncio.sleep(0)
        await wait_until(lambda: watch.feed.health.state == "live")
    assert ("down", "looks fail") in states
    await owner.close()


async def test_a_feed_whose_functions_are_gone_says_that_the_database_is_not_migrated(database: str) -> None:
    owner = await prepare(database)
    async with watching(database) as watch:
        await owner.execute("ALTER SCHEMA realtime RENAME TO elsewhere")
        await wait_until(lambda: (watch.feed.health.state, watch.feed.health.reason) == ("down", "not migrated"))
        assert watch.feed.health.state != "live"
        await owner.execute("ALTER SCHEMA elsewhere RENAME TO realtime")
        await wait_until(lambda: watch.feed.health.state == "live")
        await assert_the_witness_arrives(owner, watch)
    await owner.close()
