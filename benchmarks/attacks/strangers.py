"""Attacks by clients without a token: on the sockets, on HTTP, on the way in."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable

from benchmarks.load.wire import GONE, HANDSHAKE, text_frame

HEALTH = b"GET /api/health HTTP/1.1\r\nHost: x\r\n\r\n"
LARGE = 1_000_000
ADDRESS = "127.0.0.2"
"""Another than that of the honest."""
OnSocket = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Attack = Callable[[int], Awaitable[None]]
"""Gets the port, and never ends."""


def on_sockets(count: int) -> Callable[[OnSocket], Attack]:
    """Decorate an attack on one socket: it runs on so many at a time, each anew when it has ended."""

    def many(once: OnSocket) -> Attack:
        @functools.wraps(once)
        async def attack(port: int) -> None:
            await asyncio.gather(*[_again_and_again(once, port) for _ in range(count)])

        return attack

    return many


async def _again_and_again(once: OnSocket, port: int) -> None:
    while True:
        with contextlib.suppress(*GONE):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(ADDRESS, 0))
            try:
                await once(reader, writer)
            finally:
                writer.transport.abort()
        await asyncio.sleep(0.001)


@on_sockets(4)
async def endless_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Headers without end."""
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n")
    number = 0
    while True:
        number += 1
        writer.write(b"X-%d: %b\r\n" % (number, b"a" * 4000))
        await writer.drain()


@on_sockets(8)
async def pipelined(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Requests in a row, whose answers nobody reads."""
    reader._transport.pause_reading()  # type: ignore[attr-defined]
    while True:
        writer.write(HEALTH * 1000)
        await writer.drain()


@on_sockets(500)
async def dribbled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A second request, a byte a second."""
    writer.write(HEALTH)
    await reader.readuntil(b"\r\n\r\n")
    for byte in HEALTH * 100:
        writer.write(bytes([byte]))
        await asyncio.sleep(1.0)


@on_sockets(2000)
async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sockets that send nothing."""
    await reader.read()


@on_sockets(2000)
async def silent_websockets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """WebSockets that never prove who they are."""
    writer.write(HANDSHAKE)
    await reader.read()


@on_sockets(20)
async def wrong_tokens(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """CONNECTs that are refused, as fast as they come."""
    writer.write(HANDSHAKE)
    await reader.readuntil(b"}")
    while True:
        writer.write(text_frame(b'40{"token":"no.such.token"}'))
        await reader.readuntil(b"}}")


@on_sockets(50)
async def handshakes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """WebSockets that come and go."""
    writer.write(HANDSHAKE)
    await reader.readuntil(b"}")


@on_sockets(200)
async def large_before_connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Messages of a megabyte from clients that have not proved who they are; each sends all but its last byte."""
    writer.write(HANDSHAKE)
    await reader.readuntil(b"}")
    writer.write(text_frame(b"40" + b" " * LARGE)[:-1])
    await reader.read()
