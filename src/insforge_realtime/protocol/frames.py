"""WebSocket frames (RFC 6455, section 5), as a server reads and writes them, without I/O. The handshake is handshake.py's.

    text_frame(bytes)      what this server sends
    control_frame(…)       pongs and goodbyes
    Reader.receive(bytes)  → events: a text, a binary message, a ping, a goodbye, or how the client broke the RFC

The bytes of an event are the same for all its subscribers: they are made once and shared, not framed per connection.

Why not the sans-IO protocol of `websockets`, against which the tests compare this one: it keeps a generator and a
dozen other objects per connection, and most connections of this server only listen. A `Reader` is 64 bytes, until a
frame is cut in two, and takes half the time per frame.
"""

from __future__ import annotations

from dataclasses import dataclass

from insforge_realtime.errors import INVALID_UTF8, MESSAGE_TOO_BIG, Close, broken_protocol

try:
    from websockets.speedups import apply_mask
except ImportError:  # no wheel for this platform: `websockets` has it in Python, too
    from websockets.utils import apply_mask

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
LONGEST_CONTROL = 125

_OPCODES = frozenset((CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG))
_CLOSE_CODES = frozenset((1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)))
"""Those that may be sent: the others are unassigned, or only for use within a program."""


@dataclass(frozen=True, slots=True)
class Ping:
    """A ping, to be answered with the same payload."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Goodbye:
    """A close frame, to be answered with the same payload, unless ours came first. Nothing follows it."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Broken:
    """The client broke the RFC, or a limit: close like this. Nothing follows it."""

    end: Close


Event = str | bytes | Ping | Goodbye | Broken


class _Breach(Exception):
    """Ends the reading; never leaves this file."""

    def __init__(self, end: Close) -> None:
        self.end = end


class Reader:
    """Reads what one client sends. Pongs are read and forgotten.

    Args:
        max_size: of a message, in bytes; None for no limit. A frame that claims more is not waited for. It may change at any
            time, also by what is done about an event: see `postponed`.
    """

    __slots__ = ("_fragments", "_pending", "_text", "max_size", "postponed")

    def __init__(self, max_size: int | None) -> None:
        self.max_size = max_size
        self.postponed = False
        """Whether a frame that is too large came in one piece with events before it. These may raise the limit, as an
        upgrade's end does, so the next call judges it: call `receive(b"")` once the events are handled."""
        self._pending: bytearray | None = None
        """The beginning of a frame that has not arrived completely."""
        self._fragments: bytearray | None = None
        """The beginning of a fragmented message."""
        self._text = False

    def receive(self, data: bytes) -> list[Event]:
        """Take in bytes and return the events in them. `Goodbye` and `Broken` come last, and no call may follow them."""
        events: list[Event] = []
        buffer: bytes | bytearray = data
        if self._pending is not None:
            self._pending += data
            buffer = self._pending
        at = 0
        try:
            while end := self._frame(buffer, at, events):
                at = end
        except _Breach as breach:
            self.postponed = bool(events) and breach.end is MESSAGE_TOO_BIG
            if not self.postponed:
                events.append(Broken(breach.end))
                at = len(buffer)
        self._keep(buffer, at)
        return events

    def _keep(self, buffer: bytes | bytearray, start: int) -> None:
        """Keep the rest of the buffer until more arrives. A long frame is not copied each time another piece arrives."""
        if start == len(buffer):
            self._pending = None
        elif start or buffer is not self._pending:
            self._pending = bytearray(memoryview(buffer)[start:])

    def _frame(self, buffer: bytes | bytearray, at: int, events: list[Event]) -> int:
        """Read the frame that begins at `at`, and return where it ends; 0 if it is incomplete."""
        have = len(buffer)
        if have < at + 2:
            return 0
        first, second = buffer[at], buffer[at + 1]
        self._check(first, second)
        length, body = second & 0x7F, at + 6
        if length > LONGEST_CONTROL:
            body += 2 if length == 126 else 8
            if have < body - 4:
                return 0
            length = int.from_bytes(buffer[at + 2 : body - 4], "big")
        if first & 0x08 == 0:
            self._check_size(length)
        end = body + length
        if have < end:
            return 0
        with memoryview(buffer) as view:
            payload = apply_mask(view[body:end], bytes(view[body - 4 : body]))
        self._on_frame(first & 0x0F, bool(first & 0x80), payload, events)
        return have if isinstance(events[-1] if events else None, Goodbye) else end

    def _check(self, first: int, second: int) -> None:
        """Refuse first two bytes that the RFC does not allow here."""
        opcode = first & 0x0F
        if opcode not in _OPCODES:
            raise _Breach(broken_protocol("reserved opcode"))
        if first & 0x70:
            raise _Breach(broken_protocol("reserved bits"))
        if not second & 0x80:
            raise _Breach(broken_protocol("frame is not masked"))
        if opcode >= CLOSE:
            if not first & 0x80:
                raise _Breach(broken_protocol("fragmented control frame"))
            if second & 0x7F > LONGEST_CONTROL:
                raise _Breach(broken_protocol("control frame too long"))
        elif (opcode == CONTINUATION) != (self._fragments is not None):
            began = "no message was begun" if opcode == CONTINUATION else "the message before is not complete"
            raise _Breach(broken_protocol(began))

    def _check_size(self, length: int) -> None:
        if length >> 63:
            raise _Breach(broken_protocol("length of more than 63 bits"))
        if self.max_size is not None and length + len(self._fragments or b"") > self.max_size:
            raise _Breach(MESSAGE_TOO_BIG)

    def _on_frame(self, opcode: int, final: bool, payload: bytes, events: list[Event]) -> None:
        if opcode == PING:
            events.append(Ping(payload))
        elif opcode == CLOSE:
            _check_goodbye(payload)
            events.append(Goodbye(payload))
        elif opcode != PONG:
            self._on_data(opcode, final, payload, events)

    def _on_data(self, opcode: int, final: bool, payload: bytes, events: list[Event]) -> None:
        if opcode != CONTINUATION:
            self._text = opcode == TEXT
            if final:
                events.append(_text(payload) if self._text else payload)
            else:
                self._fragments = bytearray(payload)
            return
        assert self._fragments is not None
        self._fragments += payload
        if final:
            whole, self._fragments = self._fragments, None
            events.append(_text(whole) if self._text else bytes(whole))


def _text(payload: bytes | bytearray) -> str:
    try:
        return str(payload, "utf-8")
    except UnicodeDecodeError:
        raise _Breach(INVALID_UTF8) from None


def _check_goodbye(payload: bytes) -> None:
    """Refuse a goodbye that has neither an empty payload nor a code and a reason."""
    if payload:
        _text(payload[2:])
        if len(payload) == 1 or int.from_bytes(payload[:2], "big") not in _CLOSE_CODES:
            raise _Breach(broken_protocol("invalid close code"))


def text_frame(payload: bytes) -> bytes:
    """Make a text frame: final, unmasked.

    Args:
        payload: UTF-8.
    """
    size = len(payload)
    if size < 126:
        return b"\x81%c%b" % (size, payload)
    if size < 65536:
        return b"\x81\x7e%b%b" % (size.to_bytes(2, "big"), payload)
    return b"\x81\x7f%b%b" % (size.to_bytes(8, "big"), payload)


def control_frame(opcode: int, payload: bytes) -> bytes:
    """Make a pong or a close frame.

    Args:
        opcode: which of the two.
        payload: at most `LONGEST_CONTROL` bytes.
    """
    return b"%c%c%b" % (0x80 | opcode, len(payload), payload)


def goodbye_payload(end: Close) -> bytes:
    """Return the payload of a close frame. A reason that is too long for one is cut."""
    text = end.reason.encode()[: LONGEST_CONTROL - 2]
    return end.code.to_bytes(2, "big") + text.decode(errors="ignore").encode()
