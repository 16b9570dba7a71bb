"""What fails where nobody waits for it: what a client can do behind its CONNECT, and parts of the server that end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from insforge_realtime.pg.demo import ALICE
from support.databases import Cluster
from support.polling import PollingClient
from support.raw import masked_text_frame
from support.servers import AsgiServer, Server, token
from support.sites import TOKEN, Site, site, witnessed
from support.wire import WireClient

HELLO = "40" + json.dumps({"token": TOKEN})
UVICORN = ("-m", "uvicorn", "--factory", "insforge_realtime:create_app", "--port", "{port}")

# What comes in the same bytes as the CONNECT, so that it is looked at before the CONNECT's own task begins.
BEHIND: dict[str, list[bytes]] = {
    "an unknown packet": [masked_text_frame("9")],
    "an unknown message": [masked_text_frame("49")],
    "an event": [masked_text_frame('42["realtime:subscribe",{"channel":"orders"}]')],
    "the end of the session": [masked_text_frame("1")],
    "a Socket.IO goodbye": [masked_text_frame("41")],
    "another CONNECT": [masked_text_frame(HELLO)],
    "a pong and an unknown packet": [masked_text_frame("3"), masked_text_frame("9")],
    "an empty frame": [masked_text_frame("")],
    "bytes": [b"\x82\x81\0\0\0\0x"],
    "a goodbye": [b"\x88\x80\0\0\0\0"],
    "a reserved opcode": [b"\x83\x80\0\0\0\0"],
    "a frame of 2 GB": [b"\x81\xff" + (2 << 30).to_bytes(8, "big") + bytes(4)],
    "nothing, but the end": [],
}


@pytest.fixture(scope="module")
def fortress(newest: Cluster) -> Iterator[Site]:
    with site(newest) as running:
        yield running


@pytest.fixture(scope="module")
def plain(newest: Cluster) -> Iterator[AsgiServer]:
    """The same without the fast door."""
    database = asyncio.run(newest.database("demo"))
    server = AsgiServer(UVICORN, database)
    server.start()
    yield server
    server.stop()
    assert "Traceback" not in "\n".join(server.raw)
    asyncio.run(newest.drop(database))


async def say_at_once(server: Server, *frames: bytes) -> None:
    """A WebSocket, a CONNECT and what is behind it in one write; until the server hangs up, or at once if nothing is."""
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(
            b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        await reader.readuntil(b"pingInterval")
        writer.write(masked_text_frame(HELLO) + b"".join(frames))
        if frames:
            with contextlib.suppress(ConnectionError):
                while await reader.read(65536):
                    pass
        writer.transport.abort()


@pytest.mark.parametrize("name", BEHIND)
async def test_whatever_is_in_one_write_with_a_connect_ends_in_no_exception(fortress: Site, name: str) -> None:
    async with witnessed(fortress):
        await say_at_once(fortress.server, *BEHIND[name])
        await fortress.is_left_by_all_but(1)
    fortress.is_well()


@pytest.mark.parametrize("name", BEHIND)
async def test_nor_does_it_behind_another_server(plain: AsgiServer, name: str) -> None:
    await say_at_once(plain, *BEHIND[name])
    async with WireClient(plain.ws_url, {"token": TOKEN}) as honest:
        assert (await honest.subscribe("orders"))["ok"]
    assert "Traceback" not in "\n".join(plain.raw)
    assert "a task failed" not in "\n".join(plain.raw)


@pytest.mark.parametrize("behind", ["9", "49", "41", "1", "", HELLO, "3", '42["a"]', "bQQ=="])
async def test_nor_does_it_in_one_body(fortress: Site, behind: str) -> None:
    async with witnessed(fortress), PollingClient(fortress.server.url) as client:
        await client.post(HELLO, behind)
    fortress.is_well()


async def test_nor_does_a_body_whose_answers_fill_what_may_wait(start: Callable[..., Server], demo: str) -> None:
    """A carrier that is full ends the session while it is being written to."""
    server = start(demo, max_buffered_bytes=2_000)
    running = Site(server, demo, server.process.pid)
    async with witnessed(running), PollingClient(server.url, {"token": TOKEN}) as client:
        answer = await client.post(*[f"40/namespace{number}," for number in range(200)])
        assert answer.status_code == 400
        server.wait_for_log("slow consumer closed")


# Parts that end by a bug, which is injected at a signal into a real server.

INJECTION = """
import asyncio, signal
from importlib import import_module

def inject(place):
    module, name = place.split(":")
    part = getattr(import_module("insforge_realtime." + module), name)
    original = part.run

    async def run(self):
        ended = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_signal_handler(
            signal.SIGUSR1, lambda: ended.done() or ended.set_exception(RuntimeError("injected"))
        )
        work = asyncio.ensure_future(original(self))
        try:
            await ended
        finally:
            work.cancel()

    part.run = run

inject({place!r})
"""
PARTS = {
    "feed": "pg.feed:Feed",
    "subscribe": "pg.coalescer:Coalescer",
    "counters": "pg.counters:Counters",
    "webhooks": "webhooks.worker:Webhooks",
    "wheel": "web.timer_wheel:TimerWheel",
}


@pytest.mark.parametrize("part", PARTS)
async def test_a_part_that_ends_ends_the_server_in_good_order_with_exit_status_1(demo: str, part: str) -> None:
    script = INJECTION.replace("{place!r}", repr(PARTS[part])) + "from insforge_realtime.cli.main import main; main()"
    server = AsgiServer(("-c", script, "serve", "--port", "{port}"), demo)
    server.start()
    try:
        async with WireClient(server.ws_url, {"token": token(ALICE)}) as client:
            server.process.send_signal(signal.SIGUSR1)
            assert await asyncio.to_thread(server.process.wait, 20) == 1
            async with asyncio.timeout(10):
                await client.ws.wait_closed()
            assert client.ws.close_code == 1012
    finally:
        server.stop()
    log = "\n".join(server.raw)
    assert "RuntimeError: injected" in log
    said: dict[str, Any] = server.wait_for_log("a part of the server has ended, so the server ends")
    assert said["level"] == "error"
    if part != "subscribe":
        assert said["part"] == part
    assert "error: a part of the server has ended" in log
    server.wait_for_log("stopped")


async def test_inside_another_server_a_part_that_ends_is_said_shuts_the_doors_and_health_tells(demo: str) -> None:
    script = (
        INJECTION.replace("{place!r}", repr(PARTS["feed"]))
        + "import sys, uvicorn; from insforge_realtime import create_app\n"
        + "uvicorn.run(create_app(), port=int(sys.argv[1]))"
    )
    server = AsgiServer(("-c", script, "{port}"), demo)
    server.start()
    try:
        async with WireClient(server.ws_url, {"token": token(ALICE)}) as client, asyncio.timeout(20):
            server.process.send_signal(signal.SIGUSR1)
            await client.ws.wait_closed()
            assert client.ws.close_code == 1012
        async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
            health = await http.get("/api/health")
            assert (health.status_code, health.json()["feed"]["reason"]) == (503, "broken: feed")
            assert (await http.get("/socket.io/?EIO=4&transport=polling")).status_code == 503
        assert "RuntimeError: injected" in "\n".join(server.raw)
    finally:
        server.stop()
