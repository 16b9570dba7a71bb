"""The Engine.IO packets that this server writes."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from insforge_realtime.protocol import engineio


@given(
    sid=st.text(),
    upgrades=st.lists(st.text(), max_size=2),
    interval=st.floats(0.001, 1e6),
    timeout=st.floats(0.001, 1e6),
    limit=st.integers(0, 2**53 - 1),
)
def test_the_open_packet_says_what_it_was_given(
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
