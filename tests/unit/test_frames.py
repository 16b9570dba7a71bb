"""Our own frame writer, read back by websockets' client."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from insforge_realtime.protocol.frames import text_frame

LENGTHS = (0, 1, 125, 126, 127, 65535, 65536, 100_000)


def read(data: bytes) -> list[Frame]:
    """The frames that a client sees in these bytes."""
    client, server = ClientProtocol(parse_uri("ws://server/"), max_size=None), ServerProtocol()
    client.send_request(client.connect())
    server.receive_data(b"".join(client.data_to_send()))
    (request,) = server.events_received()
    assert isinstance(request, Request)
    server.send_response(server.accept(request))
    client.receive_data(b"".join(server.data_to_send()))
    assert client.state is OPEN
    client.events_received()

    client.receive_data(data)
    assert client.parser_exc is None
    frames = client.events_received()
    assert all(isinstance(frame, Frame) for frame in frames)
    return [frame for frame in frames if isinstance(frame, Frame)]


@pytest.mark.parametrize("length", LENGTHS)
def test_a_client_reads_a_payload_of_any_length(length: int) -> None:
    payload = b"x" * length
    (frame,) = read(text_frame(payload))
    assert (frame.opcode, frame.fin, bytes(frame.data)) == (Opcode.TEXT, True, payload)
    assert (frame.rsv1, frame.rsv2, frame.rsv3) == (False, False, False)


@pytest.mark.parametrize("length", LENGTHS)
def test_it_writes_the_bytes_that_websockets_would(length: int) -> None:
    payload = b"y" * length
    assert text_frame(payload) == Frame(Opcode.TEXT, payload).serialize(mask=False)


@given(st.lists(st.text(max_size=200)))
def test_joined_frames_are_read_one_by_one(texts: list[str]) -> None:
    frames = read(b"".join([text_frame(text.encode()) for text in texts]))
    assert [bytes(frame.data).decode() for frame in frames] == texts
