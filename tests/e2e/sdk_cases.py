"""What every SDK does, method by method: the section *Frontend SDK Integration* of the specification as a table of cases.

One table drives the official SDK, our TypeScript SDK and our Python SDK (test_sdks.py), each as a puppet with the same
commands, so that they cannot drift apart. A case is a method, a sentence, and steps with what they must show.

Where the official SDK differs from what ours do, the case says so in `official`, and its steps show that as well: the day it
no longer differs, the case fails. Cases with `ours_only` are about what the official SDK does not have.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from insforge_realtime.pg.demo import ALICE, ALICES_ORDER, BOB, BOBS_ORDER, ROOM
from support.node import Failed, Sdk, SdkClient
from support.servers import ANON_KEY, Server, token

ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
QUICK: dict[str, Any] = {"reconnectDelay": 50, "reconnectDelayMax": 400}
"""A back-off for tests; the official SDK has its own, and ignores it."""
PATIENT: dict[str, Any] = {"reconnectDelay": 300_000, "reconnectDelayMax": 300_000}
"""Who does not wait for this one has not waited."""
UNVERIFIABLE = ".".join(
    base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
    for part in ({"alg": "ES256", "typ": "JWT", "kid": "k1"}, {"sub": BOB}, "signature")
)
"""A token whose key is at an address that does not answer: whether it is good cannot be said."""
NOT_CONNECTED = {"isConnected": False, "connectionState": "disconnected", "socketId": None, "channels": []}
CHAT = f"chat:{ROOM}"
ORDER = f"order:{BOBS_ORDER}"


@dataclass(frozen=True)
class Stage:
    """What a case plays on: an SDK, a server with the demo's tables, and its database. Many cases share the latter two."""

    sdk: Sdk
    server: Server
    database: str
    official: bool
    """It is the official SDK."""

    async def bob(self, *events: str, **options: Any) -> SdkClient:
        """A client of Bob's, not connected yet."""
        return await self.sdk.client(self.server.url, token(BOB), *events, **options)

    async def alice(self, *events: str) -> SdkClient:
        return await self.sdk.client(self.server.url, token(ALICE), *events)

    async def run(self, sql: str) -> None:
        connection = await asyncpg.connect(self.database)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    async def change_order(self, status: str) -> None:
        """Of Bob's order; its trigger publishes UPDATE_order."""
        await self.run(f"UPDATE orders SET status = '{status}' WHERE id = '{BOBS_ORDER}'")


Steps = Callable[[Stage], Awaitable[None]]


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    method: str
    sentence: str
    steps: Steps
    official: str | None = None
    ours_only: bool = False

    def __str__(self) -> str:
        return f"{self.method}: {self.sentence}"


CASES: list[Case] = []


def case(
    method: str, sentence: str, *, official: str | None = None, ours_only: bool = False
) -> Callable[[Steps], Steps]:
    """Add the steps that follow to the table."""

    def add(steps: Steps) -> Steps:
        CASES.append(Case(method, sentence, steps, official, ours_only))
        return steps

    return add


async def flushed(stage: Stage, client: SdkClient) -> None:
    """What was published before now has arrived, if it was to arrive: messages come in their order."""
    await client.call("on", "flush")
    assert (await client.subscribe("orders"))["ok"]
    await stage.run("SELECT realtime.publish('orders', 'flush', '{}')")
    await client.wait_for("flush")
    await client.call("off", "flush")
    await client.call("unsubscribe", "orders")
    client.events[:] = [event for event in client.events if event[0] != "flush"]


GATE = 4711
"""An advisory lock: who holds it keeps everybody from subscribing to the channel `gated`."""
GATED = f"""
    INSERT INTO realtime.channels (pattern) VALUES ('gated') ON CONFLICT DO NOTHING;
    CREATE TABLE IF NOT EXISTS gated (n int);
    TRUNCATE gated;
    DROP POLICY IF EXISTS gated ON realtime.channels;
    CREATE POLICY gated ON realtime.channels FOR SELECT TO authenticated USING (
        CASE WHEN pattern = 'gated' AND realtime.channel_name() = 'gated'
             THEN pg_advisory_xact_lock_shared({GATE}) IS NOT NULL END)"""


@contextlib.asynccontextmanager
async def closed_gate(stage: Stage) -> AsyncIterator[None]:
    """For the length of a block nobody is let into the channel `gated`, nor refused."""
    connection = await asyncpg.connect(stage.database)
    try:
        await connection.execute(f"SELECT pg_advisory_lock({GATE})")
        yield
    finally:
        await connection.close()


# ---- connect()


@case("connect", "goes from disconnected over connecting to connected, and has a socket id then")
async def connect_goes(stage: Stage) -> None:
    bob = await stage.bob("connect")
    assert await bob.state() == NOT_CONNECTED
    assert await bob.call("connectWatched") == ["disconnected", "connecting", "connected"]
    state = await bob.state()
    assert state.pop("socketId")
    assert state == {"isConnected": True, "connectionState": "connected", "channels": []}
    assert await bob.wait_for("connect") == [None]


@case("connect", "does nothing when connected already")
async def connect_again(stage: Stage) -> None:
    bob = await stage.bob("connect")
    await bob.call("connect")
    before = await bob.state()
    await bob.call("connect")
    assert await bob.state() == before
    assert len(bob.named("connect")) == 1


@case("connect", "called twice at once makes one connection")
async def connect_twice(stage: Stage) -> None:
    bob = await stage.bob("connect")
    await asyncio.gather(bob.call("connect"), bob.call("connect"))
    assert len(bob.named("connect")) == 1


@case("connect", "with a token that is refused throws, says connect_error once, and is disconnected")
async def connect_refused(stage: Stage) -> None:
    bob = await stage.sdk.client(stage.server.url, "nonsense", "connect", "connect_error")
    with pytest.raises(Failed) as caught:
        await bob.call("connect")
    assert caught.value.error["data"]["code"] == "UNAUTHORIZED"
    assert caught.value.error["message"]
    await bob.wait_for("connect_error")
    assert bob.events == [("connect_error", caught.value.error)]
    assert await bob.state() == NOT_CONNECTED


@case("connect", "with a function that gives a token that is refused throws at once too", ours_only=True)
async def connect_refused_function(stage: Stage) -> None:
    tokens = ["nonsense", token(BOB)]
    bob = await stage.sdk.client(stage.server.url, None, "connect", "connect_error", tokens=tokens, **QUICK)
    with pytest.raises(Failed) as caught:
        await bob.call("connect")
    assert caught.value.error["data"]["code"] == "UNAUTHORIZED"
    assert bob.named("connect_error") == [caught.value.error]
    assert await bob.state() == NOT_CONNECTED
    await bob.call("connect")  # asks the function again
    assert [name for name, _ in bob.events] == ["connect_error", "connect"]


@case(
    "connect",
    "where nobody listens throws, says connect_error, and is disconnected",
    official="its error has no code, CONNECTION_FAILED",
)
async def connect_nowhere(stage: Stage) -> None:
    bob = await stage.sdk.client("http://127.0.0.1:1", token(BOB), "connect", "connect_error")
    with pytest.raises(Failed) as caught:
        await bob.call("connect")
    assert caught.value.error["message"]
    assert caught.value.error.get("data") == (None if stage.official else {"code": "CONNECTION_FAILED"})
    assert len(await bob.wait_for("connect_error")) == 1
    assert await bob.state() == NOT_CONNECTED


@case("connect", "with the anonymous key lets one in as anonymous")
async def connect_anonymous(stage: Stage) -> None:
    await stage.run(
        """DROP POLICY IF EXISTS everybody ON realtime.channels;
           CREATE POLICY everybody ON realtime.channels FOR SELECT TO anon USING (pattern = 'orders')"""
    )
    guest = await stage.sdk.client(stage.server.url, None, anon_key=ANON_KEY)
    assert (await guest.subscribe("orders"))["ok"]
    [member] = await guest.call("getPresenceState", "orders")
    assert (member["type"], member["presenceId"]) == ("anonymous", (await guest.state())["socketId"])


@case(
    "connect",
    "that is told UNAVAILABLE is tried again, within its timeout, and takes a better token at once",
    official="it takes it for a refusal",
)
async def connect_unavailable(stage: Stage) -> None:
    bob = await stage.sdk.client(
        stage.server.url,
        UNVERIFIABLE,
        "connect",
        "connect_error",
        **({} if stage.official else {"timeout": 2000} | QUICK),
    )
    with pytest.raises(Failed) as caught:
        await bob.call("connect")
    assert caught.value.error["data"]["code"] == "UNAVAILABLE"
    assert await bob.state() == NOT_CONNECTED
    refused = bob.named("connect_error")
    assert {error["data"]["code"] for error in refused} == {"UNAVAILABLE"}
    if stage.official:
        assert len(refused) == 1
        return
    assert len(refused) > 2
    patient = await stage.sdk.client(stage.server.url, UNVERIFIABLE, "connect", "connect_error", **QUICK)
    connecting = asyncio.create_task(patient.call("connect"))
    await patient.wait_for("connect_error", 2)
    await patient.call("setAccessToken", token(BOB))
    await connecting
    assert len(patient.named("connect")) == 1


# ---- subscribe(channel)


@case("subscribe", "answers ok and the channel, and lists it")
async def subscribe_ok(stage: Stage) -> None:
    bob = await stage.bob()
    await bob.call("connect")
    answer = await bob.subscribe(ORDER)
    assert (answer["ok"], answer["channel"], answer.get("error")) == (True, ORDER, None)
    assert (await bob.state())["channels"] == [ORDER]


@case("subscribe", "connects first if need be")
async def subscribe_connects(stage: Stage) -> None:
    bob = await stage.bob("connect")
    assert (await bob.subscribe(ORDER))["ok"]
    assert (await bob.state())["isConnected"]
    assert len(bob.named("connect")) == 1


@case("subscribe", "that no policy allows answers with a code and a message, and lists nothing")
async def subscribe_refused(stage: Stage) -> None:
    bob = await stage.bob("error")
    answer = await bob.subscribe(f"order:{ALICES_ORDER}")
    assert (answer["ok"], answer["channel"], answer["error"]["code"]) == (
        False,
        f"order:{ALICES_ORDER}",
        "UNAUTHORIZED",
    )
    assert answer["error"]["message"]
    state = await bob.state()
    assert (state["isConnected"], state["channels"]) == (True, [])
    await flushed(stage, bob)
    assert bob.events == []  # the answer is enough


@case("subscribe", "twice, and twice at once, is one subscription: every message comes once")
async def subscribe_twice(stage: Stage) -> None:
    bob = await stage.bob("UPDATE_order")
    answers = [*await asyncio.gather(bob.subscribe(ORDER), bob.subscribe(ORDER)), await bob.subscribe(ORDER)]
    assert [answer["ok"] for answer in answers] == [True] * 3
    assert (await bob.state())["channels"] == [ORDER]
    await stage.change_order("paid")
    await bob.wait_for("UPDATE_order")
    await flushed(stage, bob)
    assert len(bob.named("UPDATE_order")) == 1


@case(
    "subscribe",
    "whose connection is refused answers with the code and the message of the refusal, and leaves nothing behind",
    official="its code is CONNECTION_FAILED, whatever the server has said",
)
async def subscribe_unconnected(stage: Stage) -> None:
    for credential, code in (("nonsense", "UNAUTHORIZED"), (UNVERIFIABLE, "UNAVAILABLE")):
        options = {} if stage.official else {"timeout": 1000} | QUICK
        bob = await stage.sdk.client(stage.server.url, credential, "connect_error", **options)
        answer = await bob.subscribe("orders")
        [refusal, *_] = await bob.wait_for("connect_error")
        assert refusal["data"]["code"] == code
        assert answer["error"]["code"] == ("CONNECTION_FAILED" if stage.official else code)
        assert refusal["message"] in answer["error"]["message"]
        assert await bob.state() == NOT_CONNECTED
        if not stage.official:
            with pytest.raises(Failed) as caught:
                await bob.call("publish", CHAT, "said", {})
            assert caught.value.error["data"] == {"code": "NOT_CONNECTED"}
            assert f"{refusal['message']} ({code})" in caught.value.error["message"]


@case("subscribe", "where nobody listens answers CONNECTION_FAILED, and leaves nothing behind")
async def subscribe_nowhere(stage: Stage) -> None:
    bob = await stage.sdk.client("http://127.0.0.1:1", token(BOB))
    answer = await bob.subscribe("orders")
    assert (answer["ok"], answer["error"]["code"]) == (False, "CONNECTION_FAILED")
    assert answer["error"]["message"]
    assert await bob.state() == NOT_CONNECTED


@case("subscribe", "while a reconnect is refused answers, in time, with the code of that refusal", ours_only=True)
async def subscribe_while_refused(stage: Stage) -> None:
    bob = await stage.sdk.client(
        stage.server.url, token(BOB, ttl=2), "connect_error", "disconnect", **QUICK, timeout=2000
    )
    assert (await bob.subscribe(ORDER))["ok"]
    await bob.wait_for("disconnect")
    answer = await bob.subscribe(CHAT)
    assert (answer["ok"], answer["error"]["code"]) == (False, "UNAUTHORIZED")
    assert bob.named("connect_error")[-1]["message"] in answer["error"]["message"]
    assert (await bob.state())["connectionState"] == "connecting"


@case("subscribe", "that is unsubscribed while it waits answers SUBSCRIPTION_CANCELLED, and leaves nothing behind")
async def subscribe_cancelled(stage: Stage) -> None:
    await stage.run(GATED)
    bob = await stage.bob("said")
    await bob.call("connect")
    async with closed_gate(stage):
        answer, _ = await asyncio.gather(bob.subscribe("gated"), bob.call("unsubscribe", "gated"))
        assert (answer["ok"], answer["error"]["code"]) == (False, "SUBSCRIPTION_CANCELLED")
    assert (await bob.subscribe(CHAT))["ok"]  # so the server has handled what came before
    await stage.run("SELECT realtime.publish('gated', 'said', '{}')")
    await flushed(stage, bob)
    assert (await bob.state())["channels"] == [CHAT]
    assert bob.events == []


# ---- unsubscribe(channel)


@case("unsubscribe", "ends the messages of this channel, and of no other")
async def unsubscribe_ends(stage: Stage) -> None:
    bob = await stage.bob("UPDATE_order", "said")
    for channel in (ORDER, CHAT):
        assert (await bob.subscribe(channel))["ok"]
    await bob.call("unsubscribe", ORDER)
    assert (await bob.state())["channels"] == [CHAT]
    await flushed(stage, bob)
    await stage.change_order("paid")
    await bob.call("publish", CHAT, "said", {})
    await bob.wait_for("said")
    assert [name for name, _ in bob.events] == ["said"]


@case("unsubscribe", "from what one is not subscribed to does nothing")
async def unsubscribe_nothing(stage: Stage) -> None:
    bob = await stage.bob("error")
    await bob.call("unsubscribe", ORDER)
    assert await bob.state() == NOT_CONNECTED
    await bob.call("connect")
    await bob.call("unsubscribe", ORDER)
    await flushed(stage, bob)
    assert bob.events == []


@case("unsubscribe", "and subscribe again works at once")
async def unsubscribe_and_back(stage: Stage) -> None:
    bob = await stage.bob("UPDATE_order")
    assert (await bob.subscribe(ORDER))["ok"]
    _, answer = await asyncio.gather(bob.call("unsubscribe", ORDER), bob.subscribe(ORDER))
    assert answer["ok"]
    await stage.change_order("paid")
    assert len(await bob.wait_for("UPDATE_order")) == 1


# ---- publish(channel, event, payload)


@case("publish", "reaches every subscriber, oneself too, with the payload and a meta that cannot be forged")
async def publish_reaches(stage: Stage) -> None:
    alice, bob = await stage.alice("new_message"), await stage.bob("new_message")
    for client in (alice, bob):
        assert (await client.subscribe(CHAT))["ok"]
    await bob.call("publish", CHAT, "new_message", {"text": "Hello ✓", "sender": "Bob", "meta": {"senderId": ALICE}})
    seen = [(await client.wait_for("new_message"))[0] for client in (alice, bob)]
    assert seen[0] == seen[1]
    meta = seen[0].pop("meta")
    assert seen[0] == {"text": "Hello ✓", "sender": "Bob"}
    assert ISO.fullmatch(meta.pop("timestamp"))
    assert re.fullmatch(r"[0-9a-f-]{36}", meta.pop("messageId"))
    assert meta == {"channel": CHAT, "senderType": "user", "senderId": BOB}


@case("publish", "of many messages keeps their order")
async def publish_order(stage: Stage) -> None:
    bob = await stage.bob("said")
    assert (await bob.subscribe(CHAT))["ok"]
    await asyncio.gather(*(bob.call("publish", CHAT, "said", {"n": n}) for n in range(50)))
    assert [message["n"] for message in await bob.wait_for("said", 50)] == list(range(50))


ODD_EVENTS = (
    "*",
    "__disconnect_final",
    "__proto__",
    "constructor",
    "prototype",
    "hasOwnProperty",
    "toString",
    "message",
    "errors",
    "Connect",
    "connect ",
    "reconnect",
    "ping",
    "open",
    "close",
    "data",
    "ack",
    "on",
    "_placeholder",
    " ",
    "with spaces",
    "7",
    "null",
    "[]",
    "{}",
    "/admin,",
    "2-",
    "%s",
    '"quoted"',
    "back\\slash",
    "🙂",
    "é",
    "e\u0301",
    "\u202e",
    "\u2028",
)
"""Names that a message may have, and that mean something to a library, to JavaScript, to a parser or to a terminal."""

ODD_CHANNELS = ("*", "__proto__", "constructor", "message", "odd 🙂", " ", '"quoted"', "/admin,")


@case("on", "hears an event by whatever name it has, once, and no other")
async def on_odd_names(stage: Stage) -> None:
    bob = await stage.bob(*ODD_EVENTS)
    assert (await bob.subscribe(CHAT))["ok"]
    for name in ODD_EVENTS:
        await bob.call("publish", CHAT, name, {"name": name})
    await bob.wait_for(ODD_EVENTS[-1])
    await stage.run(f"SELECT realtime.publish('{CHAT}', '*', '{{\"name\": \"*\"}}')")
    await flushed(stage, bob)
    assert [(name, data["name"]) for name, data in bob.events] == [(name, name) for name in (*ODD_EVENTS, "*")]


@case("subscribe", "to a channel by whatever name it has brings its messages, and no other's")
async def subscribe_odd_names(stage: Stage) -> None:
    names = ", ".join(f"('{name}')" for name in ODD_CHANNELS)
    await stage.run(
        f"""INSERT INTO realtime.channels (pattern) VALUES {names} ON CONFLICT DO NOTHING;
            DROP POLICY IF EXISTS odd ON realtime.channels;
            CREATE POLICY odd ON realtime.channels FOR SELECT TO authenticated USING (pattern IN (VALUES {names}))"""
    )
    bob = await stage.bob("said")
    for name in ODD_CHANNELS:
        assert (await bob.subscribe(name))["ok"], name
    assert (await bob.state())["channels"] == list(ODD_CHANNELS)
    for name in ODD_CHANNELS:
        await stage.run(f"SELECT realtime.publish('{name}', 'said', '{{}}')")
    await flushed(stage, bob)
    assert [message["meta"]["channel"] for message in bob.named("said")] == list(ODD_CHANNELS)
    await bob.call("unsubscribe", ODD_CHANNELS[0])
    await stage.run(f"SELECT realtime.publish(name, 'said', '{{}}') FROM (VALUES {names}) AS odd (name)")
    await flushed(stage, bob)
    assert [message["meta"]["channel"] for message in bob.named("said")][len(ODD_CHANNELS) :] == list(ODD_CHANNELS[1:])


@case("publish", "of what JSON cannot say throws INVALID_REQUEST, says where it is, and sends nothing", ours_only=True)
async def publish_unsayable(stage: Stage) -> None:
    bob = await stage.bob("disconnect", "error")
    assert (await bob.subscribe(CHAT))["ok"]
    for what, where in {
        "NaN": "payload",
        "Infinity": "payload",
        "-Infinity": "payload",
        "half": "payload",
        "key": "payload",
        "cycle": "",
        "alien": "payload",
        "event": "event",
        "channel": "channel",
    }.items():
        for ack in (False, True):
            with pytest.raises(Failed) as caught:
                await bob.call("publishUnsayable", CHAT, what, ack)
            assert caught.value.error["data"] == {"code": "INVALID_REQUEST"}, (what, caught.value.error)
            assert where in caught.value.error["message"], (what, caught.value.error)
    assert (await bob.call("publish", CHAT, "said", {}, {"ack": True}))["ok"]
    await flushed(stage, bob)
    assert bob.events == []


@case("subscribe", "to half a surrogate pair is answered INVALID_REQUEST, and disturbs nothing", ours_only=True)
async def subscribe_unsayable(stage: Stage) -> None:
    bob = await stage.bob("disconnect", "error")
    assert (await bob.subscribe(CHAT))["ok"]
    answer = await bob.call("subscribeUnsayable")
    assert (answer["ok"], answer["error"]["code"]) == (False, "INVALID_REQUEST")
    assert (await bob.state())["channels"] == [CHAT]
    await flushed(stage, bob)
    assert bob.events == []


@case("publish", "while not connected throws", official="its error has no code, NOT_CONNECTED")
async def publish_unconnected(stage: Stage) -> None:
    bob = await stage.bob()
    with pytest.raises(Failed) as caught:
        await bob.call("publish", CHAT, "said", {})
    assert "Not connected" in caught.value.error["message"]
    assert caught.value.error.get("data") == (None if stage.official else {"code": "NOT_CONNECTED"})


@case("publish", "to a channel that one is not subscribed to is the event error, NOT_SUBSCRIBED")
async def publish_not_subscribed(stage: Stage) -> None:
    bob = await stage.bob("error")
    await bob.call("connect")
    await bob.call("publish", CHAT, "said", {})
    [error] = await bob.wait_for("error")
    assert (error["code"], error["channel"]) == ("NOT_SUBSCRIBED", CHAT)
    assert error["message"]


@case("publish", "that no policy allows is the event error, UNAUTHORIZED")
async def publish_unauthorized(stage: Stage) -> None:
    bob = await stage.bob("error", "note")
    assert (await bob.subscribe(ORDER))["ok"]
    await bob.call("publish", ORDER, "note", {})
    [error] = await bob.wait_for("error")
    assert (error["code"], error["channel"]) == ("UNAUTHORIZED", ORDER)
    await flushed(stage, bob)
    assert not bob.named("note")


@case(
    "publish",
    "with ack answers with the message's id once it is committed",
    official="it has no acknowledgement: the option is ignored, the answer is nothing",
)
async def publish_ack(stage: Stage) -> None:
    bob = await stage.bob("said")
    assert (await bob.subscribe(CHAT))["ok"]
    answer = await bob.call("publish", CHAT, "said", {"n": 1}, {"ack": True})
    [message] = await bob.wait_for("said")
    if stage.official:
        assert answer is None
    else:
        assert answer == {"ok": True, "messageId": message["meta"]["messageId"]}


@case(
    "publish",
    "with ack answers why not, and there is no event error then",
    official="it has no acknowledgement: the event error comes instead",
)
async def publish_ack_refused(stage: Stage) -> None:
    bob = await stage.bob("error")
    await bob.call("connect")
    answer = await bob.call("publish", CHAT, "said", {}, {"ack": True})
    if stage.official:
        assert answer is None
        assert [error["code"] for error in await bob.wait_for("error")] == ["NOT_SUBSCRIBED"]
    else:
        assert (answer["ok"], answer["error"]["code"]) == (False, "NOT_SUBSCRIBED")
        await flushed(stage, bob)
        assert bob.events == []


# ---- on(event, callback), off, once


@case("on", "hears a change in the database, as the trigger tells it")
async def on_hears(stage: Stage) -> None:
    bob = await stage.bob("UPDATE_order")
    assert (await bob.subscribe(ORDER))["ok"]
    await stage.change_order("shipped")
    [order] = await bob.wait_for("UPDATE_order")
    meta = order.pop("meta")
    assert order == {"id": BOBS_ORDER, "status": "shipped", "total": 42}
    assert ISO.fullmatch(meta.pop("timestamp"))
    assert meta.pop("messageId")
    assert meta == {"channel": ORDER, "senderType": "system"}


@case("on", "can be called before and after connect, and hears once however often the same function is added")
async def on_any_time(stage: Stage) -> None:
    bob = await stage.bob("UPDATE_order")
    assert (await bob.subscribe(ORDER))["ok"]
    await bob.call("on", "INSERT_order")
    await stage.change_order("paid")
    await stage.run(f"SELECT realtime.publish('{ORDER}', 'INSERT_order', '{{}}')")
    await bob.wait_for("INSERT_order")
    assert [name for name, _ in bob.events] == ["UPDATE_order", "INSERT_order"]


@case("off", "ends what on began, for this event only")
async def off_ends(stage: Stage) -> None:
    bob = await stage.bob("UPDATE_order", "end")
    assert (await bob.subscribe(ORDER))["ok"]
    await bob.call("off", "UPDATE_order")
    await stage.change_order("paid")
    await stage.run(f"SELECT realtime.publish('{ORDER}', 'end', '{{}}')")
    await bob.wait_for("end")
    assert [name for name, _ in bob.events] == ["end"]


@case("once", "hears one event, and no more")
async def once_hears(stage: Stage) -> None:
    bob = await stage.bob("end")
    assert (await bob.subscribe(ORDER))["ok"]
    await bob.call("once", "UPDATE_order")
    for status in ("paid", "shipped"):
        await stage.change_order(status)
    await stage.run(f"SELECT realtime.publish('{ORDER}', 'end', '{{}}')")
    await bob.wait_for("end")
    assert len(bob.named("UPDATE_order")) == 1


# ---- reserved events


@case("disconnect", "says disconnect with a reason, clears all subscriptions, and can be followed by connect")
async def disconnect_clears(stage: Stage) -> None:
    bob = await stage.bob("connect", "disconnect", "UPDATE_order")
    assert (await bob.subscribe(ORDER))["ok"]
    await bob.call("disconnect")
    assert await bob.wait_for("disconnect") == ["io client disconnect"]
    assert await bob.state() == NOT_CONNECTED
    await bob.call("connect")
    assert (await bob.state())["channels"] == []
    await stage.change_order("paid")
    await flushed(stage, bob)
    assert [name for name, _ in bob.events] == ["connect", "disconnect", "connect"]


@case("disconnect", "while not connected does nothing")
async def disconnect_nothing(stage: Stage) -> None:
    bob = await stage.bob("disconnect")
    await bob.call("disconnect")
    assert await bob.state() == NOT_CONNECTED
    assert bob.events == []


@case("disconnect", "while a subscribe waits answers it DISCONNECTED")
async def disconnect_pending(stage: Stage) -> None:
    await stage.run(GATED)
    bob = await stage.bob()
    await bob.call("connect")
    async with closed_gate(stage):
        answer, _ = await asyncio.gather(bob.subscribe("gated"), bob.call("disconnect"))
    assert (answer["ok"], answer["error"]["code"]) == (False, "DISCONNECTED")
    assert await bob.state() == NOT_CONNECTED


@case("reconnection", "happens by itself: disconnect with a reason, then connect, and every subscription works again")
async def reconnection(stage: Stage) -> None:
    bob = await stage.bob("connect", "disconnect", "UPDATE_order")
    assert (await bob.subscribe(ORDER))["ok"]
    stage.server.stop()
    [reason] = await bob.wait_for("disconnect")
    assert reason == "transport close"
    state = await bob.state()
    assert (state["isConnected"], state["connectionState"], state["channels"]) == (False, "connecting", [])
    assert [m["presenceId"] for m in await bob.call("getPresenceState", ORDER)] == [BOB]  # who was there last
    stage.server.start()
    await bob.wait_for("connect", 2)
    await until_subscribed(bob, ORDER)
    await stage.change_order("shipped")
    assert [order["status"] for order in await bob.wait_for("UPDATE_order")] == ["shipped"]


@case(
    "reconnection",
    "that is refused says connect_error each time, and goes on until a fixed token is good again",
    official="after one refusal it tries no more by itself, and says connecting until connect() is called",
)
async def reconnection_refused(stage: Stage) -> None:
    events = ("connect", "connect_error", "disconnect", "UPDATE_order")
    options = {} if stage.official else {**QUICK, "timeout": 3000}
    bob = await stage.sdk.client(stage.server.url, token(BOB, ttl=2), *events, **options)
    assert (await bob.subscribe(ORDER))["ok"]
    await bob.wait_for("disconnect")
    refused = await bob.wait_for("connect_error", 1 if stage.official else 4)
    assert {error["data"]["code"] for error in refused} == {"UNAUTHORIZED"}
    state = await bob.state()
    if stage.official:
        assert state["connectionState"] == "connecting"
        with pytest.raises(Failed):
            await bob.call("connect")
        assert len(bob.named("connect_error")) == 2
        assert await bob.state() == NOT_CONNECTED
        return
    assert (state["isConnected"], state["connectionState"], state["channels"]) == (False, "connecting", [])
    with pytest.raises(Failed) as caught:
        await bob.call("connect")  # waits as long as its timeout, and says why
    assert caught.value.error["data"]["code"] == "UNAUTHORIZED"
    assert (await bob.state())["connectionState"] == "connecting"
    await bob.call("setAccessToken", token(BOB))
    await bob.wait_for("connect", 2)
    await until_subscribed(bob, ORDER)
    await stage.change_order("shipped")
    assert [order["status"] for order in await bob.wait_for("UPDATE_order")] == ["shipped"]


@case("reconnection", "that is refused asks a function again, until it gives a better token", ours_only=True)
async def reconnection_refused_function(stage: Stage) -> None:
    tokens = [token(BOB, ttl=2), *["nonsense"] * 3, token(BOB)]
    bob = await stage.sdk.client(stage.server.url, None, "connect", "connect_error", tokens=tokens, **QUICK)
    assert (await bob.subscribe(ORDER))["ok"]
    await bob.wait_for("connect", 2)
    assert [error["data"]["code"] for error in bob.named("connect_error")] == ["UNAUTHORIZED"] * 3
    await until_subscribed(bob, ORDER)


@case(
    "reconnection",
    "brings a row that was committed between connect and the renewed subscription to who reads the state at the"
    " confirmation, and loses it to who reads it at connect",
    official="it has no such event: who reads once subscribe(), called again after connect, has answered misses nothing",
)
async def read_the_state(stage: Stage) -> None:
    await stage.run(GATED)
    events = ("connect", "row", "flush", "realtime:subscribed")
    bob = await stage.bob(*events, **({} if stage.official else QUICK))
    assert (await bob.call("subscribe" if stage.official else "subscribeTold", "gated"))["ok"]
    connection = await asyncpg.connect(stage.database)

    async def commit(n: int) -> None:
        await connection.execute(
            f"""BEGIN;
                INSERT INTO gated VALUES ({n});
                SELECT realtime.publish(channel, 'row', '{{"n": {n}}}') FROM (VALUES ('gated'), ('orders')) AS c (channel);
                COMMIT"""
        )

    async def read() -> set[int]:
        return {row["n"] for row in await connection.fetch("SELECT n FROM gated")}

    try:
        await commit(1)
        await bob.wait_for("row")
        await connection.execute(f"SELECT pg_advisory_lock({GATE})")
        stage.server.stop()
        await commit(2)  # while it is away: both recipes find it
        stage.server.start()
        await bob.wait_for("connect", 2)
        at_connect = await read()
        witness = await stage.alice("row")
        assert (await witness.subscribe("orders"))["ok"]
        await commit(3)
        await witness.wait_for("row")  # so the server has told whoever was subscribed
        answered = asyncio.create_task(bob.subscribe("gated"))  # what the official SDK's users wait for
        assert len(bob.named("realtime:subscribed")) == (0 if stage.official else 1)
        await connection.execute(f"SELECT pg_advisory_unlock({GATE})")
        assert (await answered)["ok"]
        if not stage.official:
            await bob.wait_for("realtime:subscribed", 2)
        at_confirmation = await read()
        await commit(4)
        await connection.execute("SELECT realtime.publish('gated', 'flush', '{}')")
        await bob.wait_for("flush")
        heard = {row["n"] for row in bob.named("row")[1:]}
        assert at_connect | heard == {1, 2, 4}  # the third is lost
        assert at_confirmation | heard == {1, 2, 3, 4}
        if not stage.official:
            confirmed = [{"channel": "gated", "renewed": renewed} for renewed in (False, True)]
            assert bob.named("realtime:subscribed") == bob.named("told") == confirmed
            own = [name for name, _ in bob.events if name in ("realtime:subscribed", "row", "connect", "flush")]
            confirmation = ["connect", "realtime:subscribed", "row"]
            assert own == [*confirmation, *confirmation, "flush"]
    finally:
        await connection.close()


@case("realtime:subscribed", "comes for no renewal that is refused, and for each channel by itself", ours_only=True)
async def confirmed_each(stage: Stage) -> None:
    bob = await stage.bob("realtime:subscribed", "error", "connect", **QUICK)
    for channel in (ORDER, CHAT):
        assert (await bob.subscribe(channel))["ok"]
    await bob.call("setAccessToken", token(ALICE))
    assert [error["channel"] for error in await bob.wait_for("error")] == [ORDER]
    await bob.wait_for("realtime:subscribed", 3)
    assert (await bob.subscribe(CHAT))["ok"]  # no confirmation: it is there
    assert (await bob.call("subscribeTold", CHAT))["ok"]
    assert (await bob.subscribe(f"order:{ALICES_ORDER}"))["ok"]
    await bob.wait_for("realtime:subscribed", 4)
    assert [(it["channel"], it["renewed"]) for it in bob.named("realtime:subscribed")] == [
        (ORDER, False),
        (CHAT, False),
        (CHAT, True),
        (f"order:{ALICES_ORDER}", False),
    ]
    assert bob.named("told") == [{"channel": CHAT, "renewed": False}]


@case("realtime:subscribed", "is a name that no application can publish", ours_only=True)
async def confirmed_not_published(stage: Stage) -> None:
    bob = await stage.bob("realtime:subscribed")
    assert (await bob.subscribe(CHAT))["ok"]
    answer = await bob.call("publish", CHAT, "realtime:subscribed", {"channel": ORDER}, {"ack": True})
    assert (answer["ok"], answer["error"]["code"]) == (False, "INVALID_REQUEST")
    with pytest.raises(asyncpg.PostgresError, match="reserved"):
        await stage.run(f"SELECT realtime.publish('{CHAT}', 'realtime:subscribed', '{{}}')")
    await flushed(stage, bob)
    assert [it["channel"] for it in bob.named("realtime:subscribed")] == [CHAT, "orders"]


# ---- presence


@case("getPresenceState", "tells who is there, and follows who comes and goes")
async def presence(stage: Stage) -> None:
    alice, bob = await stage.alice("presence:join", "presence:leave"), await stage.bob("presence:join")
    assert [m["presenceId"] for m in (await alice.subscribe(CHAT))["presence"]["members"]] == [ALICE]
    assert [m["presenceId"] for m in (await bob.subscribe(CHAT))["presence"]["members"]] == [ALICE, BOB]
    [joined] = await alice.wait_for("presence:join")
    assert (joined["member"]["presenceId"], joined["meta"]["channel"]) == (BOB, CHAT)
    for client in (alice, bob):
        assert [m["presenceId"] for m in await client.call("getPresenceState", CHAT)] == [ALICE, BOB]
    await bob.call("unsubscribe", CHAT)
    await alice.wait_for("presence:leave")
    assert [m["presenceId"] for m in await alice.call("getPresenceState", CHAT)] == [ALICE]
    assert await bob.call("getPresenceState", CHAT) == []
    assert not bob.named("presence:join")


# ---- what ours have besides


@case("setAccessToken", "makes one somebody else: every subscription is judged anew", ours_only=True)
async def set_access_token(stage: Stage) -> None:
    bob = await stage.bob("connect", "disconnect", "error")
    for channel in (ORDER, CHAT):
        assert (await bob.subscribe(channel))["ok"]
    await bob.call("setAccessToken", token(ALICE))
    await bob.wait_for("connect", 2)
    assert bob.named("disconnect") == ["io client disconnect"]
    [error] = await bob.wait_for("error")
    assert (error["code"], error["channel"]) == ("UNAUTHORIZED", ORDER)
    await until_subscribed(bob, CHAT)
    assert (await bob.state())["channels"] == [CHAT]
    assert [m["presenceId"] for m in await bob.call("getPresenceState", CHAT)] == [ALICE]


@case("setAccessToken", "as soon as it is connected makes the next attempt at once too", ours_only=True)
async def set_access_token_early(stage: Stage) -> None:
    bob = await stage.bob("connect", "connect_error", **PATIENT)
    await bob.call("connect")
    for number in range(2, 5):
        await bob.call("setAccessToken", token(ALICE))
        await bob.wait_for("connect", number)
    assert (await bob.subscribe(CHAT))["ok"]
    assert [m["presenceId"] for m in await bob.call("getPresenceState", CHAT)] == [ALICE]


@case("setAccessToken", "during the first handshake begins it anew", ours_only=True)
async def set_access_token_during_connect(stage: Stage) -> None:
    bob = await stage.sdk.client(stage.server.url, "nonsense", "connect", "connect_error")
    await asyncio.gather(bob.call("connect"), bob.call("setAccessToken", token(BOB)))
    assert bob.events == [("connect", None)]


@case("setAccessToken", "without a reconnect leaves the connection, and is used at the next handshake", ours_only=True)
async def set_access_token_later(stage: Stage) -> None:
    bob = await stage.bob("connect", "disconnect", "error")
    assert (await bob.subscribe(CHAT))["ok"]
    before = await bob.state()
    await bob.call("setAccessToken", token(ALICE), {"reconnect": False})
    await flushed(stage, bob)
    assert await bob.state() == before
    await bob.call("disconnect")
    assert [m["presenceId"] for m in (await bob.subscribe(CHAT))["presence"]["members"]] == [ALICE]


@case("setAccessToken", "while it waits to try again makes the next attempt at once", ours_only=True)
async def set_access_token_hurries(stage: Stage) -> None:
    bob = await stage.sdk.client(stage.server.url, token(BOB, ttl=2), "connect", "connect_error", **PATIENT)
    assert (await bob.subscribe(ORDER))["ok"]
    await bob.wait_for("connect_error")
    assert (await bob.state())["connectionState"] == "connecting"
    await bob.call("setAccessToken", token(BOB))
    await bob.wait_for("connect", 2)
    await until_subscribed(bob, ORDER)
    assert len(bob.named("connect_error")) == 1


async def until_subscribed(client: SdkClient, channel: str) -> None:
    """Until the SDK has resubscribed by itself; a round trip to its process each time, so this does not spin."""
    deadline = time.monotonic() + 30
    while channel not in (await client.state())["channels"]:
        assert time.monotonic() < deadline, client.events
