"""Our own frames, held against websockets: its client reads what we write, and we read what its client writes; and whatever
bytes come, we and its server agree on what they are.
"""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.exceptions import PayloadTooBig
from websockets.exceptions import ProtocolError as WebSocketError
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from insforge_realtime.errors import Close, broken_protocol
from insforge_realtime.protocol import frames
from insforge_realtime.protocol.frames import Broken, Event, Goodbye, Ping, Reader, text_frame

LENGTHS = (0, 1, 125, 126, 127, 65535, 65536, 100_000)


def pair(max_size: int | None = None) -> tuple[ClientProtocol, ServerProtocol]:
    """websockets' client and server, after their handshake."""
    client = ClientProtocol(parse_uri("ws://server/"), max_size=None)
    server = ServerProtocol(max_size=max_size)
    client.send_request(client.connect())
    server.receive_data(b"".join(client.data_to_send()))
    (request,) = server.events_received()
    assert isinstance(request, Request)
    server.send_response(server.accept(request))
    client.receive_data(b"".join(server.data_to_send()))
    assert client.state is OPEN
    client.events_received()
    return client, server


def read(data: bytes) -> list[Frame]:
    """The frames that a client sees in these bytes."""
    client, _ = pair()
    client.receive_data(data)
    assert client.parser_exc is None
    frames = client.events_received()
    assert all(isinstance(frame, Frame) for frame in frames)
    return [frame for frame in frames if isinstance(frame, Frame)]


def masked(
    opcode: int, payload: bytes = b"", *, final: bool = True, mask: bytes = b"\x01\x02\x03\x04", bits: int = 0
) -> bytes:
    """A client's frame, also one that no client should send."""
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    else:
        length = b"\xfe" + size.to_bytes(2, "big") if size < 65536 else b"\xff" + size.to_bytes(8, "big")
    body = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
    return bytes([(0x80 if final else 0) | bits | opcode]) + length + mask + body


def received(*chunks: bytes, max_size: int | None = None) -> list[Event]:
    """What a reader makes of chunks, up to the end of the stream."""
    reader, events = Reader(max_size), []
    for chunk in chunks:
        events += reader.receive(chunk)
        if reader.postponed:
            reader.postponed = False
            events += reader.receive(b"")
        if events and isinstance(events[-1], Goodbye | Broken):
            break
    return events


def broken(*chunks: bytes, max_size: int | None = None) -> int:
    """The close code that these bytes, which break something, lead to."""
    last = received(*chunks, max_size=max_size)[-1]
    assert isinstance(last, Broken)
    assert last.end.reason
    return last.end.code


def split(data: bytes, places: list[int]) -> list[bytes]:
    """Cut into pieces, some of them empty perhaps."""
    cuts = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(cuts)]


# What we write.


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


@pytest.mark.parametrize("payload", [b"", b"x", b"x" * 125])
def test_a_client_reads_a_pong(payload: bytes) -> None:
    (frame,) = read(frames.control_frame(frames.PONG, payload))
    assert (frame.opcode, frame.fin, bytes(frame.data)) == (Opcode.PONG, True, payload)


@given(st.sampled_from((1000, 1002, 1007, 1008, 1009, 1012)), st.text(max_size=200))
def test_a_client_reads_a_goodbye_whose_reason_is_cut_where_it_is_too_long(code: int, reason: str) -> None:
    client, _ = pair()
    client.receive_data(frames.control_frame(frames.CLOSE, frames.goodbye_payload(Close(code, reason))))
    assert client.close_rcvd is not None
    assert client.close_rcvd.code == code
    assert reason.startswith(client.close_rcvd.reason)
    assert len(reason.encode()) - len(client.close_rcvd.reason.encode()) < 4 or len(reason.encode()) > 123


# What we read.


@pytest.mark.parametrize("length", LENGTHS)
def test_a_payload_of_any_length_is_read(length: int) -> None:
    client, _ = pair()
    client.send_text(b"x" * length)
    client.send_binary(b"y" * length)
    assert received(*client.data_to_send()) == ["x" * length, b"y" * length]


def test_a_long_frame_is_read_from_many_pieces() -> None:
    data = masked(frames.TEXT, b"x" * 1_000_000) + masked(frames.TEXT, b"y")
    assert received(*(data[at : at + 1000] for at in range(0, len(data), 1000))) == ["x" * 1_000_000, "y"]


MESSAGES = st.one_of(st.text(max_size=300), st.binary(max_size=300), st.builds(Ping, st.binary(max_size=125)))


@given(st.data(), st.lists(MESSAGES, max_size=6), st.lists(st.integers(0, 5000), max_size=12))
def test_what_a_client_sends_is_read_whatever_its_fragments_and_however_the_bytes_are_cut(
    data: st.DataObject, messages: list[str | bytes | Ping], places: list[int]
) -> None:
    """Between the fragments, the client sends pings of its own."""
    client, _ = pair()
    expected: list[Event] = []
    for message in messages:
        if isinstance(message, Ping):
            client.send_ping(message.payload)
        else:
            payload = message.encode() if isinstance(message, str) else message
            parts = split(payload, data.draw(st.lists(st.integers(0, 300), max_size=3)))
            for number, part in enumerate(parts):
                final = number == len(parts) - 1
                if number:
                    client.send_continuation(part, final)
                elif isinstance(message, str):
                    client.send_text(part, final)
                else:
                    client.send_binary(part, final)
                if not final and data.draw(st.booleans()):
                    client.send_ping(b"between")
                    client.send_pong(b"unasked")
                    expected.append(Ping(b"between"))
        expected.append(message)
    client.send_close(1000, "bye")
    stream = b"".join(client.data_to_send())
    assert received(*split(stream, places)) == [*expected, Goodbye(b"\x03\xe8bye")]


@given(st.lists(st.integers(0, 80), max_size=80))
def test_every_cut_of_one_stream_is_read_alike(places: list[int]) -> None:
    stream = (
        masked(1, "a€".encode())
        + masked(1, b"b", final=False)
        + masked(9, b"p")
        + masked(0, b"c")
        + masked(2, b"d" * 200)
    )
    assert received(*split(stream, places)) == ["a€", Ping(b"p"), "bc", b"d" * 200]


def test_a_character_may_be_cut_by_fragments() -> None:
    first, second = "€".encode()[:1], "€".encode()[1:]
    assert received(masked(1, first, final=False), masked(0, second)) == ["€"]


def test_nothing_is_read_after_a_goodbye() -> None:
    assert received(masked(frames.CLOSE) + masked(frames.TEXT, b"x")) == [Goodbye(b"")]


def test_what_comes_before_the_breach_is_read() -> None:
    assert received(masked(frames.TEXT, b"x") + b"\x83\x80") == ["x", Broken(broken_protocol("reserved opcode"))]


WRONG = {
    "reserved opcode": b"\x83\x80",
    "reserved control opcode": b"\x8b\x80",
    "reserved bit 1": masked(1, b"x", bits=0x40),
    "reserved bit 2": masked(1, b"x", bits=0x20),
    "reserved bit 3": masked(9, b"x", bits=0x10),
    "unmasked": text_frame(b"x"),
    "fragmented ping": b"\x09\x80\0\0\0\0",
    "fragmented close": b"\x08\x80\0\0\0\0",
    "long ping": b"\x89\xfe\0\x7e",
    "long close": b"\x88\xff",
    "continuation of nothing": masked(0, b"x"),
    "second continuation": masked(1, b"a", final=False) + masked(0, b"b") + masked(0, b"c"),
    "message in a message": masked(1, b"a", final=False) + masked(1, b"b"),
    "binary in a text": masked(1, b"a", final=False) + masked(2, b"b", final=False),
    "close of one byte": masked(8, b"x"),
    "64 bits of length": b"\x81\xff" + b"\xff" * 8,
    **{
        f"close code {code}": masked(8, code.to_bytes(2, "big"))
        for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000)
    },
}


@pytest.mark.parametrize("name", WRONG)
def test_who_breaks_the_rfc_is_told_1002(name: str) -> None:
    assert broken(WRONG[name]) == 1002
    assert broken(*(bytes([byte]) for byte in WRONG[name])) == 1002


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1014, 3000, 4999])
def test_these_close_codes_are_good(code: int) -> None:
    payload = code.to_bytes(2, "big") + "für".encode()
    assert received(masked(8, payload)) == [Goodbye(payload)]


@pytest.mark.parametrize(
    "data",
    [
        masked(1, b"\xc3\x28"),
        masked(1, b"\xe2\x82"),
        masked(1, b"\xed\xa0\x80"),
        masked(1, b"\xe2", final=False) + masked(0, b"\x28"),
        masked(8, b"\x03\xe8\xff"),
    ],
)
def test_invalid_utf_8_is_told_1007(data: bytes) -> None:
    assert broken(data) == 1007


def test_what_is_too_big_is_told_1009_before_it_has_come() -> None:
    assert received(masked(2, b"x" * 100), max_size=100) == [b"x" * 100]
    assert broken(masked(2, b"x" * 101)[:2], max_size=100) == 1009
    assert broken(b"\x81\xff" + (2**63 - 1).to_bytes(8, "big"), max_size=100) == 1009
    fragments = [masked(2, b"x" * 60, final=False), masked(0, b"x" * 60)[:2]]
    assert broken(*fragments, max_size=100) == 1009
    assert received(masked(9, b"x" * 101), max_size=100) == [Ping(b"x" * 101)]  # not part of a message


def theirs(data: bytes) -> tuple[list[object], int | None]:
    """What websockets' server makes of a stream: messages and pings, and the code of the failure, if there is one."""
    _, server = pair()
    server.receive_data(data)
    events: list[object] = []
    whole, text = b"", False
    for frame in server.events_received():
        assert isinstance(frame, Frame)
        if frame.opcode is Opcode.PING:
            events.append(Ping(bytes(frame.data)))
        elif frame.opcode is Opcode.CLOSE:
            events.append(Goodbye(bytes(frame.data)))
        elif frame.opcode is not Opcode.PONG:
            if frame.opcode is not Opcode.CONT:
                whole, text = b"", frame.opcode is Opcode.TEXT
            whole += bytes(frame.data)
            if frame.fin:
                try:
                    events.append(whole.decode() if text else whole)
                except UnicodeDecodeError:
                    return events, 1007
    match server.parser_exc:
        case None:
            return events, None
        case WebSocketError():
            return events, 1002
        case UnicodeDecodeError():
            return events, 1007
        case PayloadTooBig():
            return events, 1009
        case other:
            raise other


WHOLE_FRAMES = st.builds(
    masked,
    st.sampled_from([0, 1, 1, 2, 8, 9, 10, 3, 11]),
    st.one_of(st.binary(max_size=130), st.text(max_size=60).map(str.encode)),
    final=st.booleans(),
    mask=st.binary(min_size=4, max_size=4),
    bits=st.sampled_from((0, 0, 0, 0, 0, 0x40, 0x20)),
)


def is_left_in_the_middle(events: list[Event], data: bytes) -> bool:
    """websockets calls a goodbye between the fragments of a message a breach. The RFC does not."""
    return bool(events) and isinstance(events[-1], Goodbye) and theirs(data)[1] == 1002


@given(st.lists(WHOLE_FRAMES, max_size=8), st.lists(st.integers(0, 2000), max_size=5))
def test_websockets_would_have_read_the_same(whole: list[bytes], places: list[int]) -> None:
    stream = b"".join(whole)
    ours = received(*split(stream, places))
    if is_left_in_the_middle(ours, stream):
        return
    last = ours[-1] if ours else None
    code = last.end.code if isinstance(last, Broken) else None
    assert ([event for event in ours if not isinstance(event, Broken)], code) == theirs(stream)


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_any_bytes_at_all_are_events_and_nothing_is_raised(chunks: list[bytes]) -> None:
    for event in received(*chunks, max_size=1000):
        assert isinstance(event, str | bytes | Ping | Goodbye | Broken)


def test_a_message_that_comes_in_one_piece_with_what_raises_the_limit_is_judged_by_the_new_one() -> None:
    reader = Reader(5)
    assert reader.receive(masked(frames.TEXT, b"small") + masked(frames.TEXT, b"much larger")) == ["small"]
    assert reader.postponed
    reader.max_size = 20
    assert reader.receive(b"") == ["much larger"]
