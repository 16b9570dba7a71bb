"""Socket.IO 5 packets ⇄ the text of an Engine.IO message. Source: the Socket.IO protocol, revision 5.

    <type>[<attachments>-][<namespace>,][<ack id>][<JSON>]        e.g.  2/admin,13["hello",{"a":1}]

A binary packet announces its attachments, which follow as binary messages; `{"_placeholder":true,"num":0}` stands in
the JSON where the first of them belongs, and `attach` puts it there.

Any text at all either decodes to a packet that is valid in itself or raises `ProtocolError`: what the rest of the
server gets to see has the right types. Whether a packet is allowed *now* is session.py's business. JSON that the grammar
allows but we cannot represent breaks no protocol: such a packet has a `flaw`, and its request is to be refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from insforge_realtime.errors import ProtocolError
from insforge_realtime.protocol import jsontext

CONNECT, DISCONNECT, EVENT, ACK, CONNECT_ERROR, BINARY_EVENT, BINARY_ACK = range(7)

RESERVED_EVENTS = frozenset(
    ("connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener")
)
"""Names that a client may not emit: they mean something to every Socket.IO library."""

ACK_ID_DIGITS = 15
"""As many as fit a JavaScript number exactly. A longer id would come back to the client as a different one."""


MAX_ATTACHMENTS = 10
"""How many attachments a packet may announce. No command of this server takes any; they are gathered only to be refused."""

FLAW = "The data has a number beyond \u00b11.8e308, half a surrogate pair, or too many levels: send it in another form"


@dataclass(slots=True)
class Packet:
    """One decoded packet.

    Args:
        type, namespace, id: of the header.
        data: the JSON after the header, or None.
        attachments: how many are still to come.
        payload: the text of the event's payload in `data`, just as it arrived (jsontext.py).
        flaw: why nothing can be done with it; `data` is only a sketch then.
        size: of the whole packet, in bytes, without attachments.
    """

    type: int
    data: Any = None
    namespace: str = "/"
    id: int | None = None
    attachments: int = 0
    payload: str | None = field(default=None, compare=False)
    flaw: str | None = None
    size: int = field(default=0, compare=False)


def decode(text: str) -> Packet:
    """Decode one packet.

    Raises:
        ProtocolError: it is malformed, or one that a client must not send.
    """
    kind = ord(text[0]) - 48 if text else -1
    if kind not in _VALID:
        raise ProtocolError(
            "only a server sends CONNECT_ERROR" if kind == CONNECT_ERROR else "unknown Socket.IO packet type"
        )
    attachments, start = _attachments(text) if kind in (BINARY_EVENT, BINARY_ACK) else (0, 1)
    namespace, start = _namespace(text, start)
    ack_id, start = _number(text, start, "ack id")
    packet = Packet(kind, None, namespace, ack_id, attachments, size=_bytes(text))
    if start < len(text):
        _read(packet, text[start:])
    if not _VALID[kind](packet):
        raise ProtocolError("invalid Socket.IO payload")
    return packet


def attach(packet: Packet, attachments: Sequence[bytes]) -> None:
    """Put the attachments of a binary packet where their placeholders are.

    Raises:
        ProtocolError: a placeholder for an attachment that was not announced.
    """
    # A list of what is still to be looked at, not recursion: the client decides how deep it goes.
    containers: list[Any] = [packet.data]
    while containers:
        container = containers.pop()
        items = container.items() if isinstance(container, dict) else enumerate(container)
        for place, value in list(items):
            if isinstance(value, dict) and value.get("_placeholder") is True:
                container[place] = _numbered(attachments, value.get("num"))
            elif isinstance(value, dict | list):
                containers.append(value)


def _numbered(attachments: Sequence[bytes], number: object) -> bytes:
    # JSON's true is an int in Python.
    if type(number) is not int or not 0 <= number < len(attachments):
        raise ProtocolError("a placeholder for an attachment that was not announced")
    return attachments[number]


def _attachments(text: str) -> tuple[int, int]:
    count, end = _number(text, 1, "number of attachments")
    if count is None or text[end : end + 1] != "-":
        raise ProtocolError("a binary packet must say how many attachments it has")
    if count > MAX_ATTACHMENTS:
        raise ProtocolError("too many attachments")
    return count, end + 1


def _namespace(text: str, start: int) -> tuple[str, int]:
    if text[start : start + 1] != "/":
        return "/", start
    end = text.find(",", start)
    return (text[start:], len(text)) if end < 0 else (text[start:end], end + 1)


def _number(text: str, start: int, what: str) -> tuple[int | None, int]:
    """Return the number whose digits begin at `start`, if there are any, and where they end."""
    end = start
    while end < len(text) and "0" <= text[end] <= "9":
        end += 1
    if end - start > ACK_ID_DIGITS:
        raise ProtocolError(f"{what} too long")
    return (int(text[start:end]), end) if end > start else (None, start)


def _read(packet: Packet, text: str) -> None:
    try:
        packet.data, packet.payload = jsontext.read(text)
    except (ValueError, RecursionError):
        packet.data, packet.flaw = _sketch(text), FLAW


def _sketch(text: str) -> Any:
    try:
        return jsontext.sketch(text)
    except ValueError as error:
        raise ProtocolError("invalid JSON") from error


def _bytes(text: str) -> int:
    # Of ASCII, which is the rule, Python knows the size without a look.
    return len(text) if text.isascii() else len(text.encode(errors="replace"))


def _is_event(packet: Packet) -> bool:
    if not isinstance(packet.data, list) or not packet.data:
        return False
    name = packet.data[0]
    # A number is a valid name to Socket.IO; JSON's true would pass for one in Python.
    return (isinstance(name, str) and name not in RESERVED_EVENTS) or (
        isinstance(name, int | float) and not isinstance(name, bool)
    )


def _is_ack(packet: Packet) -> bool:
    return packet.id is not None and isinstance(packet.data, list)


_VALID: dict[int, Callable[[Packet], bool]] = {
    CONNECT: lambda packet: packet.data is None or isinstance(packet.data, dict),
    DISCONNECT: lambda packet: packet.data is None,
    EVENT: _is_event,
    ACK: _is_ack,
    BINARY_EVENT: _is_event,
    BINARY_ACK: _is_ack,
}


def event(name: str, *data: object) -> str:
    """Encode an event without its packet header, `["name",…]`, for `event_packet`."""
    return orjson.dumps([name, *data]).decode()


def event_packet(event_text: str) -> str:
    """Make an EVENT in the default namespace from finished JSON text."""
    return f"{EVENT}{event_text}"


def ack_packet(ack_id: int, *data: object) -> str:
    """Encode an ACK in the default namespace."""
    return f"{ACK}{ack_id}{orjson.dumps(data).decode()}"


def connect_packet(sid: str) -> str:
    """Encode CONNECT, by which the server accepts."""
    return f'{CONNECT}{{"sid":"{sid}"}}'


def disconnect_packet() -> str:
    """Encode DISCONNECT, by which the server ends it for good: a client that gets this does not come back by itself."""
    return f"{DISCONNECT}"


def connect_error_packet(message: str, data: object = None, *, namespace: str = "/") -> str:
    """Encode CONNECT_ERROR, by which the server refuses; `data` is `err.data` on the client."""
    error = {"message": message} if data is None else {"message": message, "data": data}
    where = "" if namespace == "/" else f"{namespace},"
    return f"{CONNECT_ERROR}{where}{orjson.dumps(error).decode()}"
