"""The parts of the Python client that need no server: listeners, streams' buffers, back-off, arguments."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from insforge_realtime import client as package
from insforge_realtime.client import ErrorInfo, Message, StreamOverflow, SubscribeError, create_client, sync
from insforge_realtime.client.backoff import Backoff
from insforge_realtime.client.link import Endpoint
from insforge_realtime.client.listeners import WAITING_MANY, Listeners
from insforge_realtime.client.message_buffer import MessageBuffer

# ---- listeners


def test_a_plain_listener_is_called_at_once_with_the_data() -> None:
    listeners = Listeners()
    heard: list[Any] = []
    listeners.add("a", heard.append)
    listeners.add("nothing", lambda: heard.append("called without data"))
    listeners.emit("a", 1)
    listeners.emit("b", 2)
    listeners.emit("nothing")
    assert heard == [1, "called without data"]


def test_the_same_listener_is_added_once_and_removed_in_three_ways() -> None:
    listeners = Listeners()
    heard: list[Any] = []
    remove = listeners.add("a", heard.append)
    listeners.add("a", heard.append)
    listeners.emit("a", 1)
    remove()
    remove()
    listeners.emit("a", 2)
    listeners.add("a", heard.append)
    listeners.remove("a", heard.append)
    listeners.add("a", heard.append)
    listeners.remove("a")
    listeners.remove("never added")
    listeners.emit("a", 3)
    assert heard == [1]


def test_a_listener_for_one_event_is_gone_before_it_is_called() -> None:
    listeners = Listeners()
    heard: list[Any] = []

    def again(data: int) -> None:
        heard.append(data)
        listeners.emit("a", data + 1)

    listeners.add("a", again, once=True)
    listeners.emit("a", 1)
    assert heard == [1]


def test_a_listener_that_another_removes_is_not_called() -> None:
    listeners = Listeners()
    heard: list[Any] = []
    listeners.add("a", lambda _: listeners.remove("a", heard.append))
    listeners.add("a", heard.append)
    listeners.emit("a", 1)
    assert heard == []


def test_a_listener_that_raises_is_logged_and_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    listeners = Listeners()
    heard: list[Any] = []
    listeners.add("a", lambda _: 1 / 0)
    listeners.add("a", heard.append)
    listeners.emit("a", "secret payload")
    assert heard == ["secret payload"]
    [record] = caplog.records
    assert "a listener of 'a' failed" in record.getMessage()
    assert "secret" not in record.getMessage()


async def test_an_async_listener_hears_in_order_one_call_at_a_time_and_holds_up_no_other() -> None:
    listeners, gate = Listeners(), asyncio.Event()
    slow: list[Any] = []
    fast: list[Any] = []

    async def waits(data: int) -> None:
        slow.append(("begin", data))
        await gate.wait()
        slow.append(("end", data))
        if data == 1:
            raise ValueError

    async def does_not(data: int) -> None:
        fast.append(data)

    listeners.add("a", waits)
    listeners.add("a", does_not)
    for n in range(3):
        listeners.emit("a", n)
    while len(fast) < 3:
        await asyncio.sleep(0)
    assert slow == [("begin", 0)]
    gate.set()
    while len(slow) < 6:
        await asyncio.sleep(0)
    assert slow == [(what, n) for n in range(3) for what in ("begin", "end")]
    assert fast == [0, 1, 2]


async def test_an_async_listener_that_is_removed_does_not_hear_what_waits() -> None:
    listeners, gate = Listeners(), asyncio.Event()
    heard: list[Any] = []

    async def waits(data: int) -> None:
        heard.append(data)
        await gate.wait()

    listeners.add("a", waits)
    for n in range(3):
        listeners.emit("a", n)
    await asyncio.sleep(0)
    listeners.remove("a", waits)
    gate.set()
    for _ in range(5):
        await asyncio.sleep(0)
    assert heard == [0]


async def test_a_long_line_before_an_async_listener_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    listeners = Listeners()
    listeners.add("a", lambda _: asyncio.Event().wait())
    with caplog.at_level(logging.WARNING):
        for n in range(WAITING_MANY + 10):
            listeners.emit("a", n)
    assert len(caplog.records) == 1


def test_what_cannot_be_called_is_no_listener() -> None:
    with pytest.raises(TypeError, match="callable"):
        Listeners().add("a", "handler")  # type: ignore[arg-type]


def test_on_is_a_call_and_a_decorator() -> None:
    client = create_client("http://127.0.0.1")

    def handler(data: Any) -> None: ...

    assert client.on("a")(handler) is handler
    assert client.once("a")(handler) is handler
    remove = client.on("a", handler)
    remove()


def test_the_synchronous_client_refuses_async_listeners() -> None:
    async def handler(data: Any) -> None: ...

    with pytest.raises(TypeError, match="plain functions"):
        sync.create_client("http://127.0.0.1").on("a", handler)


# ---- streams


def message(n: int, event: str = "a") -> Message:
    return Message(
        event, {"n": n, "meta": {"channel": "c", "messageId": str(n), "timestamp": "2026-01-01T00:00:00.000Z"}}
    )


async def test_a_buffer_gives_what_came_then_its_end() -> None:
    buffer = MessageBuffer("c", None, 10)
    reading = asyncio.ensure_future(buffer.get())
    await asyncio.sleep(0)
    buffer.put(message(1))
    assert await reading == message(1)
    buffer.put(message(2))
    buffer.end()
    buffer.put(message(3))
    assert await buffer.get() == message(2)
    assert [await buffer.get(), await buffer.get()] == [None, None]


async def test_a_buffer_that_overflows_gives_what_it_holds_then_the_error() -> None:
    buffer = MessageBuffer("c", None, 2)
    for n in range(4):
        buffer.put(message(n))
    assert [(await buffer.get())["n"], (await buffer.get())["n"]] == [0, 1]  # type: ignore[index]
    for _ in range(2):
        with pytest.raises(StreamOverflow, match="2 messages"):
            await buffer.get()


async def test_a_buffer_keeps_the_first_reason_for_its_end() -> None:
    buffer = MessageBuffer("c", None, 2)
    buffer.end(SubscribeError("UNAUTHORIZED", "no"))
    buffer.end()
    with pytest.raises(SubscribeError, match=r"no \(UNAUTHORIZED\)"):
        await buffer.get()


async def test_a_buffer_without_names_takes_all_but_presence_and_one_with_names_takes_those() -> None:
    everything, some = MessageBuffer("c", None, 10), MessageBuffer("c", ["b", "presence:join"], 10)
    for buffer in (everything, some):
        for event in ("a", "presence:join", "b"):
            buffer.put(message(1, event))
        buffer.end()
    assert [(await everything.get()).event for _ in range(2)] == ["a", "b"]  # type: ignore[union-attr]
    assert [(await some.get()).event for _ in range(2)] == ["presence:join", "b"]  # type: ignore[union-attr]


def test_a_message_shows_its_payload_and_its_meta() -> None:
    one = message(1)
    assert (one["n"], one.channel, one.id, one.event) == (1, "c", "1", "a")
    assert one.timestamp.isoformat() == "2026-01-01T00:00:00+00:00"


# ---- back-off


def test_waits_double_up_to_a_limit_with_jitter_and_never_end() -> None:
    backoff = Backoff(1.0, 20.0)
    waits = [backoff.after(failures) for failures in range(2000)]
    for wait, longest in zip(waits, (1, 2, 4, 8, 16, 20, 20), strict=False):
        assert longest / 2 <= wait <= longest
    assert all(10 <= wait <= 20 for wait in waits[5:])
    assert len(set(waits)) > 1000


# ---- arguments


@pytest.mark.parametrize(
    ("base_url", "url", "path"),
    [
        ("http://127.0.0.1:7130", "http://127.0.0.1:7130", "socket.io"),
        ("https://example.com/", "https://example.com", "socket.io"),
        ("wss://example.com/realtime/", "wss://example.com", "realtime/socket.io"),
    ],
)
def test_a_path_in_the_url_is_where_the_server_is_mounted(base_url: str, url: str, path: str) -> None:
    endpoint = Endpoint.parse(base_url, ["websocket"], None)
    assert (endpoint.url, endpoint.path) == (url, path)


@pytest.mark.parametrize(
    ("base_url", "options", "words"),
    [
        ("example.com", {}, "base_url"),
        ("ftp://example.com", {}, "base_url"),
        ("https://", {}, "base_url"),
        ("https://example.com", {"transports": []}, "transports"),
        ("https://example.com", {"transports": ["pigeon"]}, "pigeon"),
        ("https://example.com", {"transports": ["websocket", "polling"]}, "transports"),
        ("https://example.com", {"api_key": "ik_1", "access_token": "t"}, "either"),
        ("https://example.com", {"timeout": 0}, "timeout"),
        ("https://example.com", {"backoff": (2, 1)}, "backoff"),
    ],
)
@pytest.mark.parametrize("create", [create_client, sync.create_client])
def test_an_argument_that_cannot_be_used_is_refused(
    create: Any, base_url: str, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        create(base_url, **options)


def test_the_public_names_are_there_and_documented() -> None:
    for name in package.__all__:
        assert hasattr(package, name)
    verbs = (
        "connect subscribe unsubscribe publish on off once disconnect is_connected connection_state socket_id "
        "get_subscribed_channels get_presence_state set_access_token stream"
    )
    for made in (package.RealtimeClient, sync.RealtimeClient):
        for verb in verbs.split():
            assert getattr(made, verb).__doc__, verb


def test_values_are_compared_by_what_they_say() -> None:
    assert ErrorInfo("A", "a", "c") == ErrorInfo("A", "a", "c")
