"""The one kind of WebSocket frame that this server makes itself: a whole, unmasked text frame (RFC 6455, section 5.2).

The bytes of an event are the same for all its subscribers, so they are made once and shared, which is why they
do not go through a connection's own `ServerProtocol`. Everything else about WebSocket, and all reading, is `websockets`'.
"""

from __future__ import annotations


def text_frame(payload: bytes) -> bytes:
    """A frame, final, unmasked, opcode text.

    Args:
        payload: UTF-8.
    """
    size = len(payload)
    if size < 126:
        return b"\x81%c%b" % (size, payload)
    if size < 65536:
        return b"\x81\x7e%b%b" % (size.to_bytes(2, "big"), payload)
    return b"\x81\x7f%b%b" % (size.to_bytes(8, "big"), payload)
