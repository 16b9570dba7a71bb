"""A WebSocket's handshake in all the ways in which its bytes can come; who reads them, listener.py decides by that."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from support.databases import Cluster
from support.raw import masked_text_frame
from support.sites import TOKEN, Site, site

REQUEST = (
    b"GET %b?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: %b\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
WANTED = REQUEST % (b"/socket.io/", b"13")
HELLO = masked_text_frame('40{"token":"' + TOKEN + '"}')


@pytest.fixture(scope="module")
def running(newest: Cluster) -> Iterator[Site]:
    with site(newest) as started:
        yield started


async def answer(running: Site, *pieces: bytes, until: bytes | None) -> bytes:
    """What the server says to these pieces, up to some bytes, or to the end. Each is sent when the one before has gone."""
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", running.server.port)
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.02)  # so that they come apart; nothing is asserted of it
            return await (reader.read() if until is None else reader.readuntil(until))
        finally:
            writer.close()


@pytest.mark.parametrize("at", [1, 3, 60, len(WANTED) - 1])
async def test_a_handshake_in_two_pieces_is_let_in(running: Site, at: int) -> None:
    said = await answer(running, WANTED[:at], WANTED[at:], until=b'"maxPayload":1000000}')
    assert said.startswith(b"HTTP/1.1 101 ")


async def test_what_comes_with_the_handshake_is_not_lost(running: Site) -> None:
    said = await answer(running, WANTED + HELLO, until=b'40{"sid":"')
    assert said.startswith(b"HTTP/1.1 101 ")


async def test_half_a_frame_that_comes_with_the_handshake_is_not_lost(running: Site) -> None:
    said = await answer(running, WANTED + HELLO[:9], HELLO[9:], until=b'40{"sid":"')
    assert said.startswith(b"HTTP/1.1 101 ")


async def test_a_websocket_on_a_connection_that_has_been_asked_something_else_is_let_in(running: Site) -> None:
    health = b"GET /api/health HTTP/1.1\r\nHost: x\r\n\r\n"
    said = await answer(running, health, WANTED, until=b'"maxPayload":1000000}')
    assert said.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 101 " in said


async def test_a_version_that_is_not_ours_is_refused_and_ours_is_named(running: Site) -> None:
    said = await answer(running, REQUEST % (b"/socket.io/", b"8"), until=None)
    assert said.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"\r\nSec-WebSocket-Version: 13\r\n" in said
    assert said.endswith(b'\r\n\r\n{"code":3,"message":"Bad request"}')


async def test_a_websocket_to_a_path_that_is_nobodys_is_refused(running: Site) -> None:
    said = await answer(running, REQUEST % (b"/elsewhere", b"13"), until=None)
    assert said.startswith(b"HTTP/1.1 403 ")


async def test_what_is_no_http_is_refused(running: Site) -> None:
    assert (await answer(running, b"\x16\x03\x01\0\0", until=None)).startswith(b"HTTP/1.1 400 ")
