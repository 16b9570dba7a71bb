"""Socket.IO 5 packets ⇄ the text of an Engine.IO message. Source: the Socket.IO protocol, revision 5.

    <type>[<attachments>-][<namespace>,][<ack id>][<JSON>]        e.g.  2/admin,13["hello",{"a":1}]

Any text at all either decodes to a packet that is valid in itself or raises `ProtocolError`: what the rest of the
server gets to see has the right types. Whether a packet is allowed *now* is session.py's business.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from insforge_realtime.errors import ProtocolError

CONNECT, DISCONNECT, EVENT, ACK, CONNECT_ERROR, BINARY_EVENT, BINARY_ACK = range(7)

RESERVED_EVENTS = frozenset(
    ("connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener")
)
"""Names that a client may not emit: they mean something to every Socket.IO library."""

ACK_ID_DIGITS = 15
"""What fits a JavaScript number exactly. A longer id would come back to the client as another one."""


@dataclass(slots=True)
class Packet:
    """One decoded packet; `data` is the JSON after the header, or None."""

    type: int
    data: Any = None
    namespace: str = "/"
    id: int | None = None


def decode(text: str) -> Packet:
    """Read one packet.

    Raises:
        ProtocolError: it is none, or one that a client must not send.
    """
    kind = ord(text[0]) - 48 if text else -1
    if kind not in (CONNECT, DISCONNECT, EVENT, ACK):
        raise ProtocolError(_REFUSED.get(kind, "unknown Socket.IO packet type"))
    namespace, start = _namespace(text)
    ack_id, start = _ack_id(text, start)
    packet = Packet(kind, _json(text, start), namespace, ack_id)
    if not _VALID[kind](packet):
        raise ProtocolError("invalid Socket.IO payload")
    return packet


def _namespace(text: str) -> tuple[str, int]:
    if text[1:2] != "/":
        return "/", 1
    end = text.find(",", 1)
    return (text[1:], len(text)) if end < 0 else (text[1:end], end + 1)


def _ack_id(text: str, start: int) -> tuple[int | None, int]:
    end = start
    while end < len(text) and "0" <= text[end] <= "9":
        end += 1
    if end - start > ACK_ID_DIGITS:
        raise ProtocolError("ack id too long")
    return (int(text[start:end]), end) if end > start else (None, start)


def _json(text: str, start: int) -> Any:
    if start == len(text):
        return None
    try:
        return orjson.loads(text[start:])
    except orjson.JSONDecodeError as error:
        raise ProtocolError("invalid JSON") from error


def _is_event(packet: Packet) -> bool:
    if not isinstance(packet.data, list) or not packet.data:
        return False
    name = packet.data[0]
    # A number is a valid name to Socket.IO; JSON's true would pass for one in Python.
    return (isinstance(name, str) and name not in RESERVED_EVENTS) or (
        isinstance(name, int | float) and not isinstance(name, bool)
    )


_VALID: dict[int, Callable[[Packet], bool]] = {
    CONNECT: lambda packet: packet.data is None or isinstance(packet.data, dict),
    DISCONNECT: lambda packet: packet.data is None,
    EVENT: _is_event,
    ACK: lambda packet: packet.id is not None and isinstance(packet.data, list),
}
_REFUSED = {
    CONNECT_ERROR: "only a server sends CONNECT_ERROR",
    BINARY_EVENT: "binary packets are not accepted",
    BINARY_ACK: "binary packets are not accepted",
}


def event(name: str, *data: object) -> str:
    """The text of an event without its packet header, `["name",…]`: what `event_packet` takes."""
    return orjson.dumps([name, *data]).decode()


def event_packet(event_text: str) -> str:
    """EVENT in the default namespace, of JSON text that is ready."""
    return f"{EVENT}{event_text}"


def ack_packet(ack_id: int, *data: object) -> str:
    """ACK in the default namespace."""
    return f"{ACK}{ack_id}{orjson.dumps(data).decode()}"


def connect_packet(sid: str) -> str:
    """CONNECT, the server's yes."""
    return f'{CONNECT}{{"sid":"{sid}"}}'


def connect_error_packet(message: str, data: object = None, *, namespace: str = "/") -> str:
    """CONNECT_ERROR, the server's no; `data` is `err.data` on the client."""
    error = {"message": message} if data is None else {"message": message, "data": data}
    where = "" if namespace == "/" else f"{namespace},"
    return f"{CONNECT_ERROR}{where}{orjson.dumps(error).decode()}"
