"""Whom the operator disconnects (`Realtime.disconnect`) stays away until the user connects again: SDK by SDK, for real.

Plain Socket.IO clients are in test_realtime.py.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from e2e.sdk_cases import CHAT, ORDER, QUICK, until_subscribed
from insforge_realtime import Realtime
from insforge_realtime.client import NotConnected, RealtimeClient, SubscribeError, create_client, sync
from insforge_realtime.pg.demo import ALICE, ALICES_ORDER, BOB
from support.browser import MISSING, Browser, static_files
from support.client import Watch
from support.client import until_subscribed as until_in
from support.databases import wait_until
from support.embedded import application, realtime_for, serving
from support.node import Failed, Sdk
from support.servers import token

PUPPETS = {"official": "sdk.mjs", "typescript": "ours.mjs", "python": "python_puppet.py"}
PAGE = Path(__file__).parents[2] / "examples" / "react-orders" / "dist"
BACK_SECONDS = 2.0
"""Longer than the official SDK, or ours with a quick back-off, waits before it comes back."""


def bobs(address: str) -> RealtimeClient:
    return create_client(f"http://{address}", access_token=token(BOB), backoff=(0.05, 0.4))


def connections(realtime: Realtime) -> int:
    assert realtime._running is not None
    return len(realtime._running.gateway.connections)


@pytest.mark.parametrize("sdk", PUPPETS)
async def test_an_sdk_stays_away_until_it_is_connected_again_and_has_its_subscriptions_then(
    sdk: str, demo: str
) -> None:
    realtime, official = realtime_for(demo), sdk == "official"
    events = ("connect", "connect_error", "disconnect", "error", "said", "realtime:subscribed")
    async with serving(application(realtime)) as address, Sdk(PUPPETS[sdk]) as puppet:
        bob = await puppet.client(f"http://{address}", token(BOB), *events, **({} if official else QUICK))
        for channel in (CHAT, ORDER):
            assert (await bob.subscribe(channel))["ok"]
        assert realtime.disconnect(BOB) == 1
        assert await bob.wait_for("disconnect") == ["io server disconnect"]
        state = await bob.state()
        assert (state["isConnected"], state["channels"]) == (False, [])
        assert state["connectionState"] == (
            "connecting" if official else "disconnected"
        )  # (the official one's word for it)
        with pytest.raises(Failed) as caught:
            await bob.call("publish", CHAT, "said", {})
        if not official:
            assert caught.value.error["data"]["code"] == "NOT_CONNECTED"
            assert "The server has disconnected this user" in caught.value.error["message"]
            await bob.call("setAccessToken", token(BOB))
        await asyncio.sleep(BACK_SECONDS)
        assert connections(realtime) == 0
        assert len(bob.named("connect")) == 1

        await bob.call("connect")
        for channel in (CHAT, ORDER):
            await until_subscribed(bob, channel)
        await realtime.publish(CHAT, "said", {})
        await bob.wait_for("said")
        assert (connections(realtime), bob.named("connect_error"), bob.named("error")) == (1, [], [])
        confirmed = [(it["channel"], it["renewed"]) for it in bob.named("realtime:subscribed")]
        expected = [(channel, renewed) for renewed in (False, True) for channel in (CHAT, ORDER)]
        assert confirmed == ([] if official else expected)


async def test_a_stream_ends_with_the_reason_and_subscribe_connects_again(demo: str) -> None:
    realtime = realtime_for(demo)
    async with serving(application(realtime)) as address, bobs(address) as bob:
        watch = Watch(bob)
        assert (await bob.subscribe(ORDER)).ok
        reading = asyncio.ensure_future(anext(bob.stream(CHAT)))
        await until_in(bob, CHAT, ORDER)
        assert realtime.disconnect(BOB) == 1
        with pytest.raises(SubscribeError, match="disconnected this user") as caught:
            await reading
        assert caught.value.code == "DISCONNECTED"
        with pytest.raises(NotConnected, match="disconnected this user"):
            await bob.publish(ORDER, "said", {})
        assert bob.connection_state == "disconnected"
        assert (await bob.subscribe(CHAT)).ok  # it is the user who connects
        await until_in(bob, CHAT, ORDER)
        assert watch.named("disconnect") == ["io server disconnect"]


async def test_a_listener_of_disconnect_may_connect_again(demo: str) -> None:
    realtime = realtime_for(demo)
    async with serving(application(realtime)) as address, bobs(address) as bob:
        watch = Watch(bob)

        async def back(reason: str) -> None:
            if reason == "io server disconnect":
                await bob.connect()

        bob.on("disconnect", back)
        assert (await bob.subscribe(CHAT)).ok
        assert realtime.disconnect(BOB) == 1
        await watch.wait_for("connect", 2)
        await until_in(bob, CHAT)


async def test_the_client_without_asyncio_stays_away_too(demo: str) -> None:
    realtime = realtime_for(demo)

    def read(url: str) -> Any:
        with sync.create_client(url, access_token=token(BOB), backoff=(0.05, 0.4)) as bob:
            try:
                return list(bob.stream(CHAT))
            except SubscribeError as error:
                return error.code, bob.connection_state

    async with serving(application(realtime)) as address:
        reading = asyncio.create_task(asyncio.to_thread(read, f"http://{address}"))
        assert realtime._running is not None
        hub = realtime._running.hub
        await wait_until(lambda: hub.rooms or reading.done())
        realtime.disconnect(BOB)
        assert await reading == ("DISCONNECTED", "disconnected")


@pytest.mark.skipif(MISSING, reason="Chromium is not installed")
async def test_a_page_shows_it_and_retry_connects_again(demo: str) -> None:
    realtime = realtime_for(demo)
    async with serving(application(realtime)) as address:
        with static_files(PAGE) as root:
            async with Browser() as browser:
                settings = {"url": f"http://{address}", "token": token(ALICE), "orders": ALICES_ORDER}
                page = await browser.page(f"{root}/index.html#{urlencode(settings)}")
                await page.see(".connection", "subscribed")
                assert realtime.disconnect(ALICE) == 1
                await page.see(".connection.disconnected", "The server has disconnected this user")
                await page.click("text=none")
                await page.click("text=0001")  # a component that comes new does not bring the user back
                await page.see(".connection.disconnected", "The server has disconnected this user")
                assert connections(realtime) == 0
                await page.click("text=Try again")
                await page.see(".connection", "subscribed · 1 watching")
                await realtime.publish(f"order:{ALICES_ORDER}", "UPDATE_order", {"status": "shipped", "total": 1})
                await page.see("article div", "Status: shipped")
                assert page.problems == []
