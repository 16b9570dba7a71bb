"""Attacks by who has no token: on the sockets, on HTTP, on the way in."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from benchmarks.load.wire import GONE, HANDSHAKE, text_frame

HEALTH = b"GET /api/health HTTP/1.1\r\nHost: x\r\n\r\n"
LARGE = 1_000_000
ADDRESS = "127.0.0.2"
"""Another than that of the honest."""


@contextlib.asynccontextmanager
async def line(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(ADDRESS, 0))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def again_and_again(count: int, attack: Callable[[], Awaitable[None]]) -> None:
    """So many at a time, each anew when it has ended, until cancelled."""

    async def one() -> None:
        while True:
            with contextlib.suppress(*GONE):
                await attack()
            await asyncio.sleep(0.001)

    await asyncio.gather(*[one() for _ in range(count)])


async def endless_head(port: int) -> None:
    """Headers without end, on four sockets."""

    async def attack() -> None:
        async with line(port) as (_, writer):
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n")
            number = 0
            while True:
                number += 1
                writer.write(b"X-%d: %b\r\n" % (number, b"a" * 4000))
                await writer.drain()

    await again_and_again(4, attack)


async def pipelined(port: int) -> None:
    """Requests in a row, on eight sockets whose answers nobody reads."""

    async def attack() -> None:
        async with line(port) as (reader, writer):
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            while True:
                writer.write(HEALTH * 1000)
                await writer.drain()

    await again_and_again(8, attack)


async def dribbled(port: int) -> None:
    """A second request, a byte a second, on 500 sockets."""

    async def attack() -> None:
        async with line(port) as (reader, writer):
            writer.write(HEALTH)
            await reader.readuntil(b"\r\n\r\n")
            for byte in HEALTH * 100:
                writer.write(bytes([byte]))
                await asyncio.sleep(1.0)

    await again_and_again(500, attack)


async def silent(port: int) -> None:
    """Sockets that say nothing: 2 000 of them."""

    async def attack() -> None:
        async with line(port) as (reader, _):
            await reader.read()

    await again_and_again(2000, attack)


async def silent_websockets(port: int) -> None:
    """WebSockets that never say who they are: 2 000 of them."""

    async def attack() -> None:
        async with line(port) as (reader, writer):
            writer.write(HANDSHAKE)
            await reader.read()

    await again_and_again(2000, attack)


async def wrong_tokens(port: int) -> None:
    """CONNECTs that are refused, as fast as they come, on 20 WebSockets."""

    async def attack() -> None:
        async with line(port) as (reader, writer):
            writer.write(HANDSHAKE)
            await reader.readuntil(b"}")
            while True:
                writer.write(text_frame(b'40{"token":"no.such.token"}'))
                await reader.readuntil(b"}}")

    await again_and_again(20, attack)


async def handshakes(port: int) -> None:
    """WebSockets that come and go, 50 at a time."""

    async def attack() -> None:
        async with line(port) as (reader, writer):
            writer.write(HANDSHAKE)
            await reader.readuntil(b"}")

    await again_and_again(50, attack)


async def large_before_connect(port: int) -> None:
    """Messages of a megabyte from who has not said who it is: 200 WebSockets, each sends all but its last byte."""

    async def attack() -> None:
        async with line(port) as (reader, writer):
            writer.write(HANDSHAKE)
            await reader.readuntil(b"}")
            writer.write(text_frame(b"40" + b" " * LARGE)[:-1])
            await reader.read()

    await again_and_again(200, attack)
