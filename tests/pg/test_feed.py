"""The feed's promise: every committed row, once, in order, soon; whatever happens to the writers, the link, the database."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from insforge_realtime.model import Message
from insforge_realtime.pg import feed
from insforge_realtime.pg.database import LINK_ERRORS, Database
from insforge_realtime.pg.embedded import EmbeddedPostgres
from insforge_realtime.pg.migrate import migrate
from insforge_realtime.pg.queries import query
from support.databases import free_port, running_cluster, wait_until
from support.feeds import Listener, listening

PUBLISH = "SELECT realtime.publish($1, 'e', jsonb_build_object('writer', $2::int, 'n', $3::int, 'at', $4::float8))"
CHANNELS = [f"room:{number}" for number in range(5)]


@contextlib.asynccontextmanager
async def connection_to(dsn: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        connection.terminate()


@pytest.fixture
async def channels(database: str) -> str:
    """The URL of a database with one channel pattern."""
    async with connection_to(database) as connection:
        await connection.execute("INSERT INTO realtime.channels (pattern) VALUES ('room:%')")
    return database


async def committed_ids(dsn: str) -> list[str]:
    async with connection_to(dsn) as connection:
        return [str(row["id"]) for row in await connection.fetch("SELECT id FROM realtime.messages ORDER BY seq")]


def assert_order_per_writer_and_channel(listener: Listener) -> None:
    last: dict[tuple[str, int], int] = defaultdict(lambda: -1)
    for payload in listener.payloads:
        key = (payload["meta"]["channel"], payload["writer"])
        assert payload["n"] > last[key], f"{key}: {payload['n']} after {last[key]}"
        last[key] = payload["n"]


async def assert_exactly_once(dsn: str, listeners: list[Listener]) -> None:
    """Wait until all that is committed has come, then see that it came once and nothing else did."""
    committed = await committed_ids(dsn)
    for listener in listeners:
        await wait_until(lambda listener=listener: len(listener.messages) >= len(committed))  # type: ignore[misc]
        counted = Counter(listener.ids)
        assert not [message_id for message_id in committed if message_id not in counted], "lost"
        assert not [message_id for message_id, times in counted.items() if times > 1], "doubled"
        assert len(counted) == len(committed), "delivered what was not committed"
        assert_order_per_writer_and_channel(listener)


async def writer(dsn: str, number: int, transactions: int) -> None:
    """One row per transaction, as fast as it goes."""
    async with connection_to(dsn) as connection:
        for n in range(transactions):
            await connection.execute(PUBLISH, CHANNELS[n % len(CHANNELS)], number, n, time.time())


async def unruly_writer(dsn: str, number: int, transactions: int, seed: int) -> None:
    """Transactions of all kinds: short and long, repeatable read, with savepoints, rolled back."""
    dice = random.Random(seed)
    numbers = iter(range(10**9))
    async with connection_to(dsn) as connection:
        for _ in range(transactions):
            isolation = dice.choice(("read_committed", "read_committed", "repeatable_read"))
            transaction = connection.transaction(isolation=isolation)  # type: ignore[arg-type]
            await transaction.start()
            for _ in range(dice.choice((1, 1, 1, 3, 20))):
                savepoint = connection.transaction()
                await savepoint.start()
                await connection.execute(PUBLISH, dice.choice(CHANNELS), number, next(numbers), time.time())
                await (savepoint.rollback() if dice.random() < 0.1 else savepoint.commit())
                if dice.random() < 0.1:
                    await asyncio.sleep(dice.random() * 0.1)
            # What makes a doorbell miss somebody is a commit long after the trigger.
            if dice.random() < 0.1:
                await asyncio.sleep(dice.random() * 0.3)
            await (transaction.rollback() if dice.random() < 0.15 else transaction.commit())
            if dice.random() < 0.3:
                await asyncio.sleep(dice.random() * 0.2)


async def test_sixty_thousand_rows_of_one_statement_arrive_once_and_in_order(channels: str) -> None:
    async with listening(channels) as [listener], connection_to(channels) as connection:
        await connection.execute(
            "SELECT realtime.publish('room:' || i % 5, 'e', jsonb_build_object('writer', 0, 'n', i))"
            " FROM generate_series(1, 60000) i"
        )
        await wait_until(lambda: len(listener.messages) >= 60000, 60)
        assert [payload["n"] for payload in listener.payloads] == list(range(1, 60001))


async def test_eight_writers_of_single_transactions_lose_nothing(channels: str) -> None:
    async with listening(channels, channels) as listeners:
        await asyncio.gather(*(writer(channels, number, 2000) for number in range(8)))
        await assert_exactly_once(channels, listeners)
        assert len(listeners[0].messages) == 16000
        assert listeners[0].feed.metrics.feed_rings < 4000, "writers in a hurry should not have to ring"


async def test_two_feeds_survive_unruly_writers_without_a_fallback_look(channels: str) -> None:
    """With the fallback switched off, a missed ring shows: the row is late by as long as nobody else rings."""
    async with listening(channels, channels) as listeners:
        await asyncio.gather(*(unruly_writer(channels, number, 60, seed=number) for number in range(8)))
        await assert_exactly_once(channels, listeners)
        assert max(listener.feed.metrics.feed_naps for listener in listeners) > 0, (
            "they never slept: nothing was tested"
        )


async def test_a_row_that_comes_while_all_sleep_wakes_them(channels: str) -> None:
    async with listening(*[channels] * 3) as listeners, connection_to(channels) as connection:
        for n in range(20):
            naps = [listener.feed.metrics.feed_naps for listener in listeners]
            assert naps
            await wait_until(lambda: all(asleep(listener) for listener in listeners))
            await connection.execute(PUBLISH, "room:1", 0, n, time.time())
            await wait_until(lambda n=n: all(len(listener.messages) == n + 1 for listener in listeners))  # type: ignore[misc]
        rings = listeners[0].feed.metrics.feed_rings
        assert rings == 20, f"one ring a message when they come singly, not {rings}"


async def test_what_comes_now_and_then_is_rung_for_and_costs_a_look_each(channels: str) -> None:
    async with listening(channels, channels) as listeners, connection_to(channels) as connection:
        await wait_until(lambda: all(asleep(listener) for listener in listeners))
        before = [(listener.feed.metrics.feed_looks, listener.feed.metrics.feed_naps) for listener in listeners]
        for n in range(30):
            await connection.execute(PUBLISH, "room:1", 0, n, time.time())
            await wait_until(lambda n=n: all(len(each.messages) == n + 1 for each in listeners))  # type: ignore[misc]
            await asyncio.sleep(0.01)
        for listener, (looks, naps) in zip(listeners, before, strict=True):
            assert listener.feed.metrics.feed_naps == naps, "a ring now and then is no reason to get up"
            assert listener.feed.metrics.feed_looks - looks <= 31
        assert listeners[0].feed.metrics.feed_rings == 30


async def test_after_many_rings_a_feed_sees_what_writers_do_when_they_need_not_ring(channels: str) -> None:
    async with listening(channels) as [listener], connection_to(channels) as connection:
        await wait_until(lambda: asleep(listener))
        naps = listener.feed.metrics.feed_naps
        for n in range(feed.RINGS_ASLEEP * 2):  # the watch at the start was in vain
            await connection.execute(PUBLISH, "room:1", 0, n, time.time())
            await asyncio.sleep(0.005)
        await wait_until(lambda: listener.feed.metrics.feed_naps > naps)
        await assert_exactly_once(channels, [listener])


async def test_who_stops_is_rung_for_no_more_and_those_who_sleep_on_are(channels: str) -> None:
    """A writer that rings for nobody pays for nothing, and a feed that goes must not silence the bell for the others."""
    async with listening(channels) as [other], connection_to(channels) as connection:
        async with listening(channels) as [listener]:
            await wait_until(lambda: asleep(listener) and asleep(other))
        await wait_until(lambda: asleep(other))
        await connection.execute(PUBLISH, "room:1", 0, 1, time.time())
        await wait_until(lambda: len(other.messages) == 1)
    async with connection_to(channels) as connection:
        tickets = "SELECT (SELECT last_value FROM realtime.asleep), (SELECT last_value FROM realtime.rung)"
        taken, rung = await connection.fetchrow(tickets)  # type: ignore[misc]
        assert taken == rung


async def test_a_feed_that_never_reached_the_database_stops_without_a_word() -> None:
    running = asyncio.create_task(Listener(f"postgresql://postgres@127.0.0.1:{free_port()}/none").feed.run())
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_no_moment_between_trigger_and_commit_makes_a_sleepy_feed_miss_a_row(
    channels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One writer at a time, so that nobody else rings for it, and each ring calls all feeds; its pauses are about as long as
    a feed takes to fall asleep, so that its trigger runs before, during and after the taking of the ticket."""
    monkeypatch.setattr(feed, "RINGS_ASLEEP", 1)
    monkeypatch.setattr(feed, "MOST_RINGS_ASLEEP", 1)
    dice = random.Random(2)
    async with listening(channels, channels) as listeners, connection_to(channels) as connection:
        for n in range(150):
            async with connection.transaction():
                await connection.execute(PUBLISH, "room:1", 0, n, time.time())
                await asyncio.sleep(dice.random() * 0.05)
            await wait_until(lambda n=n: all(len(each.messages) == n + 1 for each in listeners))  # type: ignore[misc]
            await asyncio.sleep(dice.random() * 0.06)
        await assert_exactly_once(channels, listeners)
        assert min(listener.feed.metrics.feed_naps for listener in listeners) > 10


async def test_a_transaction_open_longer_than_the_traffic_delays_nobody_and_arrives_when_it_commits(
    channels: str,
) -> None:
    async with listening(channels) as [listener], connection_to(channels) as slow:
        transaction = slow.transaction()
        await transaction.start()
        await slow.execute(PUBLISH, "room:0", 99, 0, time.time())
        await asyncio.gather(*(writer(channels, number, 200) for number in range(4)))
        await wait_until(lambda: len(listener.messages) == 800)
        assert all(payload["writer"] != 99 for payload in listener.payloads)
        await transaction.commit()
        await wait_until(lambda: len(listener.messages) == 801)
        await assert_exactly_once(channels, [listener])


async def test_a_feed_does_not_sleep_behind_a_transaction_that_passed_the_trigger_before_its_ticket(
    channels: str,
) -> None:
    async with listening(channels) as [listener], connection_to(channels) as slow:
        for n in range(5):
            transaction = slow.transaction()
            await transaction.start()
            await slow.execute(PUBLISH, "room:0", 1, n, time.time())
            # It may have slept already, and would be right to: that trigger rings. Its next ticket is the one in question.
            await until_next_ticket(channels)
            naps = listener.feed.metrics.feed_naps
            looks = listener.feed.metrics.feed_looks
            await wait_until(lambda looks=looks: listener.feed.metrics.feed_looks > looks + 30)  # type: ignore[misc]
            assert listener.feed.metrics.feed_naps == naps, "asleep, with a writer that will not ring"
            await transaction.commit()
            await wait_until(lambda n=n: len(listener.messages) == n + 1)  # type: ignore[misc]


async def test_a_terminated_listen_session_loses_nothing(channels: str) -> None:
    async with listening(channels, channels) as listeners, connection_to(channels) as admin:
        writing = asyncio.gather(*(writer(channels, number, 400) for number in range(4)))
        while not writing.done():
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'insforge-realtime feed' AND datname = current_database()"
            )
            await asyncio.sleep(0.05)
        await writing
        await assert_exactly_once(channels, listeners)


async def test_a_forged_ring_wakes_feeds_and_does_no_harm(channels: str) -> None:
    async with listening(channels, channels) as listeners, connection_to(channels) as connection:
        for forged in ("", "x", "-1", "99999999999999999999", str(2**62), "5", "{}", "٣"):
            await connection.execute("SELECT pg_notify('realtime', $1)", forged)
        await wait_until(lambda: all(listener.feed.metrics.feed_rings >= 8 for listener in listeners))
        for n in range(5):
            await wait_until(lambda: all(asleep(listener) for listener in listeners))
            await connection.execute(PUBLISH, "room:1", 0, n, time.time())
            await wait_until(lambda n=n: all(len(each.messages) == n + 1 for each in listeners))  # type: ignore[misc]
        assert await connection.fetchval("SELECT last_value FROM realtime.asleep") < 1000, "tickets were burnt"


async def test_rows_from_another_clusters_future_are_not_delivered_and_hide_nothing(channels: str) -> None:
    async with connection_to(channels) as connection:
        await connection.execute(PUBLISH, "room:1", 7, 1, time.time())
        await connection.execute("ALTER TABLE realtime.messages DISABLE TRIGGER USER")  # as in a restore of everything
        await connection.execute("UPDATE realtime.messages SET xid = '9000000000'")
        async with listening(channels) as [listener]:
            assert await connection.fetchval("SELECT count(*) FROM realtime.messages WHERE xid = '0'") == 1
            await connection.execute(PUBLISH, "room:1", 7, 2, time.time())
            await wait_until(lambda: listener.messages)
            assert [payload["n"] for payload in listener.payloads] == [2]


async def test_what_was_committed_before_the_start_is_not_delivered(channels: str) -> None:
    async with connection_to(channels) as connection:
        await connection.execute(PUBLISH, "room:1", 0, 1, time.time())
        async with listening(channels) as [listener]:
            await connection.execute(PUBLISH, "room:1", 0, 2, time.time())
            await wait_until(lambda: listener.messages)
            assert [payload["n"] for payload in listener.payloads] == [2]


async def test_large_payloads_are_read_in_pages_of_a_bounded_size(channels: str) -> None:
    pages: list[int] = []
    async with listening(channels) as [listener], connection_to(channels) as connection:
        deliver = listener.feed._deliver

        async def measured(messages: list[Message]) -> None:
            pages.append(sum(len(message.event) for message in messages))
            await deliver(messages)

        listener.feed._deliver = measured
        # Hex digits of random bytes do not compress, so that the size on disk is nearly that of the text.
        await connection.execute(
            """SELECT realtime.publish('room:1', 'e', jsonb_build_object('writer', 0, 'n', i, 'text', (
                   SELECT string_agg(md5(random()::text || j || i), '') FROM generate_series(1, 5000) j)))
               FROM generate_series(1, 40) i"""
        )
        await wait_until(lambda: len(listener.messages) == 40)
        assert [payload["n"] for payload in listener.payloads] == list(range(1, 41))
        assert len(pages) > 5
        assert max(pages) < 2_000_000


async def call_all(dsn: str) -> None:
    """Wake all feeds, as one of them would."""
    async with connection_to(dsn) as connection:
        number = await connection.fetchval("SELECT last_value FROM realtime.asleep")
        await connection.fetchval(query("call"), number)
        await connection.execute(query("answer_ring"), number)


async def until_next_ticket(dsn: str) -> None:
    """Wake the one feed that there is, and wait until it is about to sleep again."""
    async with connection_to(dsn) as connection:
        before = await connection.fetchval("SELECT last_value FROM realtime.asleep")
        await call_all(dsn)
        while await connection.fetchval("SELECT last_value FROM realtime.asleep") <= before:
            await asyncio.sleep(0.001)


def asleep(listener: Listener) -> bool:
    """Whether a feed waits for a ring: it has a ticket that nobody has called, and no look under way."""
    naps = listener.feed.metrics.feed_naps
    before = getattr(listener, "seen_naps", -1)
    listener.seen_naps = naps  # type: ignore[attr-defined]
    return before == naps and listener.feed.asleep


@pytest.fixture(params=["fast", "crash"])
def restartable(request: pytest.FixtureRequest) -> Iterator[tuple[EmbeddedPostgres, str]]:
    """A cluster of one's own that comes back on the same port, and how it is to be taken down."""
    with running_cluster(18, port=free_port(), synchronous_commit="on") as cluster:
        yield cluster, request.param


async def test_a_restart_of_the_database_in_the_middle_of_traffic_loses_and_doubles_nothing(
    restartable: tuple[EmbeddedPostgres, str],
) -> None:
    cluster, manner = restartable
    dsn = cluster.dsn
    await migrate(Database(dsn))
    async with connection_to(dsn) as connection:
        await connection.execute("INSERT INTO realtime.channels (pattern) VALUES ('room:%')")
    async with listening(dsn, dsn) as listeners:
        stop = asyncio.Event()
        writers = [asyncio.create_task(stubborn_writer(dsn, number, stop)) for number in range(4)]
        for _ in range(3):
            seen = len(listeners[0].messages)
            await wait_until(lambda seen=seen: len(listeners[0].messages) > seen + 200)  # type: ignore[misc]
            if manner == "crash":
                assert cluster.pid is not None
                os.kill(cluster.pid, signal.SIGQUIT)
            cluster.stop()
            cluster.start()
        seen = len(listeners[1].messages)
        await wait_until(lambda: len(listeners[1].messages) > seen + 200)
        stop.set()
        await asyncio.gather(*writers)
        await assert_exactly_once(dsn, listeners)


async def test_a_crash_that_gives_transaction_ids_out_again_hides_nothing() -> None:
    """Ids that were given out but whose WAL was not flushed are given out anew; the feed has called them old already."""
    with running_cluster(18, port=free_port(), synchronous_commit="on", wal_writer_delay="10s") as cluster:
        await migrate(Database(cluster.dsn))
        async with connection_to(cluster.dsn) as connection:
            await connection.execute("INSERT INTO realtime.channels (pattern) VALUES ('room:%')")
            async with listening(cluster.dsn, fallback=0.1) as [listener]:
                await connection.execute(PUBLISH, "room:1", 0, 1, time.time())
                await wait_until(lambda: listener.messages)
                # On its way to sleep the feed commits a transaction of its own, which would flush what is not to be flushed.
                await wait_until(lambda: listener.feed.asleep)
                await connection.execute("SET synchronous_commit = off")
                for _ in range(500):
                    burnt = await connection.fetchval("SELECT pg_current_xact_id()::text::bigint")
                looks = listener.feed.metrics.feed_looks
                await wait_until(lambda: listener.feed.metrics.feed_looks > looks + 3)
                assert cluster.pid is not None
                os.kill(cluster.pid, signal.SIGQUIT)
                cluster.stop()
                cluster.start()
                async with connection_to(cluster.dsn) as after:
                    await after.execute(PUBLISH, "room:1", 0, 2, time.time())
                    xid = await after.fetchval("SELECT max(xid)::text::bigint FROM realtime.messages")
                    assert xid < burnt, "nothing was given out again: nothing was tested"
                await wait_until(lambda: len(listener.messages) == 2)
                assert [payload["n"] for payload in listener.payloads] == [1, 2]


async def stubborn_writer(dsn: str, number: int, stop: asyncio.Event) -> None:
    """Writes until told to stop, through every restart; numbers go up whether or not a commit succeeded."""
    n = 0
    while not stop.is_set():
        try:
            async with connection_to(dsn) as connection:
                while not stop.is_set():
                    n += 1
                    await connection.execute(PUBLISH, CHANNELS[n % 5], number, n, time.time())
        except LINK_ERRORS:
            await asyncio.sleep(0.02)
