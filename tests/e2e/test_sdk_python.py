"""What is the Python client's own: streams, decorators, typed answers, the synchronous twin. On a real server.

What it has in common with the other SDKs is in sdk_cases.py, what it does when things break in test_sdk_python_faults.py.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from itertools import count
from typing import Any

import pytest

from insforge_realtime.client import (
    ClientError,
    ConnectError,
    ErrorInfo,
    InvalidRequest,
    Message,
    NotConnected,
    StreamOverflow,
    SubscribeError,
    SubscribeResponse,
    create_client,
    sync,
)
from insforge_realtime.pg.demo import ALICE, ALICES_ORDER, BOB, BOBS_ORDER, ROOM
from support.client import Watch, run_sql, say, until_load, until_subscribed
from support.databases import wait_until
from support.servers import ANON_KEY, API_KEY, Server, token

Start = Callable[..., Server]

CHAT = f"chat:{ROOM}"
ORDER = f"order:{BOBS_ORDER}"
FORBIDDEN = f"order:{ALICES_ORDER}"


# ---- answers, errors, credentials


async def test_answers_are_typed(demo: str, start: Start) -> None:
    async with create_client(start(demo).url, access_token=token(BOB)) as bob:
        answer = await bob.subscribe(CHAT)
        assert isinstance(answer, SubscribeResponse)
        assert (answer.ok, answer.error, answer.members[0]["presenceId"]) == (True, None, BOB)
        refused = await bob.subscribe(FORBIDDEN)
        assert isinstance(refused.error, ErrorInfo)
        assert (refused.ok, refused.error.code, refused.error.channel) == (False, "UNAUTHORIZED", FORBIDDEN)
        sent = await bob.publish(CHAT, "said", {}, ack=True)
        assert (sent.ok, sent.error) == (True, None)
        assert sent.message_id
        assert await bob.publish(CHAT, "said", {}) is None  # type: ignore[func-returns-value]
        for kind in (InvalidRequest, TypeError, ValueError):
            with pytest.raises(kind, match=r"payload\.what: .* JSON"):
                await bob.publish(CHAT, "said", {"what": object()})
    with pytest.raises(NotConnected, match="connect"):
        await bob.publish(CHAT, "said", {})
    assert issubclass(NotConnected, ClientError)


async def test_each_kind_of_credential_lets_one_in(demo: str, start: Start) -> None:
    await run_sql(demo, "CREATE POLICY everybody ON realtime.channels FOR SELECT USING (pattern = 'orders')")
    server = start(demo)
    kinds: list[tuple[dict[str, Any], str]] = [
        ({"access_token": token(BOB)}, "user"),
        ({"access_token": lambda: token(BOB)}, "user"),
        ({"access_token": lambda: None, "anon_key": ANON_KEY}, "anonymous"),
        ({"anon_key": ANON_KEY}, "anonymous"),
        ({"api_key": API_KEY}, "anonymous"),
    ]
    for credentials, kind in kinds:
        async with create_client(server.url, **credentials) as client:
            answer = await client.subscribe("orders")
            assert answer.ok
            assert [member["type"] for member in answer.members] == [kind], credentials
        await until_load(server, 0, 0)


@pytest.mark.parametrize("transports", [("polling",), ("polling", "websocket")], ids="-".join)
async def test_long_polling_works_as_well(demo: str, start: Start, transports: tuple[str, ...]) -> None:
    server = start(demo)
    async with create_client(server.url, access_token=token(BOB), transports=transports) as bob:
        watch = Watch(bob, "said")
        assert (await bob.subscribe(CHAT)).ok
        for n in range(3):
            assert (await bob.publish(CHAT, "said", {"n": n}, ack=True)).ok
        assert [message["n"] for message in await watch.wait_for("said", 3)] == [0, 1, 2]
        server.stop()
        await watch.wait_for("disconnect")
        server.start()
        await watch.wait_for("connect", 2)
        await until_subscribed(bob, CHAT)
        refused = create_client(server.url, access_token="nonsense", transports=transports)
        with pytest.raises(ConnectError) as caught:
            await refused.connect()
        assert caught.value.code == "UNAUTHORIZED"
    await until_load(server, 0, 0)


async def test_a_refused_credential_says_so(demo: str, start: Start) -> None:
    async with create_client(start(demo).url, api_key="ik_wrong") as client:
        with pytest.raises(ConnectError) as caught:
            await client.connect()
        assert caught.value.code == "UNAUTHORIZED"


async def test_tokens_and_payloads_are_not_logged(demo: str, start: Start, caplog: pytest.LogCaptureFixture) -> None:
    libraries = [logging.getLogger(name) for name in ("socketio.client", "engineio.client")]
    before = [[*library.handlers] for library in libraries]  # clients of the plain library add some
    with caplog.at_level(logging.DEBUG):
        async with create_client(start(demo).url, access_token=token(BOB)) as bob:
            watch = Watch(bob, "said")
            await bob.subscribe(CHAT)
            await bob.publish(CHAT, "said", {"text": "a secret"})
            await watch.wait_for("said")
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("insforge_realtime")]
    assert not [text for text in ours if "secret" in text or "eyJ" in text]
    assert [library.handlers for library in libraries] == before


# ---- what is said


async def test_what_the_database_says_is_heard_as_it_is_whatever_its_size(demo: str, start: Start) -> None:
    """Integers of all lengths that jsonb has, and nests that Python's own JSON reader cannot go into."""
    lengths, depth = (1, 18, 19, 23, 100, 101, 4300, 4301, 131_072), 3000
    async with create_client(start(demo).url, access_token=token(BOB)) as bob:
        watch = Watch(bob, "said", "exact", "deep")
        assert (await bob.subscribe(CHAT)).ok
        numbers = ", ".join(f"repeat('9', {length})::numeric, -repeat('9', {length})::numeric" for length in lengths)
        await say(demo, CHAT, "exact", '{"n": 12345678901234567890123, "d": 0.1, "z": 2.50}')
        await run_sql(
            demo,
            f"SELECT realtime.publish('{CHAT}', 'said', jsonb_build_object('n', jsonb_build_array({numbers})))",
            f"SELECT realtime.publish('{CHAT}', 'deep', ('{{\"a\":' || repeat('[', {depth}) || repeat(']', {depth})"
            " || '}')::jsonb)",
        )
        [deep] = await watch.wait_for("deep")
        [exact], [said] = watch.named("exact"), watch.named("said")
        assert (exact["n"], exact["d"], exact["z"]) == (12345678901234567890123, 0.1, 2.5)
        assert said["n"] == [sign * (10**length - 1) for length in lengths for sign in (1, -1)]
        found = deep["a"]
        for _ in range(depth - 1):
            [found] = found
        assert found == []


@pytest.mark.usefixtures("threads")
async def test_the_twin_refuses_what_cannot_be_said_too(demo: str, start: Start) -> None:
    def attempt(url: str) -> None:
        with sync.create_client(url, access_token=token(BOB)) as bob:
            assert bob.subscribe(CHAT).ok
            for payload in ({"n": math.nan}, {"n": math.inf}, {"t": "\ud800"}, {"\ud800": 1}):
                with pytest.raises(ClientError) as caught:
                    bob.publish(CHAT, "said", payload)
                assert caught.value.code == "INVALID_REQUEST"
            for name in ("\ud800", "chat:\udfff"):
                answer = bob.subscribe(name)
                assert answer.error
                assert answer.error.code == "INVALID_REQUEST"
                with pytest.raises(SubscribeError) as refused:
                    next(iter(bob.stream(name)))
                assert refused.value.code == "INVALID_REQUEST"
            assert bob.publish(CHAT, "said", {}, ack=True).ok

    await asyncio.to_thread(attempt, start(demo).url)


async def test_a_token_that_cannot_be_sent_is_a_connection_that_fails(demo: str, start: Start) -> None:
    async with create_client(start(demo).url, access_token="half \ud800") as bob:
        with pytest.raises(ConnectError, match="credentials") as caught:
            await bob.connect()
        assert caught.value.code == "INVALID_REQUEST"


# ---- listeners


async def test_listeners_plain_and_async_as_calls_and_as_decorators(demo: str, start: Start) -> None:
    heard: list[Any] = []
    async with create_client(start(demo).url, access_token=token(BOB)) as bob:

        @bob.on("said")
        async def on_said(payload: dict[str, Any]) -> None:
            # A listener may use the client: an answer does not wait for it.
            answer = await bob.publish(CHAT, "answered", {"to": payload["n"]}, ack=True)
            heard.append(("said", payload["n"], answer.ok))

        remove = bob.on("answered", lambda payload: heard.append(("answered", payload["to"])))
        bob.once("answered", lambda payload: heard.append("once"))
        bob.on("connect", lambda: heard.append("connect"))
        await bob.subscribe(CHAT)
        for n in range(3):
            await bob.publish(CHAT, "said", {"n": n})
        await wait_until(lambda: len(heard) >= 8)
        assert heard[0] == "connect"
        assert [it for it in heard if it[0] == "said"] == [("said", n, True) for n in range(3)]
        assert [it for it in heard if it[0] == "answered"] == [("answered", n) for n in range(3)]
        assert heard.count("once") == 1
        remove()
        bob.off("said", on_said)
        watch = Watch(bob, "end")
        for event in ("answered", "said", "end"):
            await bob.publish(CHAT, event, {"n": 9, "to": 9})
        await watch.wait_for("end")
        assert len(heard) == 8


# ---- streams


async def test_a_stream_yields_the_channel_s_messages_and_unsubscribes_at_its_end(demo: str, start: Start) -> None:
    server = start(demo)
    async with create_client(server.url, access_token=token(BOB)) as bob:
        writing = asyncio.create_task(
            when_subscribed(bob, lambda: say(demo, ORDER, payload='{"n": 1}', times=3), ORDER)
        )
        seen: list[Message] = []
        async for message in bob.stream(ORDER):
            seen.append(message)
            if len(seen) == 3:
                break
        await writing
        assert [(it.event, it["n"], it.channel, it.meta["senderType"]) for it in seen] == [
            ("said", 1, ORDER, "system")
        ] * 3
        assert len({it.id for it in seen}) == 3
        await until_load(server, 1, 0)
        assert bob.get_subscribed_channels() == []


async def when_subscribed(client: Any, then: Callable[[], Any], *channels: str) -> None:
    await until_subscribed(client, *channels)
    await then()


async def test_streams_and_subscribe_share_one_subscription_and_the_last_one_out_leaves(
    demo: str, start: Start
) -> None:
    server = start(demo)
    async with create_client(server.url, access_token=token(BOB)) as bob:
        streams = [bob.stream(CHAT), bob.stream(CHAT)]
        reading = [asyncio.ensure_future(anext(stream)) for stream in streams]
        await until_subscribed(bob, CHAT)
        await say(demo, CHAT)
        first, second = [await it for it in reading]
        assert first == second
        await streams[0].aclose()
        assert bob.get_subscribed_channels() == [CHAT]
        assert (await bob.subscribe(CHAT)).ok
        await streams[1].aclose()
        assert bob.get_subscribed_channels() == [CHAT]  # subscribe() holds it
        await bob.unsubscribe(CHAT)
        await until_load(server, 1, 0)


@pytest.mark.parametrize("how", ["unsubscribe", "disconnect"])
async def test_a_stream_ends_cleanly(demo: str, start: Start, how: str) -> None:
    async with create_client(start(demo).url, access_token=token(BOB)) as bob:
        watch = Watch(bob, "said")
        reading = asyncio.create_task(read_all(bob.stream(CHAT)))
        await until_subscribed(bob, CHAT)
        await bob.publish(CHAT, "said", {"n": 1})
        await watch.wait_for("said")
        await (bob.unsubscribe(CHAT) if how == "unsubscribe" else bob.disconnect())
        assert [message["n"] for message in await reading] == [1]


async def read_all(stream: Any) -> list[Message]:
    return [message async for message in stream]


async def test_a_stream_that_is_refused_says_why_and_one_that_is_cancelled_leaves_nothing(
    demo: str, start: Start
) -> None:
    server = start(demo)
    async with create_client(server.url, access_token=token(BOB)) as bob:
        with pytest.raises(SubscribeError) as caught:
            await anext(bob.stream(FORBIDDEN))
        assert caught.value.code == "UNAUTHORIZED"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3), aclosing(bob.stream(CHAT)) as stream:
                await anext(stream)
        await until_load(server, 1, 0)
        with pytest.raises(ValueError, match="buffer"):
            await anext(bob.stream(CHAT, buffer=0))


async def test_a_reader_that_is_too_slow_gets_an_error_and_no_gap(demo: str, start: Start) -> None:
    async with create_client(start(demo).url, access_token=token(BOB)) as bob:
        watch = Watch(bob, "said")
        stream = bob.stream(CHAT, buffer=5, events=["said"])
        first = asyncio.ensure_future(anext(stream))
        await until_subscribed(bob, CHAT)
        for n in range(20):
            await bob.publish(CHAT, "said", {"n": n})
        await watch.wait_for("said", 20)
        numbers = [(await first)["n"]]
        numbers += [(await anext(stream))["n"] for _ in range(5)]
        with pytest.raises(StreamOverflow):
            await anext(stream)
        assert numbers == [0, 1, 2, 3, 4, 5]
        assert bob.get_subscribed_channels() == []


async def test_a_burst_reaches_a_stream_whole_and_in_order(demo: str, start: Start) -> None:
    async with create_client(start(demo).url, access_token=token(BOB)) as bob:
        burst = f"SELECT realtime.publish('{CHAT}', 'said', jsonb_build_object('n', n)) FROM generate_series(1, 5000) n"
        writing = asyncio.create_task(when_subscribed(bob, lambda: run_sql(demo, burst), CHAT))
        numbers = []
        async for message in bob.stream(CHAT):
            numbers.append(message["n"])
            if len(numbers) == 5000:
                break
        assert numbers == list(range(1, 5001))
        await writing


# ---- the synchronous twin


@pytest.fixture
def threads() -> Iterator[None]:
    """No thread is left behind."""
    before = set(threading.enumerate())
    yield
    assert [it for it in threading.enumerate() if it not in before and it.name.startswith("insforge")] == []


@pytest.mark.usefixtures("threads")
async def test_the_twin_has_the_same_verbs(demo: str, start: Start) -> None:
    await asyncio.to_thread(use_the_twin, start(demo).url)


def use_the_twin(url: str) -> None:
    heard: list[Any] = []
    done = threading.Event()
    with sync.create_client(url, access_token=token(BOB)) as bob:

        @bob.on("said")
        def on_said(payload: dict[str, Any]) -> None:
            # Called in a thread of its own, so it may wait for the server.
            answer = bob.publish(CHAT, "answered", {}, ack=True)
            heard.append((payload["text"], answer.ok, threading.current_thread().name))

        bob.once("answered", lambda _: done.set())
        assert bob.connection_state == "disconnected"
        bob.connect()
        assert bob.is_connected
        assert bob.socket_id
        assert bob.subscribe(CHAT).ok
        assert bob.get_subscribed_channels() == [CHAT]
        assert [member["presenceId"] for member in bob.get_presence_state(CHAT)] == [BOB]
        bob.publish(CHAT, "said", {"text": "hello"})
        assert done.wait(20)
        assert heard == [("hello", True, "insforge-realtime-listeners")]
        bob.off("said", on_said)
        bob.unsubscribe(CHAT)
        assert bob.get_subscribed_channels() == []
        assert not bob.subscribe(FORBIDDEN).ok
        bob.set_access_token(token(ALICE))
        bob.disconnect()
        assert bob.connection_state == "disconnected"
        assert bob.subscribe(FORBIDDEN).ok  # it is Alice's
    assert not bob.is_connected


@pytest.mark.usefixtures("threads")
async def test_the_twin_streams(demo: str, start: Start) -> None:
    server = start(demo)
    await asyncio.to_thread(stream_with_the_twin, server.url)
    await until_load(server, 0, 0)


def stream_with_the_twin(url: str) -> None:
    with sync.create_client(url, access_token=token(BOB)) as bob:
        with pytest.raises(SubscribeError):
            next(iter(bob.stream(FORBIDDEN)))
        assert bob.subscribe(CHAT).ok
        enough = threading.Event()

        def publish_all_the_time() -> None:
            for n in count():
                if enough.wait(0.01):
                    return
                bob.publish(CHAT, "said", {"n": n})

        with ThreadPoolExecutor() as pool:
            publishing = pool.submit(publish_all_the_time)
            numbers = []
            for message in bob.stream(CHAT):
                numbers.append(message["n"])
                if len(numbers) == 5:
                    break
            enough.set()
            publishing.result()
        assert numbers == list(range(numbers[0], numbers[0] + 5))
        assert bob.get_subscribed_channels() == [CHAT]


@pytest.mark.usefixtures("threads")
async def test_the_twin_reports_that_nobody_is_there() -> None:
    def attempt() -> None:
        with sync.create_client("http://127.0.0.1:1") as client:
            with pytest.raises(ConnectError):
                client.connect()
            assert client.subscribe("orders").error
        client.close()

    await asyncio.to_thread(attempt)
