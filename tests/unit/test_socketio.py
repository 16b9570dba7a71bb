"""Socket.IO packets: whatever a client library writes is read, and nothing else gets past."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from socketio.packet import Packet as OtherPacket

from insforge_realtime.errors import ProtocolError
from insforge_realtime.protocol import socketio
from insforge_realtime.protocol.socketio import Packet, decode

# What JSON can carry through orjson unchanged: integers of 64 bits, finite floats.
SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
JSON = st.recursive(
    SCALARS | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)
NAMES = st.text().filter(lambda name: name not in socketio.RESERVED_EVENTS)
NAMESPACES = st.text("abcxyz-_?=/", min_size=1, max_size=9).map(lambda rest: "/" + rest)
ACK_IDS = st.integers(0, 10**socketio.ACK_ID_DIGITS - 1)


def written_by_a_client(packet: Packet) -> str:
    """The packet as the client libraries write it."""
    namespace = "" if packet.namespace == "/" else f"{packet.namespace},"
    number = "" if packet.id is None else str(packet.id)
    data = "" if packet.data is None else json.dumps(packet.data, separators=(",", ":"))
    return f"{packet.type}{namespace}{number}{data}"


def read_by_a_client(text: str) -> tuple[int, str, int | None, Any]:
    """Type, namespace, ack id and data of one of our packets, by the rules of the protocol's text."""
    kind, rest = int(text[0]), text[1:]
    namespace = "/"
    if rest.startswith("/"):
        namespace, _, rest = rest.partition(",")
    digits = len(rest) - len(rest.lstrip("0123456789"))
    number = int(rest[:digits]) if digits else None
    return kind, namespace, number, json.loads(rest[digits:]) if rest[digits:] else None


PACKETS = st.one_of(
    st.builds(
        Packet, st.just(socketio.CONNECT), st.none() | st.dictionaries(st.text(), JSON), NAMESPACES | st.just("/")
    ),
    st.builds(Packet, st.just(socketio.DISCONNECT), st.none(), NAMESPACES | st.just("/")),
    st.builds(
        Packet,
        st.just(socketio.EVENT),
        st.builds(lambda name, rest: [name, *rest], NAMES | st.integers(0, 10**9), st.lists(JSON, max_size=3)),
        NAMESPACES | st.just("/"),
        st.none() | ACK_IDS,
    ),
    st.builds(Packet, st.just(socketio.ACK), st.lists(JSON, max_size=3), NAMESPACES | st.just("/"), ACK_IDS),
)


@given(PACKETS)
def test_every_valid_packet_of_a_client_is_read_as_it_was_meant(packet: Packet) -> None:
    assert decode(written_by_a_client(packet)) == packet


def decodes_or_is_refused(text: str) -> None:
    try:
        packet = decode(text)
    except ProtocolError:
        return
    assert packet.type in (0, 1, 2, 3, 5, 6)
    assert 0 <= packet.attachments <= socketio.MAX_ATTACHMENTS
    assert packet.namespace.startswith("/")
    if packet.type in (socketio.EVENT, socketio.BINARY_EVENT):
        name = packet.data[0]
        assert isinstance(name, str | int | float)
        assert not isinstance(name, bool)
        assert name not in socketio.RESERVED_EVENTS
    elif packet.type == socketio.CONNECT:
        assert packet.data is None or isinstance(packet.data, dict)


@given(st.text(st.characters()))
@example("2[\ud800]")
@example("2٣[]")
@example("²[]")
@example('2["\\ud800"]')
@example("2[1e999]")
def test_any_text_at_all_decodes_or_is_a_protocol_error(text: str) -> None:
    decodes_or_is_refused(text)


@given(st.text('0123456789-/,[]{}":\\ \x00atruefalsn', max_size=40))
def test_any_text_that_looks_like_a_packet_decodes_or_is_a_protocol_error(text: str) -> None:
    decodes_or_is_refused(text)


@given(PACKETS, st.data())
def test_a_damaged_packet_decodes_or_is_a_protocol_error(packet: Packet, data: st.DataObject) -> None:
    text = written_by_a_client(packet)
    at = data.draw(st.integers(0, len(text)))
    decodes_or_is_refused(text[:at] + data.draw(st.text(max_size=2)) + text[at + data.draw(st.integers(0, 3)) :])


@pytest.mark.parametrize(
    "text",
    [
        "", "7", "x", "٠", "4{}", '5["a"]', '5-["a"]', '511-["a"]', '5٣-["a"]', '51["a"]', "51-", "51-{}", '61-["a"]',
        "6" + "1" * 20 + "-1[]", '51-["connect"]', '51-[{"_placeholder":true,"num":0}]',
        "0[]", "0true", '0"token"', "0{", '0{"a":1}x',
        "1{}", "1[]", "10[]",
        "2", "2{}", "2[]", "2null", "2[true]", "2[false]", "2[null]", "2[[]]", "2[{}]", '2["a"', '2["a"]]', '2-["a"]',
        '2["connect"]', '2["disconnect"]', '2["connect_error"]', '2["newListener"]', '2["removeListener"]',
        '2["disconnecting"]', "2" + "1" * 30 + '["a"]', '2 1["a"]', '2+1["a"]', "2/chat", '2/chat["a"]',
        "2[" * 2000, "2" + "[" * 2000,
        '2["a",NaN]', '2["a",Infinity]', '2["a",-Infinity]', '2["a",01e400]', '2["a",1e400', '2["\\ud800]', '2["\x00"]',
        '2["connect",1e400]', '2[[1e400]]', "21e400", "11e400", "3[1e400]",
        '51-["connect",1e400]', '2["a",\'b\']', '2["a"],', '2["a",]',
        "3[]", "31", "31{}", "31null", "3-1[]",
    ],
)  # fmt: skip
def test_malformed_packets_are_refused(text: str) -> None:
    with pytest.raises(ProtocolError):
        decode(text)


TOO_BIG = ["1e400", "-1e400", "9" * 400, "-" + "9" * 5000, "1.7976931348623159e308", "1e" + "9" * 5000]
HALVES = [r'"\ud800"', r'"\udc00"', r'"\ud800\ud800"', r'"\udc00\ud800"', r'{"\ud800":1}', r'"\\\ud83d"']
DEEP = ["[" * 2000 + "]" * 2000, '{"a":' * 2000 + "1" + "}" * 2000]


@pytest.mark.parametrize("value", TOO_BIG + HALVES + DEEP, ids=lambda value: str(value[:12]))
@pytest.mark.parametrize(
    "place", ["%s", "[%s,%s]", '{"channel":"c","payload":{"x":%s}}', '{"payload":{"x":%s},"channel":"c"}']
)
def test_json_that_we_cannot_hold_is_a_flawed_packet_and_no_breach(place: str, value: str) -> None:
    argument = place.replace("%s", value)
    for header in ("2", "20", "51-7", "2/a,3"):
        packet = decode(f'{header}["a",{argument}]')
        assert packet.flaw == socketio.FLAW
        assert packet.data[0] == "a"
        assert packet.payload is None
    assert decode(f'0{{"token":{argument}}}').flaw == socketio.FLAW
    assert decode(f"31[{argument}]").flaw == socketio.FLAW
    assert (decode(f'271["a",{argument}]').id, decode(f'52-["a",{argument}]').attachments) == (71, 2)


def test_of_a_flawed_packet_what_is_plain_is_known() -> None:
    packet = decode(r'2["a\ud800",{"channel":"c","event":"\ud800","payload":{"n":1},"n":1e400},{"channel":"d"}]')
    assert packet.data == [r"a\ud800", {"channel": "c"}]
    assert decode("2[1e400]").data == [float("inf")]
    assert decode(r'2["\ud83d\ude00",1e400]').data == ["\U0001f600", {}]


@given(JSON, st.data())
def test_only_what_the_grammar_allows_is_flawed(value: Any, data: st.DataObject) -> None:
    """The standard library's parser is the judge: with a number beyond us in it, JSON is JSON and garbage is garbage."""
    text = json.dumps(["a", value, float("inf")]).replace("Infinity", "1e400")
    at = data.draw(st.integers(1, len(text)))
    damaged = text[:at] + data.draw(st.text('0123456789-+.eE/,[]{}":\\ \x00atru', max_size=2)) + text[at:]
    try:
        judged = json.loads(damaged, parse_constant=int)
    except ValueError:
        with pytest.raises(ProtocolError):
            decode("2" + damaged)
    else:
        if isinstance(judged[0], str | float | int) and not isinstance(judged[0], bool):
            assume(judged[0] not in socketio.RESERVED_EVENTS)
            assert decode("2" + damaged).flaw or json.dumps(judged, allow_nan=False)


@given(JSON | st.text())
def test_the_size_of_a_packet_is_that_of_its_bytes(value: Any) -> None:
    text = "2" + json.dumps(["a", value], ensure_ascii=False)
    assert decode(text).size == len(text.encode())


@pytest.mark.parametrize(
    ("text", "packet"),
    [
        ("0", Packet(socketio.CONNECT)),
        ('0{"token":"t"}', Packet(socketio.CONNECT, {"token": "t"})),
        ("0/admin", Packet(socketio.CONNECT, None, "/admin")),
        ('0/admin,{"a":1}', Packet(socketio.CONNECT, {"a": 1}, "/admin")),
        ("0/admin?token=1,", Packet(socketio.CONNECT, None, "/admin?token=1")),
        ("0null", Packet(socketio.CONNECT)),
        ("0/,", Packet(socketio.CONNECT)),
        ("1", Packet(socketio.DISCONNECT)),
        ('2["a"]', Packet(socketio.EVENT, ["a"])),
        ('2["__proto__"]', Packet(socketio.EVENT, ["__proto__"])),
        ('20["a"]', Packet(socketio.EVENT, ["a"], id=0)),
        ('2999999999999999["a"]', Packet(socketio.EVENT, ["a"], id=999_999_999_999_999)),
        ('2/admin,13["hello",{"a":1}]', Packet(socketio.EVENT, ["hello", {"a": 1}], "/admin", 13)),
        ("2[7]", Packet(socketio.EVENT, [7])),
        ("2[1.5]", Packet(socketio.EVENT, [1.5])),
        ('2["\\u0000"]', Packet(socketio.EVENT, ["\0"])),
        ("35[]", Packet(socketio.ACK, [], id=5)),
    ],
)
def test_the_forms_of_the_protocol_are_read(text: str, packet: Packet) -> None:
    assert decode(text) == packet


@given(NAMES, st.lists(JSON, max_size=3))
def test_an_event_of_ours_is_what_the_client_gets(name: str, data: list[Any]) -> None:
    text = socketio.event_packet(socketio.event(name, *data))
    assert read_by_a_client(text) == (socketio.EVENT, "/", None, [name, *data])


@given(ACK_IDS, st.lists(JSON, max_size=3))
def test_an_ack_of_ours_is_what_the_client_gets(number: int, data: list[Any]) -> None:
    assert read_by_a_client(socketio.ack_packet(number, *data)) == (socketio.ACK, "/", number, data)


def test_connect_and_connect_error_are_what_the_client_gets() -> None:
    assert read_by_a_client(socketio.connect_packet("abc")) == (socketio.CONNECT, "/", None, {"sid": "abc"})
    assert read_by_a_client(socketio.connect_error_packet("no", {"code": "X"})) == (
        socketio.CONNECT_ERROR, "/", None, {"message": "no", "data": {"code": "X"}},
    )  # fmt: skip
    assert socketio.connect_error_packet("Invalid namespace", namespace="/a") == '4/a,{"message":"Invalid namespace"}'


def test_an_ack_id_comes_back_as_the_same_javascript_number() -> None:
    assert 10**socketio.ACK_ID_DIGITS <= 2**53


# Binary packets, with python-socketio as the other end.

BINARY = st.recursive(
    SCALARS | st.text() | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def with_attachments(text: str, attachments: list[bytes]) -> Packet:
    packet = decode(text)
    socketio.attach(packet, attachments)
    return packet


def attachments_of(data: Any) -> list[bytes]:
    if isinstance(data, bytes):
        return [data]
    inner = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    return [found for value in inner for found in attachments_of(value)]


@given(st.lists(BINARY, max_size=3), st.none() | ACK_IDS)
def test_what_another_library_sends_with_attachments_is_read_as_it_was_meant(
    data: list[Any], number: int | None
) -> None:
    assume(0 < len(attachments_of(data)) <= socketio.MAX_ATTACHMENTS)
    encoded = OtherPacket(2, ["a", *data], "/", number).encode()
    assert isinstance(encoded, list)
    text, *attachments = encoded
    assert decode(text).attachments == len(attachments)
    assert with_attachments(text, attachments) == Packet(
        socketio.BINARY_EVENT, ["a", *data], id=number, attachments=len(attachments)
    )


@given(st.lists(BINARY, max_size=3), ACK_IDS)
def test_an_ack_of_another_library_with_attachments_is_read_as_it_was_meant(data: list[Any], number: int) -> None:
    assume(0 < len(attachments_of(data)) <= socketio.MAX_ATTACHMENTS)
    encoded = OtherPacket(3, data, "/", number).encode()
    assert isinstance(encoded, list)
    text, *attachments = encoded
    assert with_attachments(text, attachments).data == data


@given(NAMES, st.lists(JSON, max_size=3))
def test_another_library_reads_our_events(name: str, data: list[Any]) -> None:
    packet = OtherPacket(encoded_packet=socketio.event_packet(socketio.event(name, *data)))
    assert (packet.packet_type, packet.data, packet.id) == (socketio.EVENT, [name, *data], None)


@given(ACK_IDS, JSON)
def test_another_library_reads_our_acks_and_refusals(number: int, data: Any) -> None:
    packet = OtherPacket(encoded_packet=socketio.ack_packet(number, data))
    assert (packet.packet_type, packet.data, packet.id) == (socketio.ACK, [data], number)
    packet = OtherPacket(encoded_packet=socketio.connect_error_packet("no", {"code": "X"}, namespace="/admin"))
    assert (packet.packet_type, packet.namespace) == (socketio.CONNECT_ERROR, "/admin")
    assert packet.data == {"message": "no", "data": {"code": "X"}}


@pytest.mark.parametrize(
    "number", ["1", "-1", "0.0", '"0"', "true", "false", "null", "[0]", "{}", "1e300", "18446744073709551615"]
)
@pytest.mark.parametrize("place", ["%s", "[%s]", '{"a":[{"b":%s}]}'])
def test_a_placeholder_for_what_was_not_announced_is_refused(place: str, number: str) -> None:
    packet = decode('51-["a",' + place % f'{{"_placeholder":true,"num":{number}}}' + "]")
    with pytest.raises(ProtocolError, match="placeholder"):
        socketio.attach(packet, [b"x"])


@pytest.mark.parametrize("text", ['{"_placeholder":1,"num":0}', '{"_placeholder":"true","num":0}', '{"num":0}'])
def test_what_only_looks_like_a_placeholder_stays_as_it_is(text: str) -> None:
    assert with_attachments(f'51-["a",{text}]', [b"x"]).data == ["a", json.loads(text)]


def test_an_attachment_may_have_many_places_or_none() -> None:
    place = '{"_placeholder":true,"num":0}'
    assert with_attachments(f'52-["a",{place},[{place}]]', [b"x", b"y"]).data == ["a", b"x", [b"x"]]


def test_how_deep_a_client_nests_is_not_a_matter_of_recursion() -> None:
    depth = 1000  # orjson reads up to 1024
    packet = decode('51-["a",' + "[" * depth + '{"_placeholder":true,"num":0}' + "]" * depth + "]")
    socketio.attach(packet, [b"x"])
    value = packet.data[1]
    for _ in range(depth):
        (value,) = value
    assert value == b"x"
