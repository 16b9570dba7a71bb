"""One connection's state machine: the whole table, the clock, and both ends on a fake wire."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from socketio.packet import Packet as OtherPacket

from insforge_realtime.errors import ProtocolError
from insforge_realtime.protocol import engineio
from insforge_realtime.protocol.session import (
    ASKED,
    CLOSED,
    CONNECTED,
    OPENED,
    Connect,
    Disconnect,
    Emit,
    Event,
    Session,
    Timing,
)
from insforge_realtime.protocol.socketio import FLAW, MAX_ATTACHMENTS

TIMING = Timing(ping_interval=25, ping_timeout=20, connect_timeout=45)
STATES = (OPENED, ASKED, CONNECTED, CLOSED)
NAMES = {OPENED: "opened", ASKED: "asked", CONNECTED: "connected", CLOSED: "closed"}


def session_in(state: int, now: float = 0.0) -> Session:
    """A session that has come to a state in the way that clients do."""
    session = Session(TIMING, now)
    if state in (ASKED, CONNECTED):
        session.receive("40", now)
    if state == CONNECTED:
        session.accept("sid")
    if state == CLOSED:
        session.receive("1", now)
    session.events()
    session.data_to_send()
    assert session.state == state
    return session


REFUSED = "refused"
Outcome = str | tuple[int, list[Event], list[str]]
INVALID_NAMESPACE = '44/admin,{"message":"Invalid namespace"}'


def stays(*out: str) -> dict[int, Outcome]:
    """In every open state: no event, no change, perhaps an answer."""
    return {state: (state, [], list(out)) for state in (OPENED, ASKED, CONNECTED)}


# What each packet does in each state; what is not listed is refused.
TABLE: dict[str, dict[int, Outcome]] = {
    "": {}, "x": {}, "7": {}, "0": {}, "2": {}, "2probe": {}, "5": {}, "6": {}, "b4AAAA": {}, "\ud800": {},
    "3": stays(),
    "3probe": stays(),
    "1": {state: (CLOSED, [Disconnect()], []) for state in (OPENED, ASKED, CONNECTED)},
    '42["a",1e400]': {CONNECTED: (CONNECTED, [Emit("a", [{}], None, flaw=FLAW)], [])},
    '427["a",{"channel":"c","n":1e400}]': {CONNECTED: (CONNECTED, [Emit("a", [{"channel": "c"}], 7, flaw=FLAW)], [])},
    '450-7["a",1e400]': {CONNECTED: (CONNECTED, [Emit("a", [{}], 7, flaw=FLAW)], [])},
    "431[1e400]": {CONNECTED: (CONNECTED, [], [])},
    r'40{"token":"\ud800"}': {OPENED: (ASKED, [Connect({}, FLAW)], [])},
    '40/admin,{"n":1e400}': stays(INVALID_NAMESPACE),
    '42["a",1e400': {}, '42/admin,["a",1e400]': {},
    "4": {}, "4x": {}, "4{}": {}, "40[]": {}, "42": {}, "42{": {}, "42[null]": {}, "41{}": {},
    '44{"message":"x"}': {}, "43[]": {}, '45["a"]': {}, '45-["a"]': {}, '4511-["a"]': {}, '451-/admin,["a"]': {},
    '451-["a",{"_placeholder":true,"num":0}]': {CONNECTED: (CONNECTED, [], [])},
    '450-7["a"]': {CONNECTED: (CONNECTED, [Emit("a", [], 7)], [])},
    "461-1[]": {CONNECTED: (CONNECTED, [], [])},
    "40": {OPENED: (ASKED, [Connect(None)], [])},
    '40{"token":"t"}': {OPENED: (ASKED, [Connect({"token": "t"})], [])},
    "41": {CONNECTED: (OPENED, [Disconnect()], [])},
    '42["a",1,{}]': {CONNECTED: (CONNECTED, [Emit("a", [1, {}], None)], [])},
    '427["a"]': {CONNECTED: (CONNECTED, [Emit("a", [], 7)], [])},
    "42[5]": {CONNECTED: (CONNECTED, [Emit(5, [], None)], [])},
    "431[]": {CONNECTED: (CONNECTED, [], [])},
    "40/admin,": stays(INVALID_NAMESPACE),
    "40/admin": stays(INVALID_NAMESPACE),
    '40/admin?a=1,{"token":"t"}': stays(INVALID_NAMESPACE),
    "41/admin,": {}, '42/admin,["a"]': {}, "43/admin,1[]": {},
}  # fmt: skip


@pytest.mark.parametrize("state", STATES, ids=lambda state: NAMES[state])
@pytest.mark.parametrize("packet", TABLE, ids=ascii)
def test_every_packet_in_every_state_does_what_the_table_says(packet: str, state: int) -> None:
    session = session_in(state)
    expected = TABLE[packet].get(state, REFUSED)
    if expected == REFUSED:
        with pytest.raises(ProtocolError):
            session.receive(packet, 1.0)
        assert (session.state, session.events(), session.data_to_send()) == (CLOSED, [], [])
    else:
        session.receive(packet, 1.0)
        assert (session.state, session.events(), session.data_to_send()) == expected


@pytest.mark.parametrize("state", STATES, ids=lambda state: NAMES[state])
@given(text=st.text(st.characters()) | st.text('0123456/,[]{}":a', max_size=12).map(lambda rest: "4" + rest))
def test_any_text_is_taken_or_refused_as_a_protocol_error(state: int, text: str) -> None:
    session = session_in(state)
    try:
        session.receive(text, 1.0)
    except ProtocolError:
        assert session.state == CLOSED


def test_a_refused_client_may_try_again_in_the_time_that_it_has() -> None:
    session = session_in(ASKED)
    session.receive("3", 30.0)
    session.refuse("no", "UNAUTHORIZED")
    assert session.data_to_send() == ['44{"message":"no","data":{"code":"UNAUTHORIZED"}}']
    assert session.state == OPENED
    assert session.deadline == 45.0
    session.receive("40", 44.0)
    assert session.events() == [Connect(None)]
    session.accept("abc")
    assert session.data_to_send() == ['40{"sid":"abc"}']


@given(st.lists(st.sampled_from(["3", "40", "40/admin,", "no", "yes", "41"]), max_size=30), st.floats(0.1, 10.0))
def test_nothing_but_an_accepted_connect_moves_the_end_of_a_strangers_time(does: list[str], step: float) -> None:
    """Not pongs, not refusals, not other namespaces: it has 45 seconds from its beginning or its last goodbye."""
    session, now, ends = Session(TIMING, 0.0), 0.0, 45.0
    for what in does:
        now += step
        if session.state == ASKED and what in ("no", "yes"):
            session.accept("sid") if what == "yes" else session.refuse("no", "UNAUTHORIZED")
        elif (what == "40" and session.state == OPENED) or what in ("3", "40/admin,"):
            session.receive(what, now)
        elif what == "41" and session.state == CONNECTED:
            session.receive(what, now)
            ends = now + 45.0
    session.receive("3", now)
    if session.state == OPENED:
        assert session.deadline == min(ends, now + 25.0)
        with pytest.raises(ProtocolError, match="no CONNECT in time"):
            session.tick(max(now, ends))


def test_three_refusals_of_any_kind_are_enough_and_an_accepted_connect_begins_anew() -> None:
    session = Session(Timing(refusals=3), 0.0)
    session.receive("40/admin,", 1.0)
    for _ in range(2):
        assert not session.exhausted
        session.receive("40", 1.0)
        session.refuse("no", "UNAUTHORIZED")
    assert session.exhausted

    session = Session(Timing(refusals=3), 0.0)
    for _ in range(2):
        for _ in range(2):
            session.receive("40", 1.0)
            session.refuse("no", "UNAUTHORIZED")
        session.receive("40", 1.0)
        session.accept("sid")
        for number in range(5):
            session.receive(f"40/namespace{number},", 1.0)  # whom we know may ask for what there is not
        assert not session.exhausted
        session.receive("41", 1.0)
        assert not session.exhausted


def test_a_client_that_left_may_come_back() -> None:
    session = session_in(CONNECTED)
    session.receive("41", 100.0)
    assert session.deadline == 25.0  # the heartbeat goes on
    session.receive("3", 100.0)
    session.receive("3", 120.0)
    assert session.deadline == 145.0  # 45 s after it left; its next heartbeat is due then, too
    session.receive("40", 101.0)
    assert session.state == ASKED


# The clock.


def test_a_client_that_never_sends_connect_is_given_up() -> None:
    session = Session(Timing(ping_interval=100, ping_timeout=20, connect_timeout=45), now=1000.0)
    assert session.deadline == 1045.0
    session.tick(1044.999)
    assert session.state == OPENED
    with pytest.raises(ProtocolError, match="no CONNECT"):
        session.tick(1045.0)
    assert session.state == CLOSED


def test_while_the_server_makes_up_its_mind_the_connect_timeout_does_not_run() -> None:
    session = session_in(ASKED)
    session.tick(46.0)
    assert session.state == ASKED
    assert session.data_to_send() == [engineio.PING]


@pytest.mark.parametrize("state", [OPENED, ASKED, CONNECTED], ids=lambda state: NAMES[state])
def test_the_server_pings_every_interval_in_every_state(state: int) -> None:
    session = session_in(state)
    session.tick(24.999)
    assert session.data_to_send() == []
    session.tick(25.0)
    assert session.data_to_send() == [engineio.PING]


def test_a_ping_is_sent_once_and_the_next_one_an_interval_after_the_pong() -> None:
    session = session_in(CONNECTED)
    session.tick(25.0)
    session.tick(26.0)
    assert session.data_to_send() == [engineio.PING]
    assert session.deadline == 45.0
    session.receive("3", 30.0)
    assert session.deadline == 55.0
    session.tick(54.9)
    assert session.data_to_send() == []
    session.tick(55.0)
    assert session.data_to_send() == [engineio.PING]


def test_a_pong_has_its_full_time_even_when_the_ping_was_late() -> None:
    session = session_in(CONNECTED)
    session.tick(40.0)
    session.tick(59.9)
    assert session.state == CONNECTED
    with pytest.raises(ProtocolError, match="ping timeout"):
        session.tick(60.0)
    assert session.state == CLOSED


def test_other_packets_are_not_pongs() -> None:
    session = session_in(CONNECTED)
    session.tick(25.0)
    session.receive('42["a"]', 30.0)
    with pytest.raises(ProtocolError):
        session.tick(45.0)


@given(st.lists(st.floats(0.01, 60.0), max_size=30))
def test_a_client_that_answers_at_once_lives_for_ever(pauses: list[float]) -> None:
    session, now = session_in(CONNECTED), 0.0
    for pause in pauses:
        now += pause
        session.tick(now)
        for packet in session.data_to_send():
            assert packet == engineio.PING
            session.receive("3", now)
        assert session.state == CONNECTED
        assert now < session.deadline <= now + TIMING.ping_interval


# Both ends on a fake wire.


class ClientEnd:
    """The other end: what a client library does with the packets it gets, and the packets it writes."""

    def __init__(self) -> None:
        self.wire: list[str] = []
        self.connected: str | None = None
        self.error: Any = None
        self.events: list[Any] = []
        self.acks: dict[int, Any] = {}

    def emit(self, *data: Any, ack_id: int | None = None) -> None:
        self.wire.append(f"42{'' if ack_id is None else ack_id}{json.dumps(data)}")

    def receive(self, packet: str) -> None:
        if packet == "2":
            self.wire.append("3")
            return
        assert packet[0] == "4", packet
        kind, rest = packet[1], packet[2:]
        digits = len(rest) - len(rest.lstrip("0123456789"))
        data = json.loads(rest[digits:])
        if kind == "0":
            self.connected = data["sid"]
        elif kind == "4":
            self.error = data
        elif kind == "2":
            self.events.append(data)
        else:
            assert kind == "3", packet
            self.acks[int(rest[:digits])] = data


def pump(client: ClientEnd, session: Session, now: float) -> list[Event]:
    """Carry packets to and fro until both ends are silent; what the server's end made of them."""
    events: list[Event] = []
    while True:
        incoming, client.wire = client.wire, []
        for packet in incoming:
            session.receive(packet, now)
        events += session.events()
        outgoing = session.data_to_send()
        for packet in outgoing:
            client.receive(packet)
        if not client.wire and not outgoing:
            return events


def test_a_client_and_the_session_understand_each_other() -> None:
    client, session = ClientEnd(), Session(TIMING, 0.0)
    client.wire.append('40{"token":"bad"}')
    assert pump(client, session, 1.0) == [Connect({"token": "bad"})]
    session.refuse("no", "UNAUTHORIZED")
    pump(client, session, 1.0)
    assert client.error == {"message": "no", "data": {"code": "UNAUTHORIZED"}}

    client.wire.append('40{"token":"good"}')
    assert pump(client, session, 2.0) == [Connect({"token": "good"})]
    session.accept("abc")
    pump(client, session, 2.0)
    assert client.connected == "abc"

    client.emit("realtime:subscribe", {"channel": "ö"}, ack_id=3)
    client.emit("hello")
    assert pump(client, session, 3.0) == [
        Emit("realtime:subscribe", [{"channel": "ö"}], 3),
        Emit("hello", [], None),
    ]

    now = 3.0
    for _ in range(5):
        now = session.deadline
        session.tick(now)
        assert pump(client, session, now) == []
        assert session.deadline == now + TIMING.ping_interval

    client.wire.append("41")
    assert pump(client, session, now) == [Disconnect()]
    assert session.state == OPENED


# Attachments.

PLACE = '{"_placeholder":true,"num":%d}'


def test_a_binary_event_counts_once_its_last_attachment_is_here_and_pongs_may_come_in_between() -> None:
    session = session_in(CONNECTED)
    session.tick(25.0)
    session.receive(f'452-7["a",[{PLACE % 1}],{PLACE % 0}]', 26.0)
    assert session.events() == []
    session.receive(b"x", 27.0)
    session.receive("3", 28.0)
    assert session.deadline == 53.0
    assert session.events() == []
    session.receive(b"y", 29.0)
    assert session.events() == [Emit("a", [[b"y"], b"x"], 7)]
    session.receive('42["b"]', 30.0)
    assert session.events() == [Emit("b", [], None)]


def test_the_size_of_an_event_is_that_of_its_packet_and_its_attachments() -> None:
    session = session_in(CONNECTED)
    session.receive('42["é"]', 1.0)
    session.receive('452-["a"]', 1.0)
    session.receive(b"12345", 1.0)
    session.receive(b"678", 1.0)
    assert [event.size for event in session.events() if isinstance(event, Emit)] == [7, 16]


def test_a_flawed_binary_event_still_waits_for_its_attachments() -> None:
    session = session_in(CONNECTED)
    session.receive(f'451-7["a",{PLACE % 0},1e400]', 1.0)
    assert session.events() == []
    session.receive(b"x", 1.0)
    assert session.events() == [Emit("a", [{}], 7, flaw=FLAW)]


@pytest.mark.parametrize("packet", ['42["a"]', '451-["a"]', "40", "41", "40/admin,", "5", "2"])
def test_where_an_attachment_is_due_nothing_else_may_come(packet: str) -> None:
    session = session_in(CONNECTED)
    session.receive('451-["a"]', 1.0)
    with pytest.raises(ProtocolError):
        session.receive(packet, 1.0)
    assert session.state == CLOSED


def test_a_client_may_give_up_while_an_attachment_is_due() -> None:
    session = session_in(CONNECTED)
    session.receive('451-["a"]', 1.0)
    session.receive("1", 1.0)
    assert session.events() == [Disconnect()]


@pytest.mark.parametrize("state", STATES, ids=lambda state: NAMES[state])
def test_an_attachment_that_nothing_announced_is_refused(state: int) -> None:
    session = session_in(state)
    with pytest.raises(ProtocolError):
        session.receive(b"x", 1.0)
    assert session.state == CLOSED


def test_the_attachments_of_a_packet_are_limited_together_and_those_of_the_next_anew() -> None:
    session = Session(TIMING, 0.0, max_binary=10)
    session.receive("40", 0.0)
    session.accept("sid")
    for _ in range(3):
        session.receive('452-["a"]', 0.0)
        session.receive(b"x" * 6, 0.0)
        session.receive(b"x" * 4, 0.0)
    session.receive('452-["a"]', 0.0)
    session.receive(b"x" * 6, 0.0)
    with pytest.raises(ProtocolError, match="too large"):
        session.receive(b"x" * 5, 0.0)


def test_a_heartbeat_does_not_wait_for_attachments_that_never_come() -> None:
    session = session_in(CONNECTED)
    session.receive('451-["a"]', 1.0)
    session.tick(25.0)
    assert session.data_to_send() == [engineio.PING]
    with pytest.raises(ProtocolError, match="ping timeout"):
        session.tick(45.0)


LIKELY = st.sampled_from(
    ["3", "1", "40", "41", "42", '42["a"]', '427["a",1]', "430[]", '451-["a"]', '452-1["a",' + PLACE % 0 + "]", "461-1[]",
     '450-["a"]', "40/admin", b"", b"x", "2probe", "5"]
)  # fmt: skip


@given(st.lists(LIKELY | st.text() | st.binary() | st.text('0123456/,[]{}":a-', max_size=12).map(lambda r: "4" + r)))
def test_any_sequence_of_packets_is_taken_or_ends_in_one_protocol_error(packets: list[engineio.Packet]) -> None:
    session = Session(TIMING, 0.0, max_binary=100)
    for number, packet in enumerate(packets):
        before = session.state
        try:
            session.receive(packet, float(number))
        except ProtocolError:
            assert session.state == CLOSED
        else:
            assert before != CLOSED
        for event in session.events():
            if isinstance(event, Connect):
                session.accept("sid")
            elif isinstance(event, Emit):
                assert before == CONNECTED
        assert all(packet.startswith("4") for packet in session.data_to_send())
    if session.state == CLOSED:
        with pytest.raises(ProtocolError):
            session.receive("3", 99.0)


ARGUMENTS = st.recursive(
    st.integers(0, 9) | st.text(max_size=3) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def attachments_in(value: object) -> int:
    if isinstance(value, bytes):
        return 1
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(map(attachments_in, inner))


@given(st.lists(st.tuples(st.lists(ARGUMENTS, max_size=3), st.none() | st.integers(0, 99)), max_size=6), st.data())
def test_whatever_another_library_emits_arrives_with_pongs_in_between(
    emits: list[tuple[list[Any], int | None]], data: st.DataObject
) -> None:
    session = session_in(CONNECTED)
    expected = []
    for arguments, number in emits:
        if attachments_in(arguments) > MAX_ATTACHMENTS:
            continue
        expected.append(Emit("a", arguments, number))
        encoded = OtherPacket(2, ["a", *arguments], "/", number).encode()
        first, *attachments = encoded if isinstance(encoded, list) else [encoded]
        for packet in ("4" + first, *attachments):
            if data.draw(st.booleans()):
                session.receive("3", 1.0)
            session.receive(packet, 1.0)
    assert session.events() == expected


@given(st.lists(st.tuples(st.lists(ARGUMENTS, max_size=2), st.integers(0, 99)), min_size=1, max_size=5))
def test_both_ends_understand_each_other_through_the_payloads_of_long_polling(
    emits: list[tuple[list[Any], int]],
) -> None:
    assume(all(attachments_in(arguments) <= MAX_ATTACHMENTS for arguments, _ in emits))
    session, wire = session_in(CONNECTED), []
    for arguments, number in emits:
        encoded = OtherPacket(2, ["a", *arguments], "/", number).encode()
        first, *attachments = encoded if isinstance(encoded, list) else [encoded]
        wire += ["4" + first, *attachments, "3"]
    for packet in engineio.decode_payload(engineio.encode_payload(wire)):
        session.receive(packet, 1.0)
    assert session.events() == [Emit("a", arguments, number) for arguments, number in emits]
