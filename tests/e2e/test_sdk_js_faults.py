"""Our TypeScript SDK when things break: what the tables in its reconnection.ts and channels.ts say, on a real network.

Between the client and the server there is a proxy that cuts, stalls and resets. Every test that reconnects ends with
`still_hears_everything_once`: no listener was lost on the way, and none is called twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import httpx
import pytest

from insforge_realtime.pg.demo import ALICE, ALICES_ORDER, BOB, BOBS_ORDER, ROOM
from support.databases import free_port, wait_until
from support.node import Failed, Sdk, SdkClient
from support.proxy import Proxy
from support.servers import Server, token

Start = Callable[..., Server]

CHAT = f"chat:{ROOM}"
ORDER = f"order:{BOBS_ORDER}"
WATCHED = ("connect", "connect_error", "disconnect", "error", "said")
QUICK: dict[str, Any] = {"reconnectDelay": 50, "reconnectDelayMax": 400}
NOT_CONNECTED = {"isConnected": False, "connectionState": "disconnected", "socketId": None, "channels": []}


async def run(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def say(url: str, channel: str = CHAT) -> None:
    await run(url, f"SELECT realtime.publish('{channel}', 'said', '{{}}')")


async def load(server: Server) -> tuple[int, int]:
    """How many connections and how many channels the server has."""
    async with httpx.AsyncClient(trust_env=False) as http:
        feed = (await http.get(f"{server.url}/api/health")).json()["feed"]
    return feed["connections"], feed["channels"]


async def until_load(server: Server, wanted: tuple[int, int]) -> None:
    deadline = time.monotonic() + 20
    while (found := await load(server)) != wanted:
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.02)


async def until_subscribed(client: SdkClient, *channels: str) -> None:
    deadline = time.monotonic() + 30
    while sorted((state := await client.state())["channels"]) != sorted(channels):
        assert time.monotonic() < deadline, (state, client.events)


async def until_present(client: SdkClient, *users: str) -> None:
    deadline = time.monotonic() + 30
    while sorted(members := [it["presenceId"] for it in await client.call("getPresenceState", CHAT)]) != sorted(users):
        assert time.monotonic() < deadline, members


async def still_hears_everything_once(client: SdkClient, database: str, channel: str = CHAT) -> None:
    """Three messages, and each calls each listener once."""
    before = len(client.named("said"))
    for number in range(1, 4):
        await say(database, channel)
        await client.wait_for("said", before + number)
    heard = client.named("said")[before:]
    assert len({message["meta"]["messageId"] for message in heard}) == len(heard) == 3


@contextlib.asynccontextmanager
async def behind_a_proxy(server: Server) -> AsyncIterator[tuple[Sdk, Proxy]]:
    async with Proxy(server.port) as proxy, Sdk("ours.mjs") as sdk:
        yield sdk, proxy


async def connected(sdk: Sdk, url: str, credential: str | None = None, **options: Any) -> SdkClient:
    """Bob in the chat room, and what happens to him watched."""
    if "tokens" not in options:
        credential = credential or token(BOB)
    client = await sdk.client(url, credential, *WATCHED, **{**QUICK, **options})
    assert (await client.subscribe(CHAT))["ok"]
    return client


# ---- the connection


@pytest.mark.parametrize("how", ["cut", "reset"])
async def test_a_connection_that_ends_is_made_again_with_its_subscriptions(demo: str, start: Start, how: str) -> None:
    server = start(demo)
    async with behind_a_proxy(server) as (sdk, proxy):
        bob = await connected(sdk, proxy.url)
        assert (await bob.subscribe(ORDER))["ok"]
        first = (await bob.state())["socketId"]
        for round_ in range(1, 4):
            await getattr(proxy, how)()
            await bob.wait_for("disconnect", round_)
            await bob.wait_for("connect", round_ + 1)
        await until_subscribed(bob, CHAT, ORDER)
        assert (await bob.state())["socketId"] != first
        await still_hears_everything_once(bob, demo)
        assert (bob.named("connect_error"), bob.named("error")) == ([], [])
        await until_load(server, (1, 2))


async def test_a_link_that_stalls_without_closing_is_found_by_the_heartbeat(demo: str, start: Start) -> None:
    server = start(demo, ping_interval=1, ping_timeout=2)
    async with behind_a_proxy(server) as (sdk, proxy):
        bob = await connected(sdk, proxy.url, timeout=4000)
        proxy.stall()
        assert await bob.wait_for("disconnect") == ["ping timeout"]
        state = await bob.state()
        assert (state["connectionState"], state["channels"]) == ("connecting", [])
        await bob.wait_for("connect_error")  # the next handshake stalls as well, and is given up in its time
        proxy.resume()
        await bob.wait_for("connect", 2)
        await until_subscribed(bob, CHAT)
        await still_hears_everything_once(bob, demo)
        await until_load(server, (1, 1))


@pytest.mark.parametrize("at", [b"101 Switching", b'0{"sid"', b'40{"sid"'])
async def test_a_reset_during_the_handshake_is_a_failed_attempt(demo: str, start: Start, at: bytes) -> None:
    server = start(demo)
    websocket: dict[str, Any] = {"socketOptions": {"transports": ["websocket"]}}
    async with behind_a_proxy(server) as (sdk, proxy):
        proxy.reset_on(at)
        bob = await sdk.client(proxy.url, token(BOB), *WATCHED, **QUICK, **websocket)
        with pytest.raises(Failed):
            await bob.call("connect")
        assert await bob.state() == NOT_CONNECTED
        assert [name for name, _ in bob.events] == ["connect_error"]
        refused = await bob.subscribe(CHAT)
        assert (refused["ok"], refused["error"]["code"]) == (False, "CONNECTION_FAILED")
        proxy.reset_on(None)
        assert (await bob.subscribe(CHAT))["ok"]

        # Once it has been connected it does not give up.
        proxy.reset_on(at)
        sprung = proxy.sprung
        await proxy.cut()
        await wait_until(lambda: proxy.sprung >= sprung + 3)
        assert (await bob.state())["connectionState"] == "connecting"
        proxy.reset_on(None)
        await bob.wait_for("connect", 2)
        await until_subscribed(bob, CHAT)
        await still_hears_everything_once(bob, demo)


async def test_where_websocket_does_not_pass_it_polls(demo: str, start: Start) -> None:
    server = start(demo)
    async with behind_a_proxy(server) as (sdk, proxy):
        proxy.reset_on(b"101 Switching")
        bob = await connected(sdk, proxy.url)
        assert proxy.sprung == 1
        assert bob.named("connect_error") == []
        await still_hears_everything_once(bob, demo)
        await proxy.refuse()  # (a cut alone may fall between two polls, and end nothing)
        await bob.wait_for("disconnect")
        await proxy.listen()
        await bob.wait_for("connect", 2)
        await until_subscribed(bob, CHAT)
        await still_hears_everything_once(bob, demo)


async def test_a_server_that_nobody_reaches_is_tried_for_ever_once_it_has_been_reached(demo: str, start: Start) -> None:
    server = start(demo)
    async with behind_a_proxy(server) as (sdk, proxy):
        bob = await connected(sdk, proxy.url)
        await proxy.refuse()
        await bob.wait_for("connect_error", 5)
        assert (await bob.state())["connectionState"] == "connecting"
        waiting = asyncio.create_task(bob.subscribe(ORDER))  # it waits for the connection
        await proxy.listen()
        assert (await waiting)["ok"]
        await until_subscribed(bob, CHAT, ORDER)
        await still_hears_everything_once(bob, demo)


async def test_a_first_connect_to_nobody_rejects_and_leaves_nothing_going_on(demo: str, start: Start) -> None:
    async with Sdk("ours.mjs") as sdk:
        bob = await sdk.client(f"http://127.0.0.1:{free_port()}", token(BOB), *WATCHED, **QUICK)
        with pytest.raises(Failed):
            await bob.call("connect")
        assert await bob.state() == NOT_CONNECTED
        assert (await bob.subscribe(CHAT))["error"]["code"] == "CONNECTION_FAILED"
        assert [name for name, _ in bob.events] == ["connect_error", "connect_error"]


async def test_disconnect_while_connecting_leaves_nothing(demo: str, start: Start) -> None:
    server = start(demo)
    async with behind_a_proxy(server) as (sdk, proxy):
        bob = await sdk.client(proxy.url, token(BOB), *WATCHED, **QUICK)
        proxy.stall()
        connecting = asyncio.create_task(bob.call("connect"))
        subscribing = asyncio.create_task(bob.subscribe(CHAT))
        await wait_until(lambda: proxy.open)
        await bob.call("disconnect")
        with pytest.raises(Failed, match="Disconnected"):
            await connecting
        assert (await subscribing)["error"]["code"] == "DISCONNECTED"
        proxy.resume()
        await wait_until(lambda: not proxy.open)
        assert await bob.state() == NOT_CONNECTED
        assert bob.events == []
        assert (await bob.subscribe(CHAT))["ok"]
        await still_hears_everything_once(bob, demo)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_server_that_restarts_gets_its_clients_back(demo: str, start: Start, number: int) -> None:
    server = start(demo)
    async with Sdk("ours.mjs") as sdk:
        bob = await connected(sdk, server.url)
        alice = await connected(sdk, server.url, token(ALICE))
        server.stop(number)
        for client in (alice, bob):
            await client.wait_for("disconnect")
            assert (await client.state())["channels"] == []
        server.start()
        for client in (alice, bob):
            await client.wait_for("connect", 2)
            await until_subscribed(client, CHAT)
        await still_hears_everything_once(alice, demo)
        assert len(await bob.wait_for("said", 3)) == 3
        await until_present(bob, ALICE, BOB)


# ---- tokens


async def test_a_token_that_expired_while_asleep_is_replaced_at_once(demo: str, start: Start) -> None:
    server = start(demo)
    async with Sdk("ours.mjs") as sdk:
        tokens = [token(BOB, ttl=2), token(BOB)]
        bob = await connected(sdk, server.url, tokens=tokens, reconnectDelay=60_000, reconnectDelayMax=60_000)
        sdk.process.send_signal(signal.SIGSTOP)
        try:
            await until_load(server, (0, 0))  # the server has ended the session of the sleeper
        finally:
            sdk.process.send_signal(signal.SIGCONT)
        await bob.wait_for("connect", 2)  # without the minute of back-off
        assert [error["code"] for error in bob.named("error")] == ["TOKEN_EXPIRED"]
        assert bob.named("connect_error") == []
        await until_subscribed(bob, CHAT)
        await still_hears_everything_once(bob, demo)


async def test_a_function_that_gives_a_stale_token_is_asked_again(demo: str, start: Start) -> None:
    server, stale = start(demo), token(BOB, ttl=-60)
    async with Sdk("ours.mjs") as sdk:
        bob = await connected(sdk, server.url, tokens=[token(BOB, ttl=2), stale, stale, token(BOB)])
        await bob.wait_for("connect", 2)
        errors = bob.named("connect_error")
        assert [error["data"]["code"] for error in errors] == ["UNAUTHORIZED"] * 2
        await until_subscribed(bob, CHAT)
        await still_hears_everything_once(bob, demo)


async def test_a_fixed_token_that_expires_is_reported_and_tried_on_until_there_is_another(
    demo: str, start: Start
) -> None:
    server = start(demo)
    async with Sdk("ours.mjs") as sdk:
        bob = await connected(sdk, server.url, token(BOB, ttl=2))
        refused = await bob.wait_for("connect_error", 3)
        assert {error["data"]["code"] for error in refused} == {"UNAUTHORIZED"}
        assert await bob.state() == {**NOT_CONNECTED, "connectionState": "connecting"}
        await bob.call("setAccessToken", token(BOB))
        await bob.wait_for("connect", 2)
        await until_subscribed(bob, CHAT)
        await still_hears_everything_once(bob, demo)


async def test_another_user_s_token_is_used_at_once_and_judged_anew(demo: str, start: Start) -> None:
    server = start(demo)
    async with Sdk("ours.mjs") as sdk:
        bob = await connected(sdk, server.url)
        assert (await bob.subscribe(ORDER))["ok"]
        await bob.call("setAccessToken", token(BOB), {"reconnect": False})
        assert (await bob.state())["isConnected"]
        await bob.call("setAccessToken", token(ALICE))
        await bob.wait_for("connect", 2)
        [error] = await bob.wait_for("error")
        assert (error["channel"], error["code"]) == (ORDER, "UNAUTHORIZED")  # Bob's order is not Alice's
        await until_subscribed(bob, CHAT)
        assert (await bob.subscribe(f"order:{ALICES_ORDER}"))["ok"]
        await until_present(bob, ALICE)
        await still_hears_everything_once(bob, demo)


# ---- subscriptions


async def test_a_subscribe_whose_answer_is_lost_is_asked_again(demo: str, start: Start) -> None:
    server = start(demo)
    async with behind_a_proxy(server) as (sdk, proxy):
        bob = await sdk.client(proxy.url, token(BOB), *WATCHED, **QUICK)
        await bob.call("connect")
        proxy.reset_on(b'"presence"')
        subscribing = asyncio.create_task(bob.subscribe(CHAT))
        await wait_until(lambda: proxy.sprung >= 2)
        assert (await bob.state())["channels"] == []
        proxy.reset_on(None)
        assert (await subscribing)["ok"]
        await still_hears_everything_once(bob, demo)
        await until_load(server, (1, 1))


async def test_a_resubscribe_that_is_refused_is_reported_and_dropped(demo: str, start: Start) -> None:
    server = start(demo)
    async with behind_a_proxy(server) as (sdk, proxy):
        bob = await connected(sdk, proxy.url)
        assert (await bob.subscribe(ORDER))["ok"]
        await run(demo, "DROP POLICY users_subscribe_own_orders ON realtime.channels")
        await proxy.cut()
        [error] = await bob.wait_for("error")
        assert (error["channel"], error["code"]) == (ORDER, "UNAUTHORIZED")
        await until_subscribed(bob, CHAT)
        assert (await bob.subscribe(ORDER))["error"]["code"] == "UNAUTHORIZED"
        assert await bob.call("getPresenceState", ORDER) == []
        await proxy.cut()
        await bob.wait_for("connect", 3)
        await until_subscribed(bob, CHAT)
        await still_hears_everything_once(bob, demo)
        assert len(bob.named("error")) == 1  # it is not asked for again
        await until_load(server, (1, 1))


async def test_a_database_that_is_away_is_no_refusal(demo: str, start: Start) -> None:
    server = start(demo)
    base, name = demo.rsplit("/", 1)
    async with behind_a_proxy(server) as (sdk, proxy):
        bob = await connected(sdk, proxy.url, timeout=5000)
        await run(
            f"{base}/postgres",
            f"ALTER DATABASE {name} ALLOW_CONNECTIONS false",
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
        )
        await proxy.cut()
        await bob.wait_for("connect", 2)
        late = await bob.call("subscribe", ORDER)  # nobody can say yes in time, and the answer says why
        assert (late["ok"], late["error"]["code"]) == (False, "UNAVAILABLE")
        assert (await bob.state())["channels"] == []
        waiting = asyncio.create_task(bob.subscribe(ORDER))
        await run(f"{base}/postgres", f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        assert (await waiting)["ok"]
        await until_subscribed(bob, CHAT, ORDER)
        assert bob.named("error") == []
        await still_hears_everything_once(bob, demo)


async def test_who_asks_too_fast_is_let_in_later(demo: str, start: Start) -> None:
    server = start(demo, max_messages_per_second=2)
    async with behind_a_proxy(server) as (sdk, proxy):
        alice = await sdk.client(proxy.url, token(ALICE), *WATCHED, **QUICK)
        await run(demo, f"INSERT INTO orders SELECT gen_random_uuid(), '{ALICE}' FROM generate_series(1, 6)")
        connection = await asyncpg.connect(demo)
        rows = await connection.fetch(f"SELECT id FROM orders WHERE user_id = '{ALICE}'")
        await connection.close()
        channels = [f"order:{row['id']}" for row in rows]
        answers = await asyncio.gather(*(alice.subscribe(channel) for channel in channels))
        assert all(answer["ok"] for answer in answers)
        await proxy.cut()
        await alice.wait_for("connect", 2)
        await until_subscribed(alice, *channels)
        assert alice.named("error") == []
        await still_hears_everything_once(alice, demo, channels[-1])


SLOWLY = """CREATE POLICY slowly ON realtime.channels FOR SELECT TO authenticated
            USING (pattern = 'orders' AND pg_sleep(0.3) IS NOT NULL)"""


async def test_who_leaves_during_a_subscribe_leaves_nothing_behind(demo: str, start: Start) -> None:
    await run(demo, "DROP POLICY public_subscribe_orders ON realtime.channels", SLOWLY)
    server = start(demo)
    async with Sdk("ours.mjs") as sdk:
        bob = await sdk.client(server.url, token(BOB), *WATCHED, **QUICK)
        await bob.call("connect")
        subscribing = asyncio.create_task(bob.subscribe("orders"))
        await asyncio.sleep(0.05)
        await bob.call("unsubscribe", "orders")
        assert (await subscribing)["error"]["code"] == "SUBSCRIPTION_CANCELLED"
        assert (await bob.subscribe(CHAT))["ok"]  # so the server has handled what came before
        await until_load(server, (1, 1))

        subscribing = asyncio.create_task(bob.subscribe("orders"))
        await asyncio.sleep(0.05)
        await bob.call("disconnect")
        assert (await subscribing)["error"]["code"] == "DISCONNECTED"
        assert await bob.state() == NOT_CONNECTED
        await until_load(server, (0, 0))

        # Left and wanted again while the first answer is still on its way: the last word counts.
        await bob.call("connect")
        first = asyncio.create_task(bob.subscribe("orders"))
        await asyncio.sleep(0.05)
        await bob.call("unsubscribe", "orders")
        assert (await bob.subscribe("orders"))["ok"]
        assert (await first)["ok"] is False
        await until_load(server, (1, 1))
        await still_hears_everything_once(bob, demo, "orders")


async def test_presence_is_what_the_new_snapshot_says(demo: str, start: Start) -> None:
    server = start(demo)
    async with behind_a_proxy(server) as (sdk, proxy):
        bob = await connected(sdk, proxy.url)
        alice = await connected(sdk, server.url, token(ALICE))
        await until_present(bob, ALICE, BOB)
        await proxy.refuse()
        await bob.wait_for("disconnect")
        await alice.call("disconnect")
        await until_load(server, (0, 0))
        await proxy.listen()
        await until_subscribed(bob, CHAT)
        await until_present(bob, BOB)


# ---- publish


async def test_a_publish_with_ack_says_how_it_went(demo: str, start: Start) -> None:
    server = start(demo)
    async with behind_a_proxy(server) as (sdk, proxy):
        bob = await connected(sdk, proxy.url, timeout=4000)
        done = await bob.call("publish", CHAT, "said", {"text": "hello"}, {"ack": True})
        [message] = await bob.wait_for("said")
        assert done == {"ok": True, "messageId": message["meta"]["messageId"]}
        refused = await bob.call("publish", ORDER, "said", {}, {"ack": True})
        assert (refused["ok"], refused["error"]["code"]) == (False, "NOT_SUBSCRIBED")
        with pytest.raises(Failed, match="BigInt"):
            await bob.call("publishUnsayable", CHAT, "alien", True)
        assert bob.named("error") == []
        proxy.stall()
        late = await bob.call("publish", CHAT, "said", {}, {"ack": True})
        assert late["error"]["code"] == "PUBLISH_TIMEOUT"
        publishing = asyncio.create_task(bob.call("publish", CHAT, "said", {}, {"ack": True}))
        await bob.state()  # so it has been sent
        await proxy.cut()
        assert (await publishing)["error"]["code"] == "DISCONNECTED"
        with pytest.raises(Failed, match="connect"):
            await bob.call("publish", CHAT, "said", {})
