"""A failover after which nothing can be proved, as clients and operators see it: sockets are closed and come back, so that
applications load anew; health, and the log, say why. And one after which all can be proved, which nobody sees."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from insforge_realtime.client import create_client
from support.client import Watch, load, run_sql, say, until_subscribed
from support.databases import wait_until
from support.ledger import Ledger
from support.polling import PollingClient
from support.servers import Server, token
from support.standby import Replication, replicated
from support.wire import WireClient

ROOM = "room:1"
TOKEN = {"token": token("7f1c0a52-6d6e-4c5f-9f0e-0d7a3c1b2a01")}
LET_ALL_IN = "CREATE POLICY everybody ON realtime.channels FOR SELECT TO authenticated USING (true)"


@pytest.fixture
async def pair() -> AsyncIterator[Replication]:
    """A primary with a standby, whose rooms are open to everybody signed in."""
    async with replicated(18) as replication:
        await run_sql(replication.primary.dsn, LET_ALL_IN)
        yield replication


@contextlib.asynccontextmanager
async def serving(pair: Replication, **settings: object) -> AsyncIterator[Server]:
    """A server that knows the address that moves. In threads, since that address is served by this event loop."""
    server = Server(pair.dsn, feed_fallback_seconds=0.5, **settings)
    await asyncio.to_thread(server.start)
    try:
        yield server
    finally:
        assert await asyncio.to_thread(server.stop) == 0, "\n".join(server.raw[-40:])


async def fail_over(pair: Replication, ledger: Ledger, watch: Watch, lag: float) -> None:
    """Promote a standby that has lagged for so long under traffic, and let it give ids out again."""
    await ledger.write_some(pair.primary.dsn, 50)
    await pair.standby.catch_up(pair.primary)
    pair.standby.lag()
    async with ledger.writing(pair.primary.dsn):
        await asyncio.sleep(lag)
        await wait_until(lambda: len(watch.named("e")) > 50)
    await pair.standby.part()
    pair.primary.kill()
    await pair.standby.promote()
    await ledger.write_some(pair.standby.dsn, 200)
    await pair.move_to(pair.standby)


async def until_live(server: Server, **wanted: Any) -> dict[str, Any]:
    """Until health says that the feed is live, and this; what else it says."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(OSError):  # 503 while it is not
                feed = await asyncio.to_thread(server.feed)
                if feed["state"] == "live" and all(feed.get(name) == value for name, value in wanted.items()):
                    return feed
            await asyncio.sleep(0.05)


async def test_where_nothing_can_be_proved_clients_are_closed_and_come_back_and_health_and_log_say_so(
    pair: Replication,
) -> None:
    async with (
        serving(pair, feed_trail_seconds=1) as server,
        create_client(server.url, access_token=TOKEN["token"], backoff=(0.05, 0.4)) as client,
        WireClient(server.ws_url, TOKEN) as wire,
        PollingClient(server.url, TOKEN) as polling,
    ):
        watch = Watch(client, "e", "after")
        assert (await client.subscribe(ROOM)).ok
        for each in (wire, polling):
            assert (await each.subscribe(ROOM))["ok"]
        polling.start()
        await fail_over(pair, Ledger(), watch, 4.0)
        feed = await until_live(server, gaps=1)
        async with asyncio.timeout(20):
            await wire.closed.wait()
            await polling.closed.wait()
        assert wire.ws.close_code == 1012
        assert "41" not in wire.packets + polling.packets, "a DISCONNECT packet would make clients stay away"
        assert feed["lastGap"]
        assert any(feed["lastGap"] in json.dumps(line, ensure_ascii=False) for line in server.errors()), server.raw[
            -20:
        ]

        await watch.wait_for("connect", 2)
        await until_subscribed(client, ROOM)
        await say(pair.standby.dsn, ROOM, "after")
        await watch.wait_for("after")
        assert (await load(server))[0] == 1, "only the client that comes back by itself is there"
        assert (await asyncio.to_thread(server.feed))["gaps"] == 1


async def test_where_a_footprint_survives_nobody_is_closed_and_nothing_is_lost(pair: Replication) -> None:
    ledger = Ledger()
    async with (
        serving(pair) as server,
        create_client(server.url, access_token=TOKEN["token"]) as client,
    ):
        watch = Watch(client, "e", "after")
        for number in range(5):
            assert (await client.subscribe(f"room:{number}")).ok
        await fail_over(pair, ledger, watch, 4.0)
        await until_live(server, gaps=0, lastGap=None)
        await say(pair.standby.dsn, ROOM, "after")
        await watch.wait_for("after")
        heard = {message["n"] for message in watch.named("e")}
        assert set(ledger.acknowledged[pair.standby.dsn]) <= heard
        assert len(watch.named("connect")) <= 1
        assert not watch.named("disconnect")
