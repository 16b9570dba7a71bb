"""Whom our Python client tells of a confirmed subscription, and when: what the table of cases (sdk_cases.py) cannot say."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import asyncpg
import pytest

from e2e.sdk_cases import CHAT, GATE, GATED, ORDER
from insforge_realtime.client import RealtimeClient, Subscribed, create_client, sync
from insforge_realtime.pg.demo import ALICES_ORDER, BOB
from support.client import Watch, run_sql, say, until_subscribed
from support.databases import wait_until
from support.proxy import Proxy
from support.servers import Server, token

Start = Callable[..., Server]

FIRST, RENEWED = Subscribed(CHAT, renewed=False), Subscribed(CHAT, renewed=True)


def bobs(url: str, **options: Any) -> RealtimeClient:
    return create_client(url, access_token=token(BOB), backoff=(0.05, 0.4), **options)


async def test_a_stream_and_subscribe_each_tell_whom_they_were_given_and_no_longer_than_they_live(
    demo: str, start: Start
) -> None:
    server = start(demo)
    async with Proxy(server.port) as proxy, bobs(proxy.url) as bob:
        watch, one, two = Watch(bob, "realtime:subscribed"), list[Subscribed](), list[Subscribed]()

        async def told(news: Subscribed) -> None:  # async ones are awaited, like listeners
            await asyncio.sleep(0)
            one.append(news)

        for _ in range(2):
            assert (await bob.subscribe(CHAT, on_subscribed=told)).ok
        async with aclosing(bob.stream(CHAT, on_subscribed=two.append)) as stream:
            reading = asyncio.ensure_future(anext(stream))
            await wait_until(lambda: two == [FIRST])  # at once: the channel is there already
            await proxy.cut()
            await wait_until(lambda: two == [FIRST, RENEWED])
            await say(demo, CHAT)
            assert (await reading).event == "said"
        await proxy.cut()
        await watch.wait_for("realtime:subscribed", 3)
        await wait_until(lambda: one == [FIRST, RENEWED, RENEWED])
        assert two == [FIRST, RENEWED]
        await bob.unsubscribe(CHAT)
        assert (await bob.subscribe(CHAT)).ok
        assert watch.named("realtime:subscribed") == [FIRST, RENEWED, RENEWED, FIRST]
        assert len(one) == 3


async def test_who_is_refused_is_never_told(demo: str, start: Start) -> None:
    server, told = start(demo), list[Subscribed]()
    other = f"order:{ALICES_ORDER}"
    async with Proxy(server.port) as proxy, bobs(proxy.url) as bob:
        watch = Watch(bob, "realtime:subscribed")
        assert not (await bob.subscribe(other, on_subscribed=told.append)).ok
        await run_sql(demo, "CREATE POLICY all_orders ON realtime.channels FOR SELECT USING (pattern = 'order:%')")
        assert (await bob.subscribe(other)).ok
        assert (await bob.subscribe(ORDER, on_subscribed=told.append)).ok
        await run_sql(
            demo,
            "DROP POLICY all_orders ON realtime.channels",
            "DROP POLICY users_subscribe_own_orders ON realtime.channels",
        )
        await proxy.cut()
        assert {error.channel for error in await watch.wait_for("error", 2)} == {other, ORDER}
        assert told == [Subscribed(ORDER, renewed=False)]
        with pytest.raises(TypeError, match="callable"):
            await bob.subscribe(CHAT, on_subscribed=7)  # type: ignore[arg-type]


async def test_a_slow_yes_counts_though_it_was_asked_again_and_is_told_once_before_any_message(
    demo: str, start: Start
) -> None:
    await run_sql(demo, GATED)
    server = start(demo)
    async with Proxy(server.port) as proxy, bobs(proxy.url, timeout=0.5) as bob:
        watch = Watch(bob, "realtime:subscribed", "said")
        assert (await bob.subscribe("gated")).ok
        connection = await asyncpg.connect(demo)
        try:
            await connection.execute(f"SELECT pg_advisory_lock({GATE})")
            await proxy.cut()
            await watch.wait_for("connect", 2)
            assert not (await bob.subscribe("gated")).ok  # so it has been asked again by now
        finally:
            await connection.close()
        await until_subscribed(bob, "gated")
        await say(demo, "gated")
        await watch.wait_for("said")
        assert (await bob.subscribe("orders")).ok  # so the second answer is here as well
        assert [name for name, _ in watch.events if name in ("realtime:subscribed", "said")] == [
            *("realtime:subscribed",) * 2,
            "said",
            "realtime:subscribed",
        ]
        assert watch.named("realtime:subscribed")[1:] == [
            Subscribed("gated", renewed=True),
            Subscribed("orders", renewed=False),
        ]


def test_without_asyncio_it_is_told_in_the_listeners_thread_before_any_message(demo: str, start: Start) -> None:
    server, heard, done = start(demo), list[object](), threading.Event()

    def told(news: Subscribed) -> None:
        assert threading.current_thread().name == "insforge-realtime-listeners"
        assert client.get_subscribed_channels() == [CHAT]  # it may use the client
        heard.append(news)

    with sync.create_client(server.url, access_token=token(BOB)) as client:
        client.on("realtime:subscribed", heard.append)
        client.on("said", lambda _: done.set())
        assert client.subscribe(CHAT, on_subscribed=told).ok
        assert client.publish(CHAT, "said", {}, ack=True).ok
        assert done.wait(30)
        assert heard == [FIRST, FIRST]

        def greet(news: Subscribed) -> None:
            heard.append(news)
            client.publish(CHAT, "hello", {})

        stream = client.stream(CHAT, events=["hello"], on_subscribed=greet)
        assert next(iter(stream)).event == "hello"
        assert heard == [FIRST, FIRST, FIRST]

        async def no(news: Subscribed) -> None:
            raise AssertionError

        with pytest.raises(TypeError, match="plain functions"):
            client.subscribe(CHAT, on_subscribed=no)
