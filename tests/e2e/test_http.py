"""The HTTP side of the door, in this process: what becomes of sockets that never become a request, and of connections."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Iterator

import pytest
import uvicorn
from fastapi import FastAPI

from insforge_realtime.config import Config
from insforge_realtime.web.bounded import BoundedHttp
from insforge_realtime.web.bounds import Bounds
from insforge_realtime.web.listener import http_class
from insforge_realtime.web.timer_wheel import TimerWheel
from support.databases import wait_until

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@contextlib.asynccontextmanager
async def serving(**settings: float) -> AsyncIterator[int]:
    """A server without any WebSocket of ours; its port."""
    wheel = TimerWheel(asyncio.get_running_loop())
    turning = asyncio.create_task(wheel.run())
    bounds = Bounds.of(Config(**settings))  # type: ignore[arg-type]
    server = uvicorn.Server(
        uvicorn.Config(FastAPI(), port=0, http=http_class(wheel, bounds), log_config=None, lifespan="off")
    )
    task = asyncio.create_task(server.serve())
    try:
        while not server.started:
            await asyncio.sleep(0.005)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task
        turning.cancel()


async def test_a_socket_that_says_nothing_or_half_a_request_is_closed() -> None:
    async with serving(request_timeout=0.3) as port:
        for said, answer in ((b"", b""), (b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ", b"HTTP/1.1 408")):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(said)
            assert (await asyncio.wait_for(reader.read(), 10))[:12] == answer
            writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST)
        assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.1 404")
        writer.close()


@pytest.fixture
def no_garbage_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def connections() -> int:
    return sum(isinstance(thing, BoundedHttp) for thing in gc.get_objects())


UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@pytest.mark.parametrize(
    ("said", "resets"),
    [(REQUEST, False), (REQUEST, True), (REQUEST + REQUEST[:9], False), (REQUEST * 9, True), (REQUEST[:9], True)],
)
async def test_nothing_is_left_of_a_connection_that_has_ended(
    said: bytes, resets: bool, no_garbage_collector: None
) -> None:
    """Neither its clocks keep it, which have half a minute to go, nor uvicorn's keep-alive."""
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(said)
        if said.startswith(REQUEST):
            await reader.readuntil(b"}")
        await wait_until(lambda: connections() == 1)
        if resets:
            writer.transport.abort()
        writer.close()
        del reader, writer
        await wait_until(lambda: connections() == 0)


async def test_nothing_is_left_of_the_http_before_a_websocket(no_garbage_collector: None) -> None:
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(UPGRADE[:50])
        await wait_until(lambda: connections() == 1)
        writer.write(UPGRADE[50:])
        assert (await reader.readline()).startswith(b"HTTP/1.1 403")
        await wait_until(lambda: connections() == 0)
        writer.close()
