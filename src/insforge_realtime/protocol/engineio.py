"""Engine.IO 4 packets and payloads ⇄ text. Source: the Engine.IO protocol, revision 4.

    0 open   server → client, once: a JSON handshake        4 message  either way: a Socket.IO packet follows
    1 close  either way                                     5 upgrade  client → server, while changing transport
    2 ping   server → client                                6 noop     server → client, to end a poll
    3 pong   client → server

Over a WebSocket a packet is one text frame, and a binary frame is a message with a Socket.IO attachment. Over HTTP
long-polling, packets are joined into a payload, with attachments as `b` and base64:

    4hello ␞ 2 ␞ bAQIDBA==            where ␞ is U+001E, which JSON text never contains
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator

import orjson

from insforge_realtime.errors import ProtocolError

OPEN, CLOSE, PING, PONG, MESSAGE, UPGRADE, NOOP = "0123456"
REVISION = "4"
PROBE = PING + "probe"
PROBE_ANSWER = PONG + "probe"
SEPARATOR = "\x1e"
BINARY = "b"

Packet = str | bytes
"""Text, its first character the type; or the bytes of a binary message."""


def open_packet(sid: str, *, upgrades: list[str], ping_interval: float, ping_timeout: float, max_payload: int) -> str:
    """Encode the first packet of a connection.

    Args:
        sid: the Engine.IO session, not to be confused with the Socket.IO socket's.
        upgrades: the transports that the client may change to.
        ping_interval, ping_timeout: in seconds; on the wire they are milliseconds.
        max_payload: in bytes; how much the client may send at once.
    """
    handshake = {
        "sid": sid,
        "upgrades": upgrades,
        "pingInterval": round(ping_interval * 1000),
        "pingTimeout": round(ping_timeout * 1000),
        "maxPayload": max_payload,
    }
    return OPEN + orjson.dumps(handshake).decode()


def encode_payload(packets: Iterable[Packet]) -> str:
    """Join packets into one HTTP body."""
    return SEPARATOR.join(
        [packet if isinstance(packet, str) else BINARY + base64.b64encode(packet).decode() for packet in packets]
    )


def decode_payload(payload: str) -> Iterator[Packet]:
    """Yield the packets of an HTTP body one by one, so that those before a malformed one have been handed out.

    Raises:
        ProtocolError: invalid base64. (What text packets may contain is session.py's business.)
    """
    start = 0
    while start <= len(payload):
        end = payload.find(SEPARATOR, start)
        packet = payload[start:] if end < 0 else payload[start:end]
        yield _attachment(packet) if packet.startswith(BINARY) else packet
        start = len(payload) + 1 if end < 0 else end + 1


def _attachment(packet: str) -> bytes:
    try:
        return base64.b64decode(packet[1:], validate=True)
    except (binascii.Error, ValueError) as error:
        raise ProtocolError("invalid base64") from error
