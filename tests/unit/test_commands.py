"""The street up without a database: what clients ask for, in which order they are answered, and what is left of them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs

from insforge_realtime.commands import Commands
from insforge_realtime.config import Config
from insforge_realtime.errors import Close, InternalError, RequestError, Unauthorized, Unavailable
from insforge_realtime.hub import Batch, Hub, Stream
from insforge_realtime.inbox import ANONYMOUS_SHARE, INBOX_HIGH, INBOX_LOW, Peer
from insforge_realtime.metrics import Metrics
from insforge_realtime.model import Identity, Owner, Publication, Role
from insforge_realtime.presence import Presence
from insforge_realtime.protocol.session import Emit
from insforge_realtime.rooms import Rooms

SUBSCRIBE, UNSUBSCRIBE, PUBLISH = "realtime:subscribe", "realtime:unsubscribe", "realtime:publish"


class Screen:
    """A client, as its commands see it: remembers all that it is sent, in order."""

    stream: Stream | None = None

    def __init__(self, address: str = "10.0.0.1") -> None:
        self.address = address
        self.got: list[tuple[Any, ...]] = []

    def deliver(self, batch: Batch) -> None:
        self.got += [tuple(json.loads(event)) for event in batch.events]

    def emit(self, name: str, data: object) -> None:
        self.got.append((name, orjson.loads(orjson.dumps(data))))

    def acknowledge(self, ack_id: int, data: object) -> None:
        self.got.append((ack_id, orjson.loads(orjson.dumps(data))))

    def close(self, end: Close) -> None:
        self.got.append(("close", end.code, end.reason))

    def pause_reading(self) -> None:
        self.got.append(("pause",))

    def resume_reading(self) -> None:
        self.got.append(("resume",))

    @property
    def acks(self) -> list[int]:
        return [name for name, *_ in self.got if isinstance(name, int)]

    def ack(self, ack_id: int) -> Any:
        [answer] = [data for name, *data in self.got if name == ack_id]
        return answer[0]

    def named(self, name: str) -> list[Any]:
        return [data[0] for named, *data in self.got if named == name]


class Database:
    """The policies and the rows: answers yes, unless a channel has another answer, or its gate is closed."""

    def __init__(self) -> None:
        self.answers: dict[str, Exception] = {}
        self.gates: dict[str, asyncio.Event] = {}
        self.asked: list[tuple[str, Owner]] = []
        self.rows: list[Publication] = []

    async def check_subscribe(self, identity: Identity, channel: str, owner: Owner) -> None:
        self.asked.append((channel, owner))
        await self._judge(channel)

    async def publish(self, publication: Publication, owner: Owner) -> str:
        await self._judge(publication.channel)
        self.rows.append(publication)
        return f"id {len(self.rows)}"

    def close(self, channel: str) -> asyncio.Event:
        """Let whoever asks for a channel wait until the gate is set."""
        self.gates[channel] = asyncio.Event()
        return self.gates[channel]

    async def _judge(self, channel: str) -> None:
        await asyncio.sleep(0)
        if channel in self.gates:
            await self.gates[channel].wait()
        if channel in self.answers:
            raise self.answers[channel]


class Tokens:
    """Believes everybody: `auth` is the subject, or a role without one."""

    async def identify(self, auth: object) -> Identity:
        if isinstance(auth, Role):
            return Identity(auth, "{}")
        if not isinstance(auth, str):
            raise Unauthorized
        return Identity(Role.AUTHENTICATED, "{}", auth)


class House:
    """Commands with all that is real behind them, except for the database and the clock."""

    def __init__(self, **limits: Any) -> None:
        self.now = time.monotonic()
        self.database, self.hub, self.presence = Database(), Hub(), Presence()
        self.rooms = Rooms(self.hub, self.presence)
        self.nudges = 0
        self.metrics = Metrics()
        self.commands = Commands(
            Config(database_url="postgresql://x", _env_file=None, **limits),  # type: ignore[call-arg]
            Tokens(),
            self.database,
            self.database,
            self.rooms,
            self._nudge,
            self.metrics,
            now=lambda: self.now,
        )

    def _nudge(self) -> None:
        self.nudges += 1

    async def enter(self, auth: object, *channels: str, address: str = "10.0.0.1") -> Client:
        """A client that is let in, and subscribed to these channels."""
        screen = Screen(address)
        client = Client(self.commands, screen, await self.commands.hello(screen, auth))
        for channel in channels:
            client.subscribe(channel)
        await settled()
        return client


class Client:
    def __init__(self, commands: Commands, screen: Screen, peer: Peer) -> None:
        self.commands, self.screen, self.peer = commands, screen, peer

    def emit(
        self, name: str | float, *data: Any, ack: int | None = None, size: int = 50, flaw: str | None = None
    ) -> None:
        payload = data[0].get("payload") if data and isinstance(data[0], dict) else None
        text = None if payload is None else json.dumps(payload)
        self.commands.handle(self.peer, Emit(name, list(data), ack, text, flaw, size))

    def subscribe(self, channel: object, ack: int | None = None) -> None:
        self.emit(SUBSCRIBE, {"channel": channel}, ack=ack)

    def unsubscribe(self, channel: object, ack: int | None = None) -> None:
        self.emit(UNSUBSCRIBE, {"channel": channel}, ack=ack)

    def publish(self, channel: object, n: int, ack: int | None = None) -> None:
        self.emit(PUBLISH, {"channel": channel, "event": "e", "payload": {"n": n}}, ack=ack)

    def leave(self) -> None:
        self.commands.goodbye(self.peer)

    @property
    def errors(self) -> list[Any]:
        return self.screen.named("realtime:error")


async def settled() -> None:
    """Until every task has gone as far as it can without the clock."""
    for _ in range(500):
        await asyncio.sleep(0)


def members(answer: dict[str, Any]) -> list[str]:
    return [member["presenceId"] for member in answer["presence"]["members"]]


def payloads(rows: Iterable[Publication]) -> list[Any]:
    return [json.loads(row.payload)["n"] for row in rows]


# ---- subscribe and unsubscribe -----------------------------------------------------------------------------


async def test_a_subscribe_is_acknowledged_with_the_members_before_anything_of_the_channel_comes() -> None:
    house = House()
    gate = house.database.close("chat")
    alice = await house.enter("alice")
    alice.subscribe("chat", ack=1)
    await settled()
    assert alice.screen.got == []
    assert await house.rooms.broadcast("chat", ['["before",{}]']) == 0
    gate.set()
    await settled()
    assert await house.rooms.broadcast("chat", ['["after",{}]']) == 1
    assert [name for name, *_ in alice.screen.got] == [1, "after"]
    answer = alice.screen.ack(1)
    assert (answer["ok"], answer["channel"], members(answer)) == (True, "chat", ["alice"])


async def test_without_an_ack_a_subscribe_is_silent() -> None:
    house = House()
    alice = await house.enter("alice", "chat")
    assert alice.screen.got == []
    assert house.hub.audience("chat") == 1


async def test_the_others_are_told_who_comes_and_who_goes_and_nobody_of_itself() -> None:
    house = House()
    alice, bob = await house.enter("alice", "chat"), await house.enter("bob", "chat")
    await asyncio.sleep(0.05)
    bob.unsubscribe("chat", ack=1)
    await asyncio.sleep(0.05)
    assert [(name, data["member"]["presenceId"]) for name, data in alice.screen.got] == [
        ("presence:join", "bob"),
        ("presence:leave", "bob"),
    ]
    assert alice.screen.got[0][1]["meta"]["channel"] == "chat"
    assert bob.screen.got == [(1, {"ok": True, "channel": "chat"})]


async def test_subscribing_again_is_not_judged_again_and_gives_a_fresh_snapshot() -> None:
    house = House()
    alice = await house.enter("alice", "chat")
    await house.enter("bob", "chat")
    house.database.answers["chat"] = Unauthorized()
    alice.subscribe("chat", ack=1)
    await settled()
    assert members(alice.screen.ack(1)) == ["alice", "bob"]
    assert house.hub.audience("chat") == 2
    assert [channel for channel, _ in house.database.asked] == ["chat", "chat"]


async def test_unsubscribing_from_where_one_is_not_is_acknowledged() -> None:
    house = House()
    alice = await house.enter("alice")
    alice.unsubscribe("chat", ack=1)
    await settled()
    assert alice.screen.ack(1) == {"ok": True, "channel": "chat"}


async def test_two_sockets_of_a_user_are_one_member_and_one_owner() -> None:
    house = House()
    await house.enter("witness", "chat")
    phone, _ = await house.enter("alice", "chat"), await house.enter("alice", "chat")
    assert [member.presence_id for member in house.rooms.members("chat")] == ["witness", "alice"]
    phone.leave()
    assert [member.presence_id for member in house.rooms.members("chat")] == ["witness", "alice"]
    assert house.database.asked[-1] == house.database.asked[-2] == ("chat", Owner("user alice"))


async def test_anonymous_clients_are_a_member_each_and_share_the_account_of_their_address() -> None:
    house = House()
    first, second = await house.enter(Role.ANON, "chat"), await house.enter(Role.ANON, "chat")
    await house.enter(Role.PROJECT_ADMIN, "chat")
    present = house.rooms.members("chat")
    assert [member.type for member in present] == ["anonymous"] * 3
    assert [member.presence_id for member in present[:2]] == [first.peer.sid, second.peer.sid]
    owners = [owner for _, owner in house.database.asked]
    assert owners[0] == owners[1] == Owner("address 10.0.0.1", ANONYMOUS_SHARE)
    assert owners[2].id.startswith("socket "), "a project's key is on servers: each connection is for itself"


@pytest.mark.parametrize(("limit", "let_in"), [(3, 3), (0, 5)])
async def test_the_channels_of_a_peer_are_limited_and_leaving_one_makes_room(limit: int, let_in: int) -> None:
    house = House(max_channels_per_connection=limit)
    alice = await house.enter("alice")
    for number in range(5):
        alice.subscribe(f"room:{number}", ack=number)
    alice.subscribe("room:0", ack=10)
    alice.unsubscribe("room:0", ack=11)
    alice.subscribe("room:9", ack=12)
    await settled()
    assert [alice.screen.ack(number)["ok"] for number in range(5)] == [True] * let_in + [False] * (5 - let_in)
    assert [alice.screen.ack(number)["ok"] for number in (10, 11, 12)] == [True] * 3
    if limit:
        assert alice.screen.ack(4)["error"]["code"] == "INVALID_REQUEST"
        assert len(house.database.asked) == 4, "a channel too many is no question to the policies"


# ---- publish -----------------------------------------------------------------------------------------------


async def test_a_publish_is_a_row_whose_id_is_acknowledged_once_the_feed_was_nudged() -> None:
    house = House()
    alice = await house.enter("alice", "chat")
    alice.publish("chat", 1, ack=7)
    alice.publish("chat", 2)
    await settled()
    assert alice.screen.got == [(7, {"ok": True, "messageId": "id 1"})]
    assert (payloads(house.database.rows), house.nudges) == ([1, 2], 2)
    assert {row.identity.subject for row in house.database.rows} == {"alice"}


async def test_only_members_publish_and_no_policy_is_asked_for_others() -> None:
    house = House()
    alice = await house.enter("alice", "chat")
    alice.unsubscribe("chat")
    alice.publish("chat", 1, ack=1)
    alice.publish("chat", 2)
    await settled()
    refusal = {"code": "NOT_SUBSCRIBED", "message": "Subscribe to the channel before publishing to it"}
    assert alice.screen.got == [
        (1, {"ok": False, "channel": "chat", "error": refusal}),
        ("realtime:error", {"channel": "chat", **refusal}),
    ]
    assert (house.database.rows, house.nudges) == ([], 0)


async def test_a_subscribe_and_a_publish_sent_back_to_back_both_work() -> None:
    house = House()
    alice = await house.enter("alice")
    alice.subscribe("chat", ack=1)
    alice.publish("chat", 1, ack=2)
    await settled()
    assert alice.screen.acks == [1, 2]
    assert payloads(house.database.rows) == [1]


# ---- order -------------------------------------------------------------------------------------------------


async def test_the_commands_of_one_peer_are_answered_in_order_and_hold_up_nobody_else() -> None:
    house = House()
    gate = house.database.close("slow")
    alice, bob = await house.enter("alice", "chat"), await house.enter("bob", "chat")
    alice.subscribe("slow", ack=1)
    alice.publish("chat", 1, ack=2)
    alice.emit("nonsense", ack=3)
    alice.unsubscribe("chat", ack=4)
    bob.publish("chat", 5, ack=5)
    await settled()
    assert (alice.screen.acks, bob.screen.acks) == ([], [5])
    gate.set()
    await settled()
    assert alice.screen.acks == [1, 2, 3, 4]
    assert payloads(house.database.rows) == [5, 1]


async def test_a_peer_that_sends_faster_than_it_is_served_is_not_read_until_its_inbox_is_nearly_empty() -> None:
    house = House()
    gate = house.database.close("slow")
    alice = await house.enter("alice", "chat")
    alice.subscribe("slow")
    await settled()
    for n in range(INBOX_HIGH - 1):
        alice.publish("chat", n, ack=n)
    assert (alice.screen.got, alice.peer.paused) == ([], False)
    for n in range(INBOX_HIGH - 1, INBOX_HIGH + 10):  # what was already read when reading stopped
        alice.publish("chat", n, ack=n)
    assert (alice.screen.got, alice.peer.paused) == ([("pause",)], True)
    gate.set()
    await settled()
    answered = INBOX_HIGH + 10
    assert alice.screen.acks == list(range(answered)), "everything is answered, in order"
    assert alice.screen.got.index(("resume",)) == 1 + answered - INBOX_LOW
    assert (alice.screen.got.count(("resume",)), alice.peer.paused) == (1, False)
    alice.publish("chat", 0, ack=999)
    await settled()
    assert alice.screen.acks[-1] == 999, "the next one starts a new task"


# ---- leaving -----------------------------------------------------------------------------------------------


async def test_a_peer_that_leaves_is_out_of_all_rooms_at_once_and_may_leave_twice() -> None:
    house = House()
    alice = await house.enter("alice", "a", "b")
    assert house.hub.rooms == 2
    alice.leave()
    alice.leave()
    assert house.hub.rooms == 0
    assert house.rooms.members("a") == []


async def test_a_peer_that_leaves_while_it_is_judged_enters_no_room_and_hears_nothing() -> None:
    house = House()
    gate = house.database.close("chat")
    alice = await house.enter("alice")
    alice.subscribe("chat", ack=1)
    await settled()
    alice.leave()
    gate.set()
    await settled()
    assert alice.screen.got == []
    assert (house.hub.rooms, house.rooms.members("chat")) == (0, [])


async def test_what_was_published_before_a_peer_left_is_published_and_what_comes_later_is_not() -> None:
    house = House()
    gate = house.database.close("slow")
    alice = await house.enter("alice")
    alice.subscribe("slow", ack=1)
    alice.publish("slow", 2, ack=2)
    alice.unsubscribe("slow", ack=3)
    alice.publish("slow", 4, ack=4)  # not subscribed any more, and so refused
    await settled()
    alice.leave()
    alice.publish("slow", 5, ack=5)
    gate.set()
    await settled()
    assert (payloads(house.database.rows), house.nudges) == ([2], 1)
    assert alice.screen.got == []
    assert house.hub.rooms == 0


async def test_what_a_peer_unsubscribed_from_before_it_left_is_left_once() -> None:
    house = House()
    gate = house.database.close("slow")
    phone, _ = await house.enter("alice", "chat"), await house.enter("alice", "chat")
    phone.subscribe("slow")
    phone.unsubscribe("chat")
    phone.leave()
    gate.set()
    await settled()
    assert [member.presence_id for member in house.rooms.members("chat")] == ["alice"], (
        "her other socket is still there"
    )


async def test_the_account_of_a_peer_that_left_is_forgotten_once_its_bucket_is_full_again() -> None:
    house = House()
    alice = await house.enter("alice", "chat")
    alice.leave()
    assert len(house.commands._buckets) == 1
    house.now += 1.0
    bob = await house.enter("bob")
    bob.leave()
    assert len(house.commands._buckets) == 0


async def test_a_paused_peer_that_leaves_is_not_resumed() -> None:
    house = House()
    gate = house.database.close("slow")
    alice = await house.enter("alice", "chat")
    alice.subscribe("slow")
    for n in range(2 * INBOX_HIGH):
        alice.publish("chat", n)
    await settled()
    alice.leave()
    gate.set()
    await settled()
    assert alice.screen.got == [("pause",)]
    assert len(house.database.rows) == 2 * INBOX_HIGH


async def test_a_token_that_has_expired_ends_the_connection_with_a_reason() -> None:
    house = House()
    alice = await house.enter("alice", "chat")
    house.commands.expire(alice.peer)
    [error, closed] = alice.screen.got
    assert (error[0], error[1]["code"]) == ("realtime:error", "TOKEN_EXPIRED")
    assert closed == ("close", 1008, "token expired")
    assert (alice.peer.gone, house.hub.rooms) == (True, 0)


async def test_a_credential_that_fails_leaves_nothing_behind() -> None:
    house = House()
    with pytest.raises(Unauthorized):
        await house.commands.hello(Screen(), None)
    assert len(house.commands._buckets) == 0


# ---- refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [Unauthorized("Not allowed"), Unavailable(), InternalError()])
async def test_what_the_policies_answer_is_told_in_the_ack_or_as_an_error(answer: RequestError) -> None:
    house = House()
    house.database.answers["chat"] = answer
    alice = await house.enter("alice")
    alice.subscribe("chat", ack=1)
    alice.subscribe("chat")
    await settled()
    assert alice.screen.got == [
        (1, {"ok": False, "channel": "chat", "error": answer.as_dict()}),
        ("realtime:error", {"channel": "chat", **answer.as_dict()}),
    ]
    assert house.hub.rooms == 0


@pytest.mark.parametrize(
    ("name", "data", "about"),
    [
        (SUBSCRIBE, [], {}),
        (SUBSCRIBE, ["chat"], {}),
        (SUBSCRIBE, [{"channel": 5}], {}),
        (SUBSCRIBE, [{"channel": ""}], {"channel": ""}),
        (SUBSCRIBE, [{"channel": "x" * 2000}], {}),
        (UNSUBSCRIBE, [{}], {}),
        (PUBLISH, [{"channel": "chat"}], {"channel": "chat"}),
        (PUBLISH, [{"channel": "chat", "event": "e", "payload": [1]}], {"channel": "chat"}),
        (PUBLISH, [{"channel": "chat", "event": "presence:join", "payload": {}}], {"channel": "chat"}),
        ("realtime:history", [{"channel": "chat"}], {"channel": "chat"}),
        (42, [], {}),
    ],
)
async def test_a_senseless_command_is_refused_and_the_next_one_works(
    name: str | float, data: list[Any], about: dict[str, str]
) -> None:
    house = House()
    alice = await house.enter("alice", "chat")
    alice.emit(name, *data, ack=1)
    alice.emit(name, *data)
    alice.publish("chat", 1, ack=2)
    await settled()
    refused = alice.screen.ack(1)
    assert refused == {"ok": False, **about, "error": refused["error"]}
    assert refused["error"]["code"] == "INVALID_REQUEST"
    assert alice.errors == [{**about, **refused["error"]}]
    assert alice.screen.ack(2)["ok"]
    assert payloads(house.database.rows) == [1]


async def test_an_unknown_event_is_named_but_not_at_length() -> None:
    house = House()
    alice = await house.enter("alice")
    alice.emit("x" * 5000, ack=1)
    await settled()
    assert alice.screen.ack(1)["error"]["message"] == f"Unknown event '{'x' * 80}'"


async def test_a_command_with_a_flaw_is_refused_by_that_whatever_it_is() -> None:
    house = House()
    alice = await house.enter("alice", "chat")
    alice.emit(PUBLISH, {"channel": "chat", "event": "e", "payload": {}}, ack=1, flaw="A number is too large")
    await settled()
    assert alice.screen.ack(1)["error"] == {"code": "INVALID_REQUEST", "message": "A number is too large"}
    assert house.database.rows == []


async def test_a_verb_that_fails_is_an_internal_error_once_and_only_the_log_has_the_reason() -> None:
    house = House()
    house.database.answers["chat"] = ZeroDivisionError("the secret reason")
    alice = await house.enter("alice")
    with capture_logs() as logs:
        alice.subscribe("chat", ack=1)
        alice.subscribe("elsewhere", ack=2)
        await settled()
    error = {"code": "INTERNAL_ERROR", "message": "Internal error"}
    assert alice.screen.got[0] == (1, {"ok": False, "channel": "chat", "error": error})
    assert alice.screen.acks == [1, 2]
    assert alice.screen.ack(2)["ok"]
    assert [line["command"] for line in logs if line["event"] == "command failed"] == [SUBSCRIBE]


async def test_the_log_has_what_the_client_is_not_told() -> None:
    house = House()
    house.database.answers["chat"] = Unauthorized(known={"pattern": "chat:%", "error": "22P02"})
    alice = await house.enter("alice")
    with capture_logs() as logs:
        alice.subscribe("chat", ack=1)
        await settled()
    [line] = [line for line in logs if line["event"] == "refused"]
    assert (line["sub"], line["channel"], line["code"]) == ("alice", "chat", "UNAUTHORIZED")
    assert (line["pattern"], line["error"], line["log_level"]) == ("chat:%", "22P02", "info")
    assert "22P02" not in json.dumps(alice.screen.got)


# ---- rates -------------------------------------------------------------------------------------------------


async def test_too_many_messages_are_refused_at_once_and_later_ones_pass_again() -> None:
    house = House(max_messages_per_second=2)
    alice = await house.enter("alice", "chat")  # one of the four that may come at once
    for n in range(5):
        alice.publish("chat", n, ack=n)
    assert alice.screen.acks == [3, 4], "a refusal waits behind nothing"
    await settled()
    assert [alice.screen.ack(n)["ok"] for n in range(5)] == [True] * 3 + [False] * 2
    assert alice.screen.ack(4)["error"] == {"code": "RATE_LIMITED", "message": "Too many messages; slow down"}
    house.now += 0.5
    alice.publish("chat", 5, ack=5)
    alice.publish("chat", 6, ack=6)
    await settled()
    assert (alice.screen.ack(5)["ok"], alice.screen.ack(6)["ok"]) == (True, False)
    assert payloads(house.database.rows) == [0, 1, 2, 5]


async def test_too_many_bytes_are_refused_with_the_limit_that_the_owner_has() -> None:
    house = House(max_bytes_per_second=1000)
    alice, nobody = await house.enter("alice"), await house.enter(Role.ANON)
    for client, size in ((alice, 1500), (nobody, 15_000)):
        for ack in (1, 2):
            client.emit(UNSUBSCRIBE, {"channel": "chat"}, ack=ack, size=size)
    await settled()
    assert (alice.screen.ack(1)["ok"], nobody.screen.ack(1)["ok"]) == (True, True)
    assert alice.screen.ack(2)["error"]["message"] == "More than 1000 bytes a second; slow down"
    assert nobody.screen.ack(2)["error"]["message"] == "More than 10000 bytes a second; slow down"


async def test_all_sockets_of_a_user_share_one_rate_and_coming_back_does_not_help() -> None:
    house = House(max_messages_per_second=2)
    first, second = await house.enter("alice"), await house.enter("alice")
    for client in (first, second):
        for ack in (1, 2):
            client.unsubscribe("chat", ack=ack)
    first.leave()
    second.leave()
    again, bob = await house.enter("alice"), await house.enter("bob")
    for client in (again, bob):
        client.unsubscribe("chat", ack=3)
    await settled()
    assert again.screen.ack(3)["error"]["code"] == "RATE_LIMITED"
    assert bob.screen.ack(3)["ok"]


async def test_who_sends_too_much_does_not_fill_the_log_as_well() -> None:
    house = House(max_messages_per_second=0.5)
    alice = await house.enter("alice")
    levels: list[str] = []
    for pause in (0.0, 0.0, 0.1, 1.0):
        house.now += pause
        with capture_logs() as logs:
            for _ in range(3):
                alice.unsubscribe("chat")
            await settled()
        levels.append(" ".join(line["log_level"] for line in logs if line["event"] == "refused"))
    assert levels == ["info debug", "debug debug debug", "debug debug debug", "info debug debug"]


async def test_every_command_is_counted_once_by_what_it_asks_for_and_what_came_of_it() -> None:
    house = House(max_messages_per_second=5)
    house.database.answers = {"secret": Unauthorized(), "broken": ZeroDivisionError()}
    alice = await house.enter("alice", "chat")
    gate = house.database.close("chat")
    alice.subscribe("secret")
    alice.subscribe("broken")
    alice.unsubscribe(5)
    alice.unsubscribe("secret")
    alice.emit("realtime:history")
    alice.emit("x" * 5000, flaw="A number is too large")
    alice.emit(42)
    alice.publish("secret", 1)
    alice.publish("chat", 2)
    for _ in range(2):
        alice.publish("chat", 3)  # too many
    await settled()
    alice.leave()  # while its publish is judged
    gate.set()
    await settled()
    metrics = house.metrics
    assert metrics.subscribes == {"ok": 1, "UNAUTHORIZED": 1, "INTERNAL_ERROR": 1}
    assert metrics.unsubscribes == {"ok": 1, "INVALID_REQUEST": 1}
    assert metrics.publishes == {"ok": 1, "NOT_SUBSCRIBED": 1, "RATE_LIMITED": 2}
    assert metrics.unknown_commands == {"INVALID_REQUEST": 3}
