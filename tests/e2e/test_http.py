"""The HTTP side of the door: sockets that never become a request."""

from __future__ import annotations

import asyncio

import uvicorn
from fastapi import FastAPI

from insforge_realtime.web.http import http_class
from insforge_realtime.web.wheel import Wheel


async def test_a_socket_that_says_nothing_or_half_a_request_is_closed() -> None:
    wheel = Wheel(asyncio.get_running_loop())
    turning = asyncio.create_task(wheel.run())
    server = uvicorn.Server(
        uvicorn.Config(FastAPI(), port=0, http=http_class(wheel, seconds=0.3), log_config=None, lifespan="off")
    )
    serving = asyncio.create_task(server.serve())
    try:
        while not server.started:
            await asyncio.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        for said in (b"", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(said)
            assert await asyncio.wait_for(reader.read(), 10) == b""
            writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.1 404")
        writer.close()
    finally:
        server.should_exit = True
        await serving
        turning.cancel()
