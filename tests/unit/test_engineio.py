"""Engine.IO: the packets that this server writes, and the payloads of long-polling, both ways."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from insforge_realtime.errors import ProtocolError
from insforge_realtime.protocol import engineio


@given(
    sid=st.text(),
    upgrades=st.lists(st.text(), max_size=2),
    interval=st.floats(0.001, 1e6),
    timeout=st.floats(0.001, 1e6),
    limit=st.integers(0, 2**53 - 1),
)
def test_the_open_packet_has_what_it_was_given(
    sid: str, upgrades: list[str], interval: float, timeout: float, limit: int
) -> None:
    packet = engineio.open_packet(
        sid, upgrades=upgrades, ping_interval=interval, ping_timeout=timeout, max_payload=limit
    )
    assert packet[0] == engineio.OPEN
    handshake = json.loads(packet[1:])
    assert handshake == {
        "sid": sid,
        "upgrades": upgrades,
        "pingInterval": round(interval * 1000),
        "pingTimeout": round(timeout * 1000),
        "maxPayload": limit,
    }


def test_times_go_over_the_wire_in_whole_milliseconds() -> None:
    packet = engineio.open_packet("s", upgrades=[], ping_interval=0.0256, ping_timeout=20, max_payload=1)
    assert '"pingInterval":26,' in packet
    assert '"pingTimeout":20000,' in packet


def test_the_packet_types_are_those_of_the_protocol() -> None:
    types = (
        engineio.OPEN, engineio.CLOSE, engineio.PING, engineio.PONG, engineio.MESSAGE, engineio.UPGRADE, engineio.NOOP,
    )  # fmt: skip
    assert types == ("0", "1", "2", "3", "4", "5", "6")
    assert engineio.REVISION == "4"


# Payloads.

TEXTS = st.text(st.characters(exclude_characters=engineio.SEPARATOR)).filter(lambda text: not text.startswith("b"))
PACKETS = st.lists(TEXTS | st.binary(max_size=100), min_size=1, max_size=8)


@given(PACKETS)
@example([b""])
@example(["", ""])
def test_a_payload_is_read_as_it_was_written(packets: list[engineio.Packet]) -> None:
    assert list(engineio.decode_payload(engineio.encode_payload(packets))) == packets


@given(PACKETS)
def test_the_packets_of_a_payload_are_those_between_the_separators(packets: list[engineio.Packet]) -> None:
    parts = engineio.encode_payload(packets).split("\x1e")
    assert len(parts) == len(packets)
    for part, packet in zip(parts, packets, strict=True):
        assert part == packet if isinstance(packet, str) else base64.b64decode(part[1:]) == packet


@given(st.text(st.characters()) | st.text("\x1eb4A=\n -_é", max_size=20))
def test_any_text_decodes_to_packets_or_is_a_protocol_error(text: str) -> None:
    try:
        packets = list(engineio.decode_payload(text))
    except ProtocolError:
        return
    assert len(packets) == text.count("\x1e") + 1
    assert all(
        isinstance(packet, bytes) == part.startswith("b")
        for packet, part in zip(packets, text.split("\x1e"), strict=True)
    )


@pytest.mark.parametrize(
    ("text", "packets"),
    [
        ("", [""]),
        ("\x1e", ["", ""]),
        ("4a", ["4a"]),
        ("4a\x1e", ["4a", ""]),
        ("4hello\x1e2\x1e4world", ["4hello", "2", "4world"]),
        ("4hello\x1ebAQIDBA==", ["4hello", b"\1\2\3\4"]),
        ("b", [b""]),
    ],
    ids=ascii,
)
def test_the_forms_of_the_protocol_are_read(text: str, packets: list[engineio.Packet]) -> None:
    assert list(engineio.decode_payload(text)) == packets


@pytest.mark.parametrize(
    "text", ["bA", "bAQ", "bAQI", "bAQ==x", "b AQID", "bAQID\n", "bAQ-_", "b====", "bé", "b\ud800"], ids=ascii
)
def test_base64_that_is_none_is_refused_once_what_comes_before_it_has_been_handed_out(text: str) -> None:
    packets = engineio.decode_payload("3\x1e" + text + "\x1e4")
    assert next(packets) == "3"
    with pytest.raises(ProtocolError, match="base64"):
        next(packets)
