"""Our Python client when things break: what the tables on top of connection.py and subscriptions.py say, on a real network.

Between the client and the server there is a proxy that cuts, stalls and resets. Tests that reconnect end with
`hears_everything_once`: no listener was lost on the way, and none is called twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from insforge_realtime.client import (
    ConnectError,
    NotConnected,
    RealtimeClient,
    SubscribeError,
    create_client,
    link,
)
from insforge_realtime.pg.demo import ALICE, BOB, BOBS_ORDER, ROOM
from support.client import Watch, run_sql, say, until_load, until_subscribed
from support.databases import free_port, wait_until
from support.proxy import Proxy
from support.servers import Server, token

Start = Callable[..., Server]

CHAT = f"chat:{ROOM}"
ORDER = f"order:{BOBS_ORDER}"
QUICK = (0.05, 0.4)
HEARTBEAT = {"ping_interval": 0.4, "ping_timeout": 0.4}


@contextlib.asynccontextmanager
async def bobs(url: str, **options: Any) -> AsyncIterator[tuple[RealtimeClient, Watch]]:
    """Bob's client, not connected yet, and what happens to it."""
    options = {"access_token": token(BOB), "backoff": QUICK, **options}
    async with create_client(url, **options) as client:
        yield client, Watch(client, "said", "presence:join", "presence:leave")


@contextlib.asynccontextmanager
async def joined(url: str, *channels: str, **options: Any) -> AsyncIterator[tuple[RealtimeClient, Watch]]:
    """The same, subscribed to the chat room and to further channels."""
    async with bobs(url, **options) as (client, watch):
        for channel in (CHAT, *channels):
            assert (await client.subscribe(channel)).ok
        yield client, watch


async def hears_everything_once(watch: Watch, database: str, channel: str = CHAT) -> None:
    """Three messages, and each calls each listener once."""
    before = len(watch.named("said"))
    for number in range(1, 4):
        await say(database, channel)
        await watch.wait_for("said", before + number)
    heard = watch.named("said")[before:]
    assert len({message["meta"]["messageId"] for message in heard}) == len(heard) == 3


# ---- the connection


@pytest.mark.parametrize("how", ["cut", "reset"])
async def test_a_connection_that_ends_is_made_again_with_its_subscriptions(demo: str, start: Start, how: str) -> None:
    server = start(demo)
    async with Proxy(server.port) as proxy, joined(proxy.url, ORDER) as (bob, watch):
        first = bob.socket_id
        for time in range(1, 4):
            await getattr(proxy, how)()
            await watch.wait_for("disconnect", time)
            await watch.wait_for("connect", time + 1)
        await until_subscribed(bob, CHAT, ORDER)
        assert bob.socket_id not in (None, first)
        await hears_everything_once(watch, demo)
        assert watch.named("disconnect") == ["transport close"] * 3
        assert (watch.named("connect_error"), watch.errors) == ([], [])
        await until_load(server, 1, 2)
    await until_load(server, 0, 0)


async def test_a_connection_that_stalls_without_closing_is_found_by_the_heartbeat(demo: str, start: Start) -> None:
    server = start(demo, **HEARTBEAT)
    async with Proxy(server.port) as proxy, joined(proxy.url, timeout=1) as (bob, watch):
        proxy.stall()
        await watch.wait_for("disconnect")
        assert bob.connection_state == "connecting"
        await watch.wait_for("connect_error")  # what is new stalls as well
        proxy.resume()
        await watch.wait_for("connect", 2)
        await until_subscribed(bob, CHAT)
        await hears_everything_once(watch, demo)


async def test_a_stalled_connection_with_unsent_messages_is_found_too(
    demo: str, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "WRITE_SECONDS", 0.5)
    server = start(demo, **HEARTBEAT, max_payload_bytes=0)
    async with Proxy(server.port) as proxy, joined(proxy.url) as (bob, watch):
        proxy.stall()
        for _ in range(12):
            await bob.publish(CHAT, "said", {"text": "x" * 1_000_000})  # more than all buffers on the way
        await watch.wait_for("disconnect")
        proxy.resume()
        await watch.wait_for("connect", 2)
        await until_subscribed(bob, CHAT)


async def test_a_reset_during_the_handshake_fails_the_first_attempt_and_only_delays_later_ones(
    demo: str, start: Start
) -> None:
    server = start(demo)
    async with Proxy(server.port) as proxy, bobs(proxy.url) as (bob, watch):
        for trap in (b"101 Switching", b'40{"sid"'):
            proxy.reset_on(trap)
            with pytest.raises(ConnectError) as caught:
                await bob.connect()
            assert caught.value.code == "CONNECTION_FAILED"
            assert bob.connection_state == "disconnected"
        assert watch.named("connect_error")[-1] is caught.value
        proxy.reset_on(None)
        assert (await bob.subscribe(CHAT)).ok
        for trap in (b"101 Switching", b'40{"sid"'):
            failures = len(watch.named("connect_error"))
            connects = len(watch.named("connect"))
            proxy.reset_on(trap)
            await proxy.cut()
            await watch.wait_for("connect_error", failures + 3)
            assert (bob.connection_state, bob.socket_id, bob.get_subscribed_channels()) == ("connecting", None, [])
            proxy.reset_on(None)
            await watch.wait_for("connect", connects + 1)
            await until_subscribed(bob, CHAT)
        await hears_everything_once(watch, demo)
        await until_load(server, 1, 1)


async def test_who_calls_connect_while_it_reconnects_waits_for_it(demo: str, start: Start) -> None:
    server = start(demo)
    async with Proxy(server.port) as proxy, joined(proxy.url, timeout=0.5) as (bob, watch):
        await proxy.refuse()
        await watch.wait_for("connect_error")
        with pytest.raises(ConnectError, match="Not connected again"):
            await bob.connect()
        with pytest.raises(NotConnected):
            await bob.publish(CHAT, "said", {})
        late = await bob.subscribe(ORDER)
        assert (late.ok, late.error and late.error.code) == (False, "CONNECTION_FAILED")
        await proxy.listen()
        await bob.connect()
        assert bob.is_connected
        await until_subscribed(bob, CHAT)  # and not to what was given up


async def test_the_first_attempt_at_a_server_that_is_not_there_is_the_last(demo: str) -> None:
    async with bobs(f"http://127.0.0.1:{free_port()}") as (bob, watch):
        with pytest.raises(ConnectError, match="Cannot connect to http://127"):
            await bob.connect()
        with pytest.raises(SubscribeError) as caught:
            await anext(bob.stream(CHAT))
        assert caught.value.code == "CONNECTION_FAILED"
        assert bob.connection_state == "disconnected"
        assert [name for name, _ in watch.events] == ["connect_error", "connect_error"]


async def test_a_server_that_never_answers_is_given_up_in_time(demo: str, start: Start) -> None:
    server = start(demo)
    async with Proxy(server.port) as proxy, bobs(proxy.url, timeout=0.3) as (bob, _):
        proxy.stall()
        with pytest.raises(ConnectError, match=r"No answer from .* in 0\.3 s"):
            await bob.connect()


async def test_disconnect_while_connecting_leaves_nothing(demo: str, start: Start) -> None:
    server = start(demo)
    async with Proxy(server.port) as proxy, bobs(proxy.url) as (bob, watch):
        proxy.stall()
        connecting = asyncio.create_task(bob.connect())
        subscribing = asyncio.create_task(bob.subscribe(CHAT))
        await wait_until(lambda: proxy.open)
        await bob.disconnect()
        with pytest.raises(ConnectError, match="Disconnected"):
            await connecting
        answer = await subscribing
        assert answer.error is not None
        assert answer.error.code == "DISCONNECTED"
        proxy.resume()
        await wait_until(lambda: not proxy.open)
        assert (bob.connection_state, watch.events) == ("disconnected", [])
        assert (await bob.subscribe(CHAT)).ok
        await hears_everything_once(watch, demo)
    await until_load(server, 0, 0)


# ---- the server


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_server_that_restarts_gets_its_clients_back(demo: str, start: Start, number: int) -> None:
    server = start(demo)
    async with joined(server.url, ORDER) as (bob, watch):
        server.stop(number)
        await watch.wait_for("disconnect")
        await watch.wait_for("connect_error", 2)
        server.start()
        await watch.wait_for("connect", 2)
        await until_subscribed(bob, CHAT, ORDER)
        await hears_everything_once(watch, demo)


async def test_a_server_that_is_full_is_tried_again(demo: str, start: Start) -> None:
    server = start(demo, max_connections=1)
    async with bobs(server.url) as (other, _), Proxy(server.port) as proxy, joined(proxy.url) as (bob, watch):
        with pytest.raises(ConnectError, match="HTTP status 503"):
            await other.connect()
        await proxy.refuse()
        await other.connect()
        await proxy.listen()
        failures = len(watch.named("connect_error"))
        await watch.wait_for("connect_error", failures + 2)
        await other.disconnect()
        await watch.wait_for("connect", 2)
        await until_subscribed(bob, CHAT)


# ---- the token


class Tokens:
    """Gives the next token at each handshake, and the last one for ever."""

    def __init__(self, *tokens: str | Exception) -> None:
        self._tokens = list(tokens)
        self.asked = 0

    async def __call__(self) -> str:
        self.asked += 1
        given = self._tokens.pop(0) if len(self._tokens) > 1 else self._tokens[0]
        if isinstance(given, Exception):
            raise given
        return given


async def test_a_token_that_expires_is_replaced_at_once(demo: str, start: Start) -> None:
    server, tokens = start(demo), Tokens(token(BOB, ttl=2), token(BOB))
    async with joined(server.url, access_token=tokens, backoff=(60, 60)) as (bob, watch):
        await watch.wait_for("connect", 2)  # without the minute of back-off
        assert watch.errors == [("TOKEN_EXPIRED", None)]
        assert tokens.asked == 2
        await until_subscribed(bob, CHAT)
        await hears_everything_once(watch, demo)


async def test_a_token_that_expired_while_asleep_is_replaced(demo: str, start: Start) -> None:
    server, tokens = start(demo), Tokens(token(BOB, ttl=2), token(BOB))
    async with Proxy(server.port) as proxy, joined(proxy.url, access_token=tokens, backoff=(60, 60)) as (bob, watch):
        proxy.stall()  # the lid is closed: nothing comes, not even the end of the connection
        await until_load(server, 0, 0)  # the server has ended the session
        assert bob.is_connected
        proxy.resume()
        await watch.wait_for("connect", 2)
        assert tokens.asked == 2
        await until_subscribed(bob, CHAT)
        assert watch.named("connect_error") == []
        await hears_everything_once(watch, demo)


async def test_every_handshake_asks_for_a_token_and_one_that_cannot_be_had_is_a_failed_attempt(
    demo: str, start: Start
) -> None:
    server = start(demo)
    tokens = Tokens(token(BOB), token(BOB, ttl=-60), KeyError("the token"), token(BOB))
    async with Proxy(server.port) as proxy, joined(proxy.url, access_token=tokens) as (bob, watch):
        await proxy.cut()
        await watch.wait_for("connect", 2)
        assert tokens.asked == 4
        stale, broken = watch.named("connect_error")
        assert stale.code == "UNAUTHORIZED"
        assert (broken.code, broken.message) == ("CONNECTION_FAILED", "access_token failed: KeyError")
        await until_subscribed(bob, CHAT)
        await hears_everything_once(watch, demo)


async def test_another_token_takes_effect_at_once_even_while_it_waits_to_try_again(demo: str, start: Start) -> None:
    server = start(demo)
    async with joined(server.url, access_token=token(BOB, ttl=2), backoff=(60, 60)) as (bob, watch):
        [refused] = await watch.wait_for("connect_error")
        assert refused.code == "UNAUTHORIZED"
        assert bob.connection_state == "connecting"
        bob.set_access_token(token(BOB))
        await watch.wait_for("connect", 2)
        await until_subscribed(bob, CHAT)
        await hears_everything_once(watch, demo)


# ---- subscriptions


async def test_a_subscribe_whose_answer_is_lost_is_asked_again(demo: str, start: Start) -> None:
    server = start(demo)
    async with Proxy(server.port) as proxy, bobs(proxy.url) as (bob, watch):
        await bob.connect()
        proxy.reset_on(b'"presence"')
        subscribing = asyncio.create_task(bob.subscribe(CHAT))
        await wait_until(lambda: proxy.sprung >= 2)
        assert bob.get_subscribed_channels() == []
        proxy.reset_on(None)
        assert (await subscribing).ok
        await hears_everything_once(watch, demo)
        await until_load(server, 1, 1)


async def test_a_renewal_that_is_refused_is_reported_and_dropped(demo: str, start: Start) -> None:
    server = start(demo)
    async with Proxy(server.port) as proxy, joined(proxy.url, ORDER) as (bob, watch):
        stream = bob.stream(ORDER)
        reading = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        await run_sql(demo, "DROP POLICY users_subscribe_own_orders ON realtime.channels")
        await proxy.cut()
        await watch.wait_for("error")
        assert watch.errors == [("UNAUTHORIZED", ORDER)]
        with pytest.raises(SubscribeError) as caught:
            await reading
        assert caught.value.code == "UNAUTHORIZED"
        await until_subscribed(bob, CHAT)
        assert bob.get_presence_state(ORDER) == []
        await proxy.cut()
        await watch.wait_for("connect", 3)
        await until_subscribed(bob, CHAT)
        assert len(watch.errors) == 1  # it is not asked for again
        await hears_everything_once(watch, demo)
        await until_load(server, 1, 1)


async def test_a_database_that_is_away_is_no_refusal(demo: str, start: Start) -> None:
    server = start(demo)
    base, name = demo.rsplit("/", 1)
    async with Proxy(server.port) as proxy, joined(proxy.url, timeout=2) as (bob, watch):
        await run_sql(
            f"{base}/postgres",
            f"ALTER DATABASE {name} ALLOW_CONNECTIONS false",
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
        )
        await proxy.cut()
        await watch.wait_for("connect", 2)
        late = await bob.subscribe(ORDER)  # nobody can say yes in time, and the answer says why
        assert (late.ok, late.error and late.error.code) == (False, "UNAVAILABLE")
        patient = asyncio.create_task(bob.subscribe("orders"))
        await run_sql(f"{base}/postgres", f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        assert (await patient).ok
        await until_subscribed(bob, CHAT, "orders")
        assert watch.errors == []
        await hears_everything_once(watch, demo)


async def test_who_asks_too_fast_is_let_in_later(demo: str, start: Start) -> None:
    server = start(demo, max_messages_per_second=3)
    channels = [f"chat:{n}" for n in range(9)]
    everybody = "CREATE POLICY all_rooms ON realtime.channels FOR SELECT TO authenticated USING (pattern = 'chat:%')"
    await run_sql(demo, "DROP POLICY members_subscribe_chat ON realtime.channels", everybody)
    async with Proxy(server.port) as proxy, bobs(proxy.url) as (bob, watch):
        answers = await asyncio.gather(*(bob.subscribe(channel) for channel in channels))
        assert all(answer.ok for answer in answers)
        await proxy.cut()
        await watch.wait_for("connect", 2)
        await until_subscribed(bob, *channels)
        assert watch.errors == []


SLOW_POLICY = """CREATE POLICY slowly ON realtime.channels FOR SELECT TO authenticated
                 USING (pattern = 'orders' AND pg_sleep(0.3) IS NOT NULL)"""


@pytest.mark.parametrize("leave", ["unsubscribe", "disconnect", "cancel", "timeout"])
async def test_who_leaves_during_a_subscribe_leaves_nothing_behind(demo: str, start: Start, leave: str) -> None:
    await run_sql(demo, "DROP POLICY public_subscribe_orders ON realtime.channels", SLOW_POLICY)
    server = start(demo)
    async with bobs(server.url, timeout=0.15 if leave == "timeout" else 10) as (bob, _):
        await bob.connect()
        subscribing = asyncio.create_task(bob.subscribe("orders"))
        await asyncio.sleep(0)
        match leave:
            case "unsubscribe":
                await bob.unsubscribe("orders")
            case "disconnect":
                await bob.disconnect()
            case "cancel":
                subscribing.cancel()
        codes = {
            "unsubscribe": "SUBSCRIPTION_CANCELLED",
            "disconnect": "DISCONNECTED",
            "timeout": "SUBSCRIBE_TIMEOUT",
        }
        if leave == "cancel":
            with pytest.raises(asyncio.CancelledError):
                await subscribing
        else:
            answer = await subscribing
            assert answer.error is not None
            assert answer.error.code == codes[leave]
        await until_load(server, 0 if leave == "disconnect" else 1, 0)
        bob_again = create_client(server.url, access_token=token(BOB))
        async with bob_again:  # its answer shows that the slow policy has been asked, and nobody joined
            assert (await bob_again.subscribe("orders")).ok
            assert len(bob_again.get_presence_state("orders")) == 1
        assert bob.get_subscribed_channels() == []
        await until_load(server, 0 if leave == "disconnect" else 1, 0)


async def test_presence_is_what_the_new_snapshot_says(demo: str, start: Start) -> None:
    server = start(demo)
    async with (
        Proxy(server.port) as proxy,
        joined(proxy.url) as (bob, watch),
        create_client(server.url, access_token=token(ALICE)) as alice,
    ):
        assert (await alice.subscribe(CHAT)).ok
        await watch.wait_for("presence:join")
        assert [member["presenceId"] for member in bob.get_presence_state(CHAT)] == [BOB, ALICE]
        await proxy.refuse()
        await watch.wait_for("disconnect")
        await alice.disconnect()
        await until_load(server, 0, 0)
        await proxy.listen()
        await until_subscribed(bob, CHAT)
        assert [member["presenceId"] for member in bob.get_presence_state(CHAT)] == [BOB]


# ---- publish


async def test_a_publish_whose_acknowledgement_does_not_come_says_so(demo: str, start: Start) -> None:
    server = start(demo)
    async with Proxy(server.port) as proxy, joined(proxy.url, timeout=0.5) as (bob, watch):
        proxy.stall()
        late = await bob.publish(CHAT, "said", {}, ack=True)
        assert late.error is not None
        assert late.error.code == "PUBLISH_TIMEOUT"
        publishing = asyncio.create_task(bob.publish(CHAT, "said", {}, ack=True))
        await asyncio.sleep(0)
        await proxy.cut()
        lost = await publishing
        assert lost.error is not None
        assert lost.error.code == "DISCONNECTED"
        proxy.resume()
        await watch.wait_for("connect", 2)
        await until_subscribed(bob, CHAT)


async def test_what_was_published_before_disconnect_arrives(demo: str, start: Start) -> None:
    server = start(demo)
    async with joined(server.url) as (_, watch):
        async with bobs(server.url) as (leaver, _):
            assert (await leaver.subscribe(CHAT)).ok
            await leaver.publish(CHAT, "said", {"text": "good-bye"})
        [message] = await watch.wait_for("said")
        assert message["text"] == "good-bye"


async def test_a_stream_lives_through_a_lost_connection(demo: str, start: Start) -> None:
    server = start(demo)
    async with Proxy(server.port) as proxy, bobs(proxy.url) as (bob, watch):
        stream = bob.stream(CHAT)
        for number in range(3):
            reading = asyncio.ensure_future(anext(stream))
            await until_subscribed(bob, CHAT)
            await say(demo, CHAT, payload=f'{{"n": {number}}}')
            assert (await reading)["n"] == number
            await proxy.cut()
            await watch.wait_for("connect", number + 2)
        await stream.aclose()
        await until_load(server, 1, 0)
