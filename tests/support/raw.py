"""The cheapest client there is: it keeps the bytes it gets. For tests with thousands of sockets, which would otherwise
measure their own JSON parsing.
"""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Self, cast
from urllib.parse import urlsplit


def masked_text_frame(text: str) -> bytes:
    """A client's text frame. The mask is zero: allowed, and what comes out is readable in a capture."""
    payload = text.encode()
    size = len(payload)
    if size < 126:
        return b"\x81%c\0\0\0\0" % (0x80 | size) + payload
    if size < 65536:
        return b"\x81\xfe" + size.to_bytes(2, "big") + b"\0\0\0\0" + payload
    return b"\x81\xff" + size.to_bytes(8, "big") + b"\0\0\0\0" + payload


class RawClient(asyncio.Protocol):
    """One connected socket: `await RawClient.connect(server.ws_url, {"token": …})`."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.closed = False
        self._news = asyncio.Event()

    @classmethod
    async def connect(cls, url: str, auth: object = None) -> Self:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_connection(cls, parts.hostname, parts.port)
        protocol.transport = transport
        key = "AAAAAAAAAAAAAAAAAAAAAA=="
        transport.write(
            f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        await protocol.until(b"pingInterval")
        protocol.send("40" + ("" if auth is None else json.dumps(auth)))
        await protocol.until(b'40{"sid"')
        return protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.received += data
        self._news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._news.set()

    def send(self, packet: str) -> None:
        self.transport.write(masked_text_frame(packet))

    def emit(self, name: str, data: object, ack_id: int | None = None) -> None:
        self.send(f"42{'' if ack_id is None else ack_id}{json.dumps([name, data])}")

    async def until(self, text: bytes, times: int = 1, seconds: float = 60.0) -> None:
        """Until this has come so many times."""
        async with asyncio.timeout(seconds):
            while self.received.count(text) < times:
                if self.closed:
                    raise AssertionError(f"closed, with {self.received.count(text)} of {times} {text!r}")
                self._news.clear()
                await self._news.wait()

    def close(self) -> None:
        self.transport.abort()


class NarrowClient(RawClient):
    """One behind a line of 16 Mbit/s, with little room on its own side of it."""

    BYTES_PER_SECOND = 2_000_000

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.transport.pause_reading()
        asyncio.get_running_loop().call_later(len(data) / self.BYTES_PER_SECOND, self._go_on)

    def _go_on(self) -> None:
        if not self.closed:
            self.transport.resume_reading()
