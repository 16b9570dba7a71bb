"""Engine.IO 4 packets ⇄ text. Source: the Engine.IO protocol, revision 4.

    0 open   server → client, once: a JSON handshake        4 message  either way: a Socket.IO packet follows
    1 close  either way                                     5 upgrade  client → server, while changing transport
    2 ping   server → client                                6 noop     server → client, to end a poll
    3 pong   client → server

Over a WebSocket a packet is one text frame. Binary frames carry Socket.IO attachments.
"""

from __future__ import annotations

import orjson

OPEN, CLOSE, PING, PONG, MESSAGE, UPGRADE, NOOP = "0123456"
REVISION = "4"


def open_packet(sid: str, *, upgrades: list[str], ping_interval: float, ping_timeout: float, max_payload: int) -> str:
    """The first packet of a connection.

    Args:
        sid: the Engine.IO session, not to be confused with the Socket.IO socket's.
        upgrades: the transports that the client may change to.
        ping_interval, ping_timeout: in seconds; on the wire they are milliseconds.
        max_payload: in bytes; what the client may send at once.
    """
    handshake = {
        "sid": sid,
        "upgrades": upgrades,
        "pingInterval": round(ping_interval * 1000),
        "pingTimeout": round(ping_timeout * 1000),
        "maxPayload": max_payload,
    }
    return OPEN + orjson.dumps(handshake).decode()
