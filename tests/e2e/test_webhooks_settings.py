"""Several servers with one queue, which may not all send to the same networks."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from insforge_realtime.pg.deliveries import PRESENCE
from support.databases import wait_until
from support.receivers import LOOPBACK, Hooked, receiving, status
from support.servers import Server

Start = Callable[..., Server]
QUICK = "0.05,0.1"
SAID = "webhooks left to other servers"


@pytest.fixture(params=["direct", "pooled"])
def begin(db: Hooked, start: Start, request: pytest.FixtureRequest) -> Start:
    """Start a server; where a pooler may stand in between, it has another way to the same database."""

    def begin_server(**settings: object) -> Server:
        way = {"listen_url": db.url} if request.param == "pooled" else {}
        return start(db.url, **{"webhook_retry_delays": QUICK, **way, **settings})

    return begin_server


async def seen(db: Hooked, servers: int) -> None:
    """Until so many servers can be seen by each other."""
    asked = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid::bigint = $1"
    while await db.connection.fetchval(asked, PRESENCE) < servers:
        await asyncio.sleep(0.01)


def kinds(rows: list[Any]) -> set[tuple[str, int, int | None]]:
    return {(row["state"], row["attempts"], row["last_status_code"]) for row in rows}


async def test_a_server_that_may_not_send_leaves_it_to_one_that_may(db: Hooked, begin: Start) -> None:
    async with receiving() as receiver:
        await db.channel("order:%", receiver.url)
        forbidden = begin()
        begin(webhook_allow_networks=LOOPBACK)
        await seen(db, 2)
        for _ in range(20):
            await db.publish_many("order:1", 5)
        assert kinds(await db.all_over()) == {("delivered", 1, 200)}
        assert Counter(receiver.ids).most_common(1)[0][1] == 1
        assert await db.counts() == [(1, 1)] * 100
    assert Counter(line["event"] for line in forbidden.lines)[SAID] <= 1
    assert not any("webhook" in line["event"] for line in forbidden.lines if line["level"] == "warning")


async def test_what_another_server_is_still_trying_is_not_spoilt_by_one_that_may_not(db: Hooked, begin: Start) -> None:
    """Its host is down for long; both look at the queue meanwhile."""
    async with receiving(status(503, 503, 503, 503, 200)) as receiver:
        await db.channel("order:%", receiver.url)
        forbidden = begin()
        begin(webhook_allow_networks=LOOPBACK, webhook_breaker_failures=1, webhook_concurrency_per_host=1)
        await seen(db, 2)
        await db.publish_many("order:1", 20)
        await asyncio.to_thread(forbidden.wait_for_log, SAID)
        await wait_until(lambda: len(receiver.hits) >= 2)
        rows = await db.rows()
        assert sum(row["attempts"] for row in rows) <= len(receiver.hits)
        assert "failed" not in await db.states()


async def test_what_no_server_may_send_fails_and_says_which_setting(db: Hooked, begin: Start) -> None:
    async with receiving() as receiver:
        await db.channel("order:%", receiver.url)
        servers = [begin(), begin(webhook_allow_networks="10.0.0.0/8"), begin(webhook_allow_networks="10.1.0.0/16")]
        await seen(db, 3)
        await db.publish_many("order:1", 30)
        rows = await db.all_over()
        assert kinds(rows) == {("failed", 3, None)}
        assert all("REALTIME_WEBHOOK_ALLOW_NETWORKS" in row["last_error"] for row in rows)
        assert receiver.hits == []
        await wait_until(
            lambda: sum(line["event"] == "webhook failed" for server in servers for line in server.lines) == 30
        )


async def test_servers_with_the_same_networks_do_not_wait_for_each_other(db: Hooked, begin: Start) -> None:
    async with receiving() as receiver:
        await db.channel("order:%", receiver.url)
        same = ("10.0.0.0/8,fd00::/8", "fd00::/8, 10.0.0.0/8")
        servers = [begin(webhook_allow_networks=networks) for networks in same]
        await seen(db, 2)
        await db.publish_many("order:1", 30)
        assert kinds(await db.all_over()) == {("failed", 3, None)}
        assert not any(line["event"] == SAID for server in servers for line in server.lines)


async def test_once_the_server_that_may_is_gone_the_other_ones_word_counts(db: Hooked, begin: Start) -> None:
    async with receiving() as receiver:
        await db.channel("order:%", receiver.url)
        forbidden, allowed = begin(), begin(webhook_allow_networks=LOOPBACK)
        await seen(db, 2)
        await db.publish("order:1")
        await db.all_over()
        allowed.stop()
        await db.publish("order:1")
        await asyncio.to_thread(forbidden.wait_for_log, "webhook failed")
        assert [row["state"] for row in await db.rows()] == ["delivered", "failed"]
