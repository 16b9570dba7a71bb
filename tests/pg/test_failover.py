"""Failovers: PostgreSQL goes, and what takes its place may have less, or have gone another way.

Every test keeps a ledger (`support.ledger`): what the surviving database has was delivered, once and in order; or the feed
has said that it cannot know. Nothing is lost without a word.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from insforge_realtime.pg import feed
from support.databases import wait_until
from support.feeds import Listener
from support.ledger import Ledger, Verdict, counted_gaps, following, outlast_the_trail
from support.standby import Node, Replication, connection_to, lone_server, replicated, use_up_ids

NEW_ROWS = 300


@pytest.fixture(params=[18])
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Replication]:
    """A primary, and a standby that streams from it."""
    async with replicated(request.param) as replication:
        yield replication


on_both = pytest.mark.parametrize("pair", [15, 18], ids=["pg15", "pg18"], indirect=True)


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


async def verdict(ledger: Ledger, surviving: Node, *followers: Listener) -> list[Verdict]:
    """When all is quiet: nothing was lost without a word, nothing came twice, and nothing in disorder."""
    await ledger.settle(surviving.dsn, *followers)
    verdicts = [await ledger.judge(surviving, follower) for follower in followers]
    for found, follower in zip(verdicts, followers, strict=True):
        assert not found.lost, f"{len(found.lost)} rows lost without a word: {found.lost[:10]}; gaps: {follower.gaps}"
        assert not found.doubled, f"{len(found.doubled)} doubled: {found.doubled[:10]}"
        assert not found.disordered, found.disordered[:10]
        assert counted_gaps(follower)[0] == len(follower.gaps)
    return verdicts


def assert_proved(verdicts: list[Verdict], *followers: Listener) -> None:
    """The feed went on without a gap."""
    assert [follower.gaps for follower in followers] == [[]] * len(followers)
    assert not any(found.excused for found in verdicts)


async def some_traffic(ledger: Ledger, dsn: str, followers: list[Listener], seconds: float = 1.5) -> None:
    """Traffic for so long, which all have heard some of."""
    before = [len(follower.messages) for follower in followers]
    async with ledger.writing(dsn):
        await asyncio.sleep(seconds)
        await wait_until(lambda: all(len(f.messages) > n for f, n in zip(followers, before, strict=True)))


async def fall_behind(ledger: Ledger, pair: Replication, followers: list[Listener], seconds: float) -> None:
    """The standby has all, then lags for so long, while rows are delivered that it lacks; then the primary is killed."""
    await some_traffic(ledger, pair.primary.dsn, followers)
    await pair.standby.catch_up(pair.primary)
    pair.standby.lag()
    await some_traffic(ledger, pair.primary.dsn, followers, seconds)
    await pair.standby.part()
    pair.primary.kill()


@on_both
async def test_a_planned_switchover_loses_and_doubles_nothing(pair: Replication, ledger: Ledger) -> None:
    async with following(pair.dsn, pair.dsn) as followers:
        async with ledger.writing(pair.dsn):
            await wait_until(lambda: len(followers[0].messages) > 300)
            await pair.primary.stop()
            await pair.standby.promote()
            await pair.move_to(pair.standby)
            at = len(followers[0].messages)
            await wait_until(lambda: len(followers[0].messages) > at + NEW_ROWS)
        verdicts = await verdict(ledger, pair.standby, *followers)
        assert_proved(verdicts, *followers)
        assert not verdicts[0].vanished


@on_both
async def test_sigkill_with_a_standby_that_has_everything_loses_nothing(pair: Replication, ledger: Ledger) -> None:
    async with following(pair.dsn) as [follower]:
        await some_traffic(ledger, pair.dsn, [follower])
        await pair.standby.catch_up(pair.primary)
        pair.primary.kill()
        await pair.standby.promote()
        await ledger.write_some(pair.standby.dsn, NEW_ROWS)
        await pair.move_to(pair.standby)
        [found] = verdicts = await verdict(ledger, pair.standby, follower)
        assert_proved(verdicts, follower)
        assert not found.vanished


async def test_a_synchronous_failover_in_the_middle_of_traffic_loses_nothing(pair: Replication, ledger: Ledger) -> None:
    """What the feed has seen, the standby has; so no history is rewritten, as far as anybody can tell."""
    await pair.synchronous()
    async with following(pair.dsn) as [follower]:
        async with ledger.writing(pair.dsn):
            await wait_until(lambda: len(follower.messages) > 300)
            pair.primary.kill()
            await pair.standby.promote()
            await ledger.write_some(pair.standby.dsn, NEW_ROWS)
            await pair.move_to(pair.standby)
            at = len(follower.messages)
            await wait_until(lambda: len(follower.messages) > at + 100)
        [found] = verdicts = await verdict(ledger, pair.standby, follower)
        assert_proved(verdicts, follower)
        assert not found.vanished


@pytest.mark.parametrize(("pair", "lag"), [(18, 0.5), (18, 2.0), (15, 6.0), (18, 6.0)], indirect=["pair"])
@pytest.mark.parametrize("rows", [NEW_ROWS, 3000], ids=["fewer", "more"])
async def test_a_standby_that_lagged_and_was_promoted_loses_no_row_of_its_own(
    pair: Replication, ledger: Ledger, lag: float, rows: int
) -> None:
    """Before the feed comes, ids are given out again: fewer than it has seen, or more, so that none looks old."""
    async with following(pair.dsn, pair.dsn) as followers:
        await fall_behind(ledger, pair, followers, lag)
        await pair.standby.promote()
        await ledger.write_some(pair.standby.dsn, rows)
        await pair.move_to(pair.standby)
        verdicts = await verdict(ledger, pair.standby, *followers)
        assert_proved(verdicts, *followers)
        assert verdicts[0].vanished, "the standby had everything: nothing was tested"


@pytest.mark.parametrize("rows", [NEW_ROWS, 3000], ids=["fewer", "more"])
async def test_where_no_footprint_survives_the_feed_says_so_and_goes_on(
    pair: Replication, ledger: Ledger, rows: int
) -> None:
    async with following(pair.dsn, trail=1.0) as [follower]:
        await fall_behind(ledger, pair, [follower], 4.0)
        await pair.standby.promote()
        await ledger.write_some(pair.standby.dsn, rows)
        await pair.move_to(pair.standby)
        await verdict(ledger, pair.standby, follower)
        assert len(follower.gaps) == 1, "once, and not again when it has gone on"
        assert counted_gaps(follower) == (1, follower.gaps[0][1])
        gaps, at = len(follower.gaps), len(follower.messages)
        await follow_on(ledger, pair.standby, follower, at)
        assert len(follower.gaps) == gaps


async def follow_on(ledger: Ledger, node: Node, follower: Listener, at: int) -> None:
    """Its link is lost once more, and nothing is."""
    async with connection_to(node.dsn) as connection:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'insforge-realtime feed'"
        )
    await ledger.write_some(node.dsn, 100)
    await wait_until(lambda: len(follower.messages) >= at + 100)
    await verdict(ledger, node, follower)


@pytest.mark.parametrize("others", ["commit", "roll back"])
async def test_ids_that_only_others_used_up_while_the_standby_lagged_hide_no_message(
    pair: Replication, ledger: Ledger, others: str
) -> None:
    """No message is lost with the primary, so all that was delivered exists; yet the feed has called those ids old."""
    async with following(pair.dsn, trail=1.0, fallback=0.1) as [follower]:
        await some_traffic(ledger, pair.dsn, [follower])
        await pair.standby.catch_up(pair.primary)
        await wait_until(lambda: follower.feed.asleep or follower.feed.health.paced)
        pair.standby.lag()
        async with connection_to(pair.primary.dsn) as connection:
            await connection.execute("BEGIN")
            await use_up_ids(connection, 200)
            if others == "commit":
                await connection.execute("COMMIT")
            await outlast_the_trail(follower)
            await pair.standby.part()
            pair.primary.kill()
        await pair.standby.promote()
        await ledger.write_some(pair.standby.dsn, 100)
        await pair.move_to(pair.standby)
        await verdict(ledger, pair.standby, follower)


@pytest.mark.parametrize("back", [False, True], ids=["moved", "moved and back"])
async def test_split_brain_loses_no_row_of_the_database_that_survives(
    pair: Replication, ledger: Ledger, back: bool
) -> None:
    """The old primary goes on, and takes writes; the feed is moved late. Or it is moved, and the old one wins after all."""
    old, new = pair.primary, pair.standby
    async with following(pair.dsn) as [follower]:
        await some_traffic(ledger, old.dsn, [follower])
        await new.promote()
        async with ledger.writing(old.dsn, 2), ledger.writing(new.dsn, 2):
            at = len(follower.messages)
            await asyncio.sleep(4)
            await pair.move_to(new)
            await wait_until(lambda: len(follower.messages) > at + 100)
            if back:
                at = len(follower.messages)
                await asyncio.sleep(2)
                await pair.move_to(old)
                await wait_until(lambda: len(follower.messages) > at + 100)
        [found] = verdicts = await verdict(ledger, old if back else new, follower)
        assert_proved(verdicts, follower)
        assert found.vanished


@pytest.mark.parametrize("ids", ["lower", "higher"])
async def test_another_cluster_behind_the_same_address_is_never_taken_for_the_old_one(
    pair: Replication, ledger: Ledger, ids: str
) -> None:
    """A restore into a new cluster, or a DNS entry that was changed: it has ids of its own, and the same timeline."""
    async with connection_to(pair.dsn) as connection:
        await use_up_ids(connection, 1000)
    async with lone_server(18) as other, following(pair.dsn) as [follower]:
        await other.take_password_of(pair.primary)
        await some_traffic(ledger, pair.dsn, [follower])
        await pair.hide()
        await ledger.write_some(other.dsn, NEW_ROWS)
        if ids == "higher":
            async with connection_to(other.dsn) as connection:
                await use_up_ids(connection, 4000)
        await pair.move_to(other)
        [found] = await verdict(ledger, other, follower)
        assert found.vanished
        assert len(follower.gaps) == 1, "of what was there before nothing can be proved"


async def test_two_failovers_one_after_the_other_lose_nothing(pair: Replication, ledger: Ledger) -> None:
    async with following(pair.dsn) as [follower]:
        await fall_behind(ledger, pair, [follower], 2.0)
        second = pair.standby
        await second.promote()
        await ledger.write_some(second.dsn, NEW_ROWS)
        third = await pair.follow(second)
        await third.catch_up(second)
        await pair.move_to(second)
        await ledger.settle(second.dsn, follower)
        third.lag()
        await some_traffic(ledger, second.dsn, [follower], 4.0)
        await third.part()
        second.kill()
        await third.promote()
        await ledger.write_some(third.dsn, 1000)
        await pair.move_to(third)
        verdicts = await verdict(ledger, third, follower)
        assert_proved(verdicts, follower)


async def test_two_failovers_while_the_feed_is_away_lose_nothing(pair: Replication, ledger: Ledger) -> None:
    """The timeline that it comes back to is not the next one."""
    async with following(pair.dsn) as [follower]:
        await fall_behind(ledger, pair, [follower], 4.0)
        await pair.hide()
        second = pair.standby
        await second.promote()
        await ledger.write_some(second.dsn, 600)
        third = await pair.follow(second)
        await third.catch_up(second)
        second.kill()
        await third.promote()
        await ledger.write_some(third.dsn, 600)
        await pair.move_to(third)
        verdicts = await verdict(ledger, third, follower)
        assert_proved(verdicts, follower)


async def test_an_address_that_moves_before_the_promotion_loses_nothing(pair: Replication, ledger: Ledger) -> None:
    """The feed meets a standby, and its session may outlive the promotion. A snapshot taken there knows nothing of the
    transactions that are under way on the primary."""
    async with following(pair.dsn) as [follower], connection_to(pair.primary.dsn) as slow:
        await some_traffic(ledger, pair.dsn, [follower])
        transaction = slow.transaction()
        await transaction.start()
        await ledger.write(slow, 50)
        await ledger.write_some(pair.primary.dsn, 50)
        await pair.move_to(pair.standby)
        await wait_until(lambda: pair.address.accepted >= 3)
        await wait_until(lambda: follower.feed.health.state != "live")  # there is nobody there who could be rung for
        await transaction.commit()
        await ledger.write_some(pair.primary.dsn, 50)
        await pair.primary.stop()
        await pair.standby.promote()
        await ledger.write_some(pair.standby.dsn, NEW_ROWS)
        [found] = verdicts = await verdict(ledger, pair.standby, follower)
        assert_proved(verdicts, follower)
        assert not found.vanished


async def test_while_the_first_of_two_hosts_is_silent_the_second_is_tried(
    pair: Replication, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel of the first still accepts connections; nobody answers them."""
    monkeypatch.setattr(feed, "STATEMENT_SECONDS", 1.0)
    async with following(pair.both, trail=60.0) as [follower]:
        await some_traffic(ledger, pair.primary.dsn, [follower])
        await pair.standby.catch_up(pair.primary)
        pair.primary.freeze()
        await pair.standby.promote()
        await ledger.write_some(pair.standby.dsn, NEW_ROWS)
        verdicts = await verdict(ledger, pair.standby, follower)
        assert_proved(verdicts, follower)


async def test_while_the_first_of_two_hosts_is_a_standby_the_second_is_used(pair: Replication, ledger: Ledger) -> None:
    """After a failover, and the old primary's return as a standby, the names in the DSN are in the wrong order."""
    await pair.standby.catch_up(pair.primary)
    await pair.primary.stop()
    await pair.standby.promote()
    third = await pair.follow(pair.standby)
    hosts = f":{third.port},127.0.0.1:{pair.standby.port}/"
    dsn = third.dsn.replace(f":{third.port}/", hosts) + "?target_session_attrs=read-write"
    async with following(dsn) as [follower]:
        await some_traffic(ledger, pair.standby.dsn, [follower])
        await third.catch_up(pair.standby)
        await pair.standby.stop()
        await third.promote()
        await ledger.write_some(third.dsn, NEW_ROWS)
        assert_proved(await verdict(ledger, third, follower), follower)


async def test_a_prepared_transaction_that_outlives_the_failover_is_delivered_when_it_commits(
    pair: Replication, ledger: Ledger
) -> None:
    """Its id is older than all that is new, and was under way in every footprint."""
    async with following(pair.dsn) as [follower]:
        await ledger.prepare(pair.dsn, 50, "slow")
        await pair.standby.catch_up(pair.primary)
        pair.primary.kill()
        await pair.standby.promote()
        await ledger.write_some(pair.standby.dsn, NEW_ROWS)
        await pair.move_to(pair.standby)
        await ledger.settle(pair.standby.dsn, follower)
        async with connection_to(pair.standby.dsn) as connection:
            await connection.execute("COMMIT PREPARED 'slow'")
        await wait_until(lambda: any(message["writer"] == 50 for message in follower.payloads))
        assert_proved(await verdict(ledger, pair.standby, follower), follower)
