"""The bytes that load generators send and read: Engine.IO over a WebSocket, as far as a client that makes no mistake
needs it. Nothing here keeps a connection; crowd.py counts frames by a cheaper way of its own."""

from __future__ import annotations

import asyncio

HANDSHAKE = (
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
GONE = (OSError, EOFError, asyncio.IncompleteReadError)
"""What a stream raises when the other end has gone."""


def text_frame(payload: bytes) -> bytes:
    """Return a client's text frame; its mask is zero, so that masking costs nothing."""
    size = len(payload)
    if size < 126:
        return b"\x81%c\0\0\0\0%b" % (0x80 | size, payload)
    length = b"\xfe" + size.to_bytes(2, "big") if size < 65536 else b"\xff" + size.to_bytes(8, "big")
    return b"\x81%b\0\0\0\0%b" % (length, payload)


def read_packets(stream: bytes, at: int = 0) -> tuple[list[bytes], bytes]:
    """Read a server's frames.

    Args:
        stream: what came.
        at: where in it the first frame begins.

    Returns:
        The payloads of the text frames, and what there is of a frame that has not come as a whole.
    """
    packets = []
    end = len(stream)
    while end - at >= 2:
        size, head = stream[at + 1], 2
        if size > 125:
            head = 4 if size == 126 else 10
            size = int.from_bytes(stream[at + 2 : at + head], "big")
        if end - at < head + size:
            break
        if stream[at] == 0x81:
            packets.append(stream[at + head : at + head + size])
        at += head + size
    return packets, stream[at:]
