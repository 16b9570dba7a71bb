"""One function for each reader of what strangers send. Each takes bytes; it raises where the reader breaks a promise:

- whatever comes, the answer is a value or the reader's own error, and no other exception
- the answer does not depend on how the network cut the bytes into pieces
- what was read can be written, and reads the same again, where there is a writer
- no more is kept of a client's bytes than the limits allow

The first byte of an input chooses where it is cut, so that the fuzzer can steer that, too.
"""

from __future__ import annotations

from collections.abc import Callable

from fuzz.listener import listener
from insforge_realtime.errors import ProtocolError
from insforge_realtime.protocol import engineio, frames, handshake, socketio
from insforge_realtime.protocol.session import CLOSED, Connect, Session, Timing

MAX_MESSAGE = 256
"""Small, so that input soon reaches it."""
CLOCK = 0.0


def frame_reader(data: bytes) -> None:
    """WebSocket frames: the same events in one piece as in several."""
    whole, pieces = frames.Reader(MAX_MESSAGE), frames.Reader(MAX_MESSAGE)
    size, stream = _cut(data)
    events = _events(whole, stream)
    found: list[frames.Event] = []
    for start in range(0, len(stream), size):
        if found and isinstance(found[-1], frames.Goodbye | frames.Broken):
            break
        found += _events(pieces, stream[start : start + size])
    assert found == events
    for event in events:
        assert not isinstance(event, str | bytes) or len(event) <= MAX_MESSAGE


def _events(reader: frames.Reader, data: bytes) -> list[frames.Event]:
    events = reader.receive(data)
    if reader.postponed:
        reader.postponed = False
        events += reader.receive(b"")
    return events


def handshake_request(data: bytes) -> None:
    """The opening handshake: read whole or not at all, and answered in one well-formed head."""
    asking = handshake.read(data)
    if asking is None:
        return
    request, rest = asking
    assert data.endswith(rest)
    try:
        answer = handshake.accept(request)
    except ProtocolError:
        return
    head, end, body = answer.partition(b"\r\n\r\n")
    assert (end, body) == (b"\r\n\r\n", b"")
    assert all(b": " in line for line in head.split(b"\r\n")[1:])


def polling_payload(data: bytes) -> None:
    """A body of long-polling: packets that can be written, and read the same again."""
    try:
        packets = list(engineio.decode_payload(data.decode()))
    except (ProtocolError, UnicodeDecodeError):
        return
    assert list(engineio.decode_payload(engineio.encode_payload(packets))) == packets


def socketio_packet(data: bytes) -> None:
    """One packet: valid in itself, or refused."""
    try:
        packet = socketio.decode(data.decode())
    except (ProtocolError, UnicodeDecodeError):
        return
    assert 0 <= packet.attachments <= socketio.MAX_ATTACHMENTS
    assert packet.size == len(data)
    assert packet.id is None or packet.id < 10**socketio.ACK_ID_DIGITS
    if packet.flaw is None and packet.type in (socketio.EVENT, socketio.BINARY_EVENT):
        assert isinstance(packet.data, list)
        assert packet.data


def session(data: bytes) -> None:
    """What one client says in all, line by line: any order of packets leaves the session in a state that it has."""
    talk = Session(Timing(), CLOCK, MAX_MESSAGE)
    for number, line in enumerate(data.split(b"\n")):
        try:
            talk.receive(line if line[:1] == b"\0" else line.decode(), CLOCK + number)
            talk.tick(CLOCK + number)
        except UnicodeDecodeError:
            continue
        except ProtocolError:
            assert talk.state == CLOSED
            return
        if any(isinstance(event, Connect) for event in talk.events()):
            talk.accept("sid") if number % 2 == 0 else talk.refuse("no", "UNAUTHORIZED")
        for packet in talk.data_to_send():
            assert packet[:1] in (engineio.MESSAGE, engineio.PING)
    assert talk.deadline > CLOCK


def http_head(data: bytes) -> None:
    """A new connection: any bytes at all, in any pieces, end in an answer, in waiting, or in a closed connection."""
    size, stream = _cut(data)
    listener().feed(stream[start : start + size] for start in range(0, len(stream), size))


TARGETS: dict[str, Callable[[bytes], None]] = {
    "frames": frame_reader,
    "handshake": handshake_request,
    "payloads": polling_payload,
    "packets": socketio_packet,
    "sessions": session,
    "http": http_head,
}


def _cut(data: bytes) -> tuple[int, bytes]:
    """How long the pieces are, and what is cut."""
    return (data[0] or 1, data[1:]) if data else (1, data)
