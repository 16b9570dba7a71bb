"""The change of transports, as the new WebSocket sees it: every packet in every state."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insforge_realtime.errors import ProtocolError
from insforge_realtime.protocol import engineio
from insforge_realtime.protocol.upgrade import ASKED, DONE, PROBED, Upgrade

STATES = (ASKED, PROBED, DONE)
NAMES = {ASKED: "asked", PROBED: "probed", DONE: "done"}

# What each packet does in each state, as (the next state, the answer); what is not listed is refused.
TABLE: dict[str | bytes, dict[int, tuple[int, str | None]]] = {
    "2probe": {ASKED: (PROBED, "3probe")},
    "5": {PROBED: (DONE, None)},
    "": {}, "0": {}, "1": {}, "2": {}, "2prob": {}, "2probes": {}, "2PROBE": {}, "2probe ": {}, "3": {}, "3probe": {},
    "4": {}, "40": {}, '42["a"]': {}, "5 ": {}, "5probe": {}, "6": {}, "7": {}, "x": {}, "\ud800": {}, "٥": {},
    b"": {}, b"5": {}, b"2probe": {}, b"\0": {},
}  # fmt: skip


def upgrade_in(state: int) -> Upgrade:
    upgrade = Upgrade()
    for packet in ("2probe", "5")[:state]:
        upgrade.receive(packet)
    assert upgrade.state == state
    return upgrade


@pytest.mark.parametrize("state", STATES, ids=lambda state: NAMES[state])
@pytest.mark.parametrize("packet", TABLE, ids=ascii)
def test_every_packet_in_every_state_does_what_the_table_says(packet: engineio.Packet, state: int) -> None:
    upgrade = upgrade_in(state)
    expected = TABLE[packet].get(state)
    if expected is None:
        with pytest.raises(ProtocolError):
            upgrade.receive(packet)
        assert upgrade.state == state
    else:
        answer = upgrade.receive(packet)
        assert (upgrade.state, answer) == expected


@given(st.lists(st.text() | st.binary() | st.sampled_from(["2probe", "5"]), max_size=5))
def test_any_packets_are_the_two_of_an_upgrade_or_a_protocol_error(packets: list[engineio.Packet]) -> None:
    upgrade, taken = Upgrade(), []
    for packet in packets:
        try:
            upgrade.receive(packet)
        except ProtocolError:
            continue
        taken.append(packet)
    assert taken == ["2probe", "5"][: len(taken)]
    assert upgrade.state == len(taken)
