"""Crashes of PostgreSQL: ids that it gave out, and whose WAL it had not flushed, are given out again.

A row of such an id's new owner must not be taken for an old one. The trails here are short, because ids stay unflushed for
as long as nobody commits: what holds must hold without a trail. The ledger is that of test_failover.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from insforge_realtime.pg.database import LINK_ERRORS
from support.databases import wait_until
from support.feeds import Listener
from support.ledger import Ledger, Verdict, following, outlast_the_trail
from support.proxy import Proxy
from support.standby import Node, connection_to, lone_server, use_up_ids

TRAIL = 1.0
LAZY = {"wal_level": "minimal", "max_wal_senders": "0", "wal_writer_delay": "10s"}
"""As it is by default while nobody else fills a page of WAL, and the record of every 15 s is not due; made certain."""
TERMINATE = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'insforge-realtime feed'"


async def sigkill(node: Node) -> None:
    """All processes at once, then a new start."""
    node.kill()
    node.postgres.start()


async def immediate_shutdown(node: Node) -> None:
    """`pg_ctl -m immediate`, then a new start."""
    node.quit()
    node.postgres.start()


async def kill_of_one_backend(node: Node) -> None:
    """The postmaster lives, and its start time with it: it ends all others, and recovers from the WAL."""
    async with connection_to(node.dsn) as victim, connection_to(node.dsn) as other:
        os.kill(await victim.fetchval("SELECT pg_backend_pid()"), signal.SIGKILL)
        await wait_until(other.is_closed)
    await back(node)


Fault = Callable[[Node], Awaitable[None]]
faults = pytest.mark.parametrize("fault", [sigkill, immediate_shutdown, kill_of_one_backend])


async def back(node: Node) -> None:
    """Until it takes connections again."""
    async with asyncio.timeout(20):
        while True:
            try:
                async with connection_to(node.dsn):
                    return
            except LINK_ERRORS:
                await asyncio.sleep(0.02)


@pytest.fixture(params=[15, 18], ids=["pg15", "pg18"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Node]:
    """A server on which what nobody waits for is not flushed."""
    async with lone_server(request.param, **LAZY) as node:
        yield node


@pytest.fixture
async def newest() -> AsyncIterator[Node]:
    """The same, of the newest only."""
    async with lone_server(18, **LAZY) as node:
        yield node


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@contextlib.asynccontextmanager
async def unflushed_ids(node: Node, ledger: Ledger, follower: Listener) -> AsyncIterator[int]:
    """A transaction with savepoints that are rolled back, open until the crash (its end would be flushed), and looks of the
    feed for longer than its trail is. Yields the last of the ids, which are all given out again."""
    await ledger.write_some(node.dsn, 50)
    # On its way to sleep it commits, which flushes; where transactions may be prepared it never does either.
    await wait_until(lambda: follower.feed.asleep or follower.feed.health.paced)
    async with connection_to(node.dsn) as connection:
        await connection.execute("BEGIN")
        for _ in range(6):
            await connection.execute("SAVEPOINT s")
            await ledger.write(connection, 70)
            await connection.execute("ROLLBACK TO s")
        last = await use_up_ids(connection, 36)
        await outlast_the_trail(follower)
        yield last


async def assert_given_out_again(node: Node, last: int) -> None:
    """Whether the fault was one."""
    async with connection_to(node.dsn) as connection:
        reused = await connection.fetchval("SELECT pg_current_xact_id()::text::bigint")
    assert reused < last, "nothing was given out again: nothing is tested"


async def verdict(ledger: Ledger, node: Node, follower: Listener) -> Verdict:
    """When all is quiet: nothing was lost without a word, nothing came twice, and nothing in disorder."""
    await ledger.settle(node.dsn, follower)
    found = await ledger.judge(node, follower)
    assert not found.lost, f"{len(found.lost)} rows lost without a word: {found.lost[:10]}; gaps: {follower.gaps}"
    assert not found.doubled, f"{len(found.doubled)} doubled: {found.doubled[:10]}"
    assert not found.disordered, found.disordered[:10]
    return found


@faults
async def test_a_crash_after_savepoints_that_were_rolled_back_loses_nothing(
    server: Node, ledger: Ledger, fault: Fault
) -> None:
    async with (
        Proxy(server.port) as address,
        following(server.through(address), trail=TRAIL, fallback=0.1) as [follower],
    ):
        async with unflushed_ids(server, ledger, follower) as last:
            await address.refuse()
            await fault(server)
        await assert_given_out_again(server, last)
        await ledger.write_some(server.dsn, 60)
        await address.listen()
        found = await verdict(ledger, server, follower)
        assert not follower.gaps, "the ids that are new are known exactly"
        assert not found.vanished


@pytest.mark.parametrize("then", ["a checkpoint", "a clean restart", "a second crash"])
async def test_what_happens_before_the_feed_is_back_does_not_hide_a_crash(
    newest: Node, ledger: Ledger, then: str
) -> None:
    """The checkpoint that ended the recovery is not the last one any more, so what it says of ids is not to be had."""
    async with (
        Proxy(newest.port) as address,
        following(newest.through(address), trail=TRAIL, fallback=0.1) as [follower],
    ):
        async with unflushed_ids(newest, ledger, follower) as last:
            await address.refuse()
            await sigkill(newest)
        await assert_given_out_again(newest, last)
        await ledger.write_some(newest.dsn, 60)
        if then == "a checkpoint":
            async with connection_to(newest.dsn) as connection:
                await connection.execute("CHECKPOINT")
        elif then == "a clean restart":
            await newest.stop()
            newest.postgres.start()
        else:
            await sigkill(newest)
        await address.listen()
        await verdict(ledger, newest, follower)


@faults
async def test_crashes_in_the_middle_of_traffic_lose_and_double_nothing(
    server: Node, ledger: Ledger, fault: Fault
) -> None:
    async with following(server.dsn, server.dsn) as followers:
        async with ledger.writing(server.dsn, writers=4, pause=0.0):
            for _ in range(3):
                at = len(followers[0].messages)
                await wait_until(lambda at=at: len(followers[0].messages) > at + 200)  # type: ignore[misc]
                await fault(server)
            at = len(followers[1].messages)
            await wait_until(lambda: len(followers[1].messages) > at + 200)
        for follower in followers:
            found = await verdict(ledger, server, follower)
            assert not follower.gaps
            assert not found.vanished


async def test_a_prepared_transaction_that_outlives_a_crash_is_delivered_when_it_commits(
    newest: Node, ledger: Ledger
) -> None:
    """Its id is older than the crash, and it is under way on both sides of it."""
    async with following(newest.dsn, trail=TRAIL) as [follower]:
        await ledger.prepare(newest.dsn, 50, "slow")
        await outlast_the_trail(follower)
        await sigkill(newest)
        await ledger.write_some(newest.dsn, 60)
        await ledger.settle(newest.dsn, follower)
        async with connection_to(newest.dsn) as connection:
            await connection.execute("COMMIT PREPARED 'slow'")
        await wait_until(lambda: any(message["writer"] == 50 for message in follower.payloads))
        await verdict(ledger, newest, follower)
        assert not follower.gaps


@pytest.mark.parametrize("fault", ["a lost link", "a crash"])
@pytest.mark.parametrize(
    "how", ["DELETE FROM realtime.messages", "TRUNCATE realtime.messages CASCADE"], ids=["delete", "truncate"]
)
async def test_rows_that_the_application_has_deleted_are_no_sign_of_another_history(
    newest: Node, ledger: Ledger, fault: str, how: str
) -> None:
    async with following(newest.dsn) as [follower]:
        await ledger.write_some(newest.dsn, 100)
        await ledger.settle(newest.dsn, follower)
        await outlast_the_trail(follower, 1.2)  # until a footprint is known to be flushed
        async with connection_to(newest.dsn) as connection:
            await connection.execute(how)
            if fault == "a lost link":
                await connection.execute(TERMINATE)
        if fault == "a crash":
            await sigkill(newest)
        await ledger.write_some(newest.dsn, 100)
        await verdict(ledger, newest, follower)
        assert not follower.gaps
