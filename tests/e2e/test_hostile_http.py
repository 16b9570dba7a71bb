"""Attacks by HTTP itself: heads, pipelines, bodies and answers without end, and requests that nobody makes.

On the first request of a connection and on a later one. After each a witness still gets what is published, the server's
memory is what it was, and the log has no error.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from support.databases import Cluster, wait_until
from support.polling import QUERY, PollingClient
from support.raw import masked_text_frame
from support.sites import MARKER, TOKEN, Site, site, witnessed

REQUEST_TIMEOUT = 1.5
ANSWER_TIMEOUT = 2.0
HEAD_BYTES, HEADERS, PIPELINED = 32768, 100, 16
"""The defaults."""

HEALTH = b"GET /api/health HTTP/1.1\r\nHost: x\r\n\r\n"
UPGRADE = (
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
NONE_YET = b""


@pytest.fixture(scope="module")
def fortress(newest: Cluster) -> Iterator[Site]:
    """With the limits that everybody has, except that nobody wants to wait for them for half a minute."""
    with site(newest, request_timeout=REQUEST_TIMEOUT, answer_timeout=ANSWER_TIMEOUT, ping_timeout=60) as running:
        yield running


class Peer:
    """One connection, made of bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, *pieces: bytes, pause: float = 0.0) -> None:
        """Each piece by itself. A server that has hung up meanwhile is no reason to stop."""
        with contextlib.suppress(ConnectionError):
            for number, piece in enumerate(pieces):
                if number:
                    await asyncio.sleep(pause)
                self.writer.write(piece)
                await self.writer.drain()

    async def answer(self) -> tuple[int, bytes]:
        """The next answer: its status, and the head and body as they came."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        status = int(head.split()[1])
        size = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        return status, head + (await self.reader.readexactly(int(size[0])) if size else b"")

    async def end(self) -> bytes:
        """Everything up to the end, however it comes."""
        said = b""
        with contextlib.suppress(ConnectionError):
            while more := await self.reader.read(65536):
                said += more
        return said

    async def flood(self, first: bytes, again: bytes, megabytes: int) -> bytes:
        """Send the first, and the other over and over; what the server said until it hung up, or until all was sent."""
        await self.say(first)
        end = asyncio.ensure_future(self.end())
        block = again * (1 + 65536 // len(again))
        for _ in range(megabytes * 1_000_000 // len(block)):
            if end.done() or self.writer.is_closing():
                break
            await self.say(block)
            await asyncio.sleep(0)
        return await end


@contextlib.asynccontextmanager
async def peer(running: Site, before: bytes = NONE_YET, *, buffer: int = 0, seconds: float = 30) -> AsyncIterator[Peer]:
    """A connection, on which something has been asked and answered already, if anything."""
    connection = socket.socket()
    if buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    connection.connect(("127.0.0.1", running.server.port))
    async with asyncio.timeout(seconds):
        reader, writer = await asyncio.open_connection(sock=connection, limit=2**20)
        made = Peer(reader, writer)
        try:
            if before:
                await made.say(before)
                assert (await made.answer())[0] == 200
            yield made
        finally:
            writer.transport.abort()


def statuses(said: bytes) -> list[int]:
    """Of the answers in what a server said."""
    return [int(line.split()[0]) for line in said.split(b"HTTP/1.1 ")[1:]]


first_and_later = pytest.mark.parametrize("before", [NONE_YET, HEALTH], ids=["first request", "later request"])


# Without end.

START = b"GET /api/health HTTP/1.1\r\nHost: x\r\n"
CHUNKED = b"POST /api/health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
# What floods, and the answer: the application's, if it came to that before the end.
ENDLESS: dict[str, tuple[bytes, bytes, list[int]]] = {
    "headers": (START, b"X-A: 1\r\n", [431]),
    "large headers": (START, b"X-A: " + b"x" * 10_000 + b"\r\n", [431]),
    "a header's value": (START + b"X-A: ", b"x", [431]),
    "a header's name": (START, b"x", [431]),
    "blanks in a header": (START + b"X-A:", b" ", [431]),
    "a target": (b"GET /", b"x", [414]),
    "a query": (b"GET /socket.io/?", b"a=b&", [414]),
    "blanks before a target": (b"GET ", b" ", [431]),
    "empty lines": (b"\r\n", b"\r\n", [431]),
    "headers of a WebSocket handshake": (UPGRADE, b"X-A: 1\r\n", [431]),
    "a header of a WebSocket handshake": (UPGRADE + b"X-A: ", b"x", [431]),
    "extensions of a chunk": (CHUNKED + b"5;", b"a=b;", [405, 400]),
    "trailers": (CHUNKED + b"5\r\nabcde\r\n0\r\n", b"X-A: 1\r\n", [405, 400]),
    "a trailer": (CHUNKED + b"5\r\nabcde\r\n0\r\nX-A: ", b"x", [405, 400]),
    "tiny chunks": (CHUNKED, b"1\r\nx\r\n", [405]),
    "a body": (b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 900000000\r\n\r\n", b"x", [404]),
}


@first_and_later
@pytest.mark.parametrize("name", ENDLESS)
async def test_what_has_no_end_is_cut_short_and_costs_no_memory(fortress: Site, name: str, before: bytes) -> None:
    first, again, expected = ENDLESS[name]
    start = len(fortress.server.lines)
    async with witnessed(fortress), peer(fortress, before) as attacker:
        memory = fortress.memory()
        said = await attacker.flood(first, again, megabytes=60)
        assert fortress.memory() - memory < 25
        assert len(statuses(said)) == 1
        assert statuses(said)[0] in expected
        assert fortress.server.wait_for_log("request refused", start=start)["address"] == "127.0.0.1"


async def test_a_trailer_that_does_not_end_before_an_answer_ends_the_session_that_it_was_for(fortress: Site) -> None:
    async with witnessed(fortress), PollingClient(fortress.server.url, {"token": TOKEN}) as client:
        post = (
            f"POST /socket.io/?{QUERY}&sid={client.session} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        async with peer(fortress) as attacker:
            said = await attacker.flood(post.encode() + b"1\r\n3\r\n0\r\n", b"X-A: 1\r\n", megabytes=60)
            assert statuses(said) == [400]
        assert (await client.ask("GET")).json()["code"] == 1


@first_and_later
@pytest.mark.parametrize(
    ("head", "status"),
    [
        (START + b"X-A: 1\r\n" * (HEADERS - 1), 200),
        (START + b"X-A: 1\r\n" * HEADERS, 431),
        (START + b"X-A: " + b"x" * (HEAD_BYTES - 100) + b"\r\n", 200),
        (START + b"X-A: " + b"x" * HEAD_BYTES + b"\r\n", 431),
        (b"GET /api/health?" + b"x" * (HEAD_BYTES - 100) + b" HTTP/1.1\r\nHost: x\r\n", 200),
        (b"GET /api/health?" + b"x" * HEAD_BYTES + b" HTTP/1.1\r\nHost: x\r\n", 414),
        (UPGRADE + b"X-A: 1\r\n" * (HEADERS - 5), 101),
        (UPGRADE + b"X-A: 1\r\n" * (HEADERS - 4), 431),
        (UPGRADE + b"X-A: " + b"x" * (HEAD_BYTES - 300) + b"\r\n", 101),
        (UPGRADE + b"X-A: " + b"x" * HEAD_BYTES + b"\r\n", 431),
    ],
)
@pytest.mark.parametrize("pieces", [1, 3])
async def test_a_head_may_be_as_large_as_the_limit(
    fortress: Site, head: bytes, status: int, before: bytes, pieces: int
) -> None:
    head += b"\r\n"
    size = len(head) // pieces + 1
    async with witnessed(fortress), peer(fortress, before) as client:
        await client.say(*(head[at : at + size] for at in range(0, len(head), size)), pause=0.02)
        said = await client.reader.readuntil(b"\r\n\r\n")
        assert statuses(said) == [status]
        assert (b"\r\nConnection: close\r\n" in said) == (status > 400)


# Pipelines.


async def test_fifty_thousand_requests_at_once_are_not_looked_at(fortress: Site) -> None:
    start = len(fortress.server.lines)
    async with witnessed(fortress), peer(fortress) as attacker:
        memory = fortress.memory()
        began = time.monotonic()
        await attacker.say(HEALTH * 50_000)
        async with peer(fortress) as neighbour:
            await neighbour.say(HEALTH)
            assert (await neighbour.answer())[0] == 200
        assert time.monotonic() - began < 3
        said = await attacker.end()
        assert len(statuses(said)) <= PIPELINED
        assert fortress.memory() - memory < 25
        line = fortress.server.wait_for_log("request refused", start=start)
        assert (line["status"], line["limit"]) == (429, "REALTIME_MAX_PIPELINED")


async def test_requests_behind_a_poll_that_waits_are_limited(fortress: Site) -> None:
    async with witnessed(fortress), PollingClient(fortress.server.url, {"token": TOKEN}) as client:
        async with peer(fortress) as attacker:
            await attacker.say(poll_of(client) + HEALTH * PIPELINED)
            assert await attacker.end() == b""
        # The poll's client has hung up, as far as we know; at the latest when a second poll comes.
        assert (await client.ask("GET")).json()["code"] in (1, 3)


async def test_requests_behind_a_poll_that_waits_are_not_read_and_answered_after_it(fortress: Site) -> None:
    async with witnessed(fortress), PollingClient(fortress.server.url, {"token": TOKEN}) as client:
        assert (await client.subscribe("orders"))["ok"]
        async with peer(fortress) as patient:
            await patient.say(poll_of(client), *[HEALTH] * PIPELINED, pause=0.01)
            await fortress.sql("SELECT realtime.publish('orders', 'news', '{}')")
            assert b'42["news"' in (await patient.answer())[1]
            assert [(await patient.answer())[0] for _ in range(PIPELINED)] == [200] * PIPELINED


async def test_half_a_request_behind_a_poll_that_waits_has_its_time_after_it(fortress: Site) -> None:
    async with witnessed(fortress), PollingClient(fortress.server.url, {"token": TOKEN}) as client:
        assert (await client.subscribe("orders"))["ok"]
        async with peer(fortress) as patient:
            await patient.say(poll_of(client) + HEALTH + HEALTH[:20])
            await asyncio.sleep(2 * REQUEST_TIMEOUT)
            await patient.say(HEALTH[20:])
            await fortress.sql("SELECT realtime.publish('orders', 'news', '{}')")
            assert b'42["news"' in (await patient.answer())[1]
            assert [(await patient.answer())[0] for _ in range(2)] == [200, 200]


def poll_of(client: PollingClient) -> bytes:
    return f"GET /socket.io/?{QUERY}&sid={client.session} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


async def test_a_pipeline_within_the_limit_is_answered_in_order(fortress: Site) -> None:
    async with witnessed(fortress), peer(fortress) as client:
        for _ in range(20):
            await client.say(b"".join((HEALTH, b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n") * (PIPELINED // 2)))
            assert [(await client.answer())[0] for _ in range(PIPELINED)] == [200, 404] * (PIPELINED // 2)


async def test_a_websocket_behind_a_request_that_is_not_answered_is_refused(fortress: Site) -> None:
    async with (
        witnessed(fortress),
        PollingClient(fortress.server.url, {"token": TOKEN}) as client,
        peer(fortress) as attacker,
    ):
        await attacker.say(poll_of(client) + UPGRADE + b"\r\n")
        assert b" 101 " not in await attacker.end()


# Time.

DRIBBLED: dict[str, tuple[bytes, bytes, list[int]]] = {
    "a head": (START, b"X-A: 1\r\n", [408]),
    "a target": (b"GET /", b"x", [408]),
    "empty lines": (b"\r\n", b"\r\n", [408]),
    "a WebSocket handshake": (UPGRADE, b"X-A: 1\r\n", [408]),
    "a body to health": (b"POST /api/health HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n", b"x", [405]),
    "a body to nowhere": (b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n", b"x", [404]),
    "a body to no session": (
        f"POST /socket.io/?{QUERY}&sid=none HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n".encode(),
        b"x",
        [400],
    ),
    "tiny chunks": (CHUNKED, b"1\r\nx\r\n", [405]),
    "extensions of a chunk": (CHUNKED + b"1;", b"a=b;", [405]),
    "trailers": (CHUNKED + b"1\r\nx\r\n0\r\n", b"X-A: 1\r\n", [405]),
}


@first_and_later
@pytest.mark.parametrize("name", DRIBBLED)
async def test_what_is_dribbled_has_its_time(fortress: Site, name: str, before: bytes) -> None:
    first, again, expected = DRIBBLED[name]
    start = len(fortress.server.lines)
    async with witnessed(fortress), peer(fortress, before, seconds=12) as attacker:
        end = asyncio.ensure_future(attacker.end())
        began = time.monotonic()
        await attacker.say(first)
        while not end.done():
            await attacker.say(again)
            await asyncio.wait([end], timeout=0.1)
        assert time.monotonic() - began > REQUEST_TIMEOUT * 0.9
        assert statuses(await end) == expected
        line = fortress.server.wait_for_log("request refused", start=start)
        assert (line["status"], line["limit"]) == (408, "REALTIME_REQUEST_TIMEOUT")


async def test_a_body_for_a_session_that_takes_longer_than_a_request_is_taken_in(fortress: Site) -> None:
    body = b"3\x1e" * 20 + b"3"
    async with witnessed(fortress), PollingClient(fortress.server.url, {"token": TOKEN}) as client:
        head = (
            f"POST /socket.io/?{QUERY}&sid={client.session} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        async with peer(fortress) as slow:
            await slow.say(head.encode(), *(body[at : at + 10] for at in range(0, len(body), 10)), pause=0.6)
            assert (await slow.answer())[0] == 200


async def test_a_connection_between_two_requests_is_given_time(fortress: Site) -> None:
    async with witnessed(fortress), peer(fortress, HEALTH) as client:
        await asyncio.sleep(REQUEST_TIMEOUT + 1)
        await client.say(HEALTH)
        assert (await client.answer())[0] == 200


# Answers that are not read.

LARGE = (
    b"OPTIONS /socket.io/ HTTP/1.1\r\nHost: x\r\nOrigin: https://a.example\r\nAccess-Control-Request-Method: GET\r\n"
    b"Access-Control-Request-Headers: " + b"x" * 30_000 + b"\r\n\r\n"
)
"""Its answer is as large as it is."""


async def test_answers_that_are_never_read_end_the_connection_and_cost_no_memory(fortress: Site) -> None:
    start = len(fortress.server.lines)
    memory = fortress.memory()
    async with witnessed(fortress), contextlib.AsyncExitStack() as stack:
        deaf = [await stack.enter_async_context(peer(fortress, buffer=4096)) for _ in range(10)]
        for attacker in deaf:
            attacker.writer.transport.pause_reading()  # type: ignore[attr-defined]
        saying = [asyncio.ensure_future(attacker.say(*[LARGE] * 1_000)) for attacker in deaf]
        await asyncio.wait_for(asyncio.gather(*saying), 25)  # the server has hung up on all of them
        assert fortress.memory() - memory < 40
        await wait_until(lambda: ended(fortress, start) == len(deaf))


def ended(running: Site, start: int) -> int:
    return len([line for line in running.server.lines[start:] if line.get("event") == "answer not read"])


async def test_who_reads_slowly_gets_all_answers(fortress: Site) -> None:
    number, received = 150, 0
    async with witnessed(fortress), peer(fortress, buffer=4096, seconds=60) as slow:
        saying = asyncio.ensure_future(slow.say(*[LARGE] * number))
        began = time.monotonic()
        while received < number * 30_000:
            more = await slow.reader.read(65536)
            assert more, "cut off"
            received += len(more)
            if time.monotonic() - began < 3 * ANSWER_TIMEOUT:
                await asyncio.sleep(0.2)
        await saying


# Requests that nobody makes. None of them does harm, and none is worth an error in the log.

STRANGE: dict[str, tuple[bytes, list[int], bool]] = {
    "a folded header": (START + b"X-A: a\r\n b\r\n\r\n", [400], True),
    "a bare line feed": (b"GET /api/health HTTP/1.1\nHost: x\n\n", [400], True),
    "an absolute target": (b"GET http://x/api/health HTTP/1.1\r\nHost: x\r\n\r\n", [200], False),
    "an absolute target without a path": (b"GET http://x?a HTTP/1.1\r\nHost: x\r\n\r\n", [400], True),
    "an asterisk": (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", [404], False),
    "CONNECT": (b"CONNECT a.example:443 HTTP/1.1\r\nHost: x\r\n\r\n" + MARKER.encode(), [400], True),
    "HTTP/1.0": (b"GET /api/health HTTP/1.0\r\n\r\n", [200], True),
    "HTTP/1.0 that wants to stay": (b"GET /api/health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", [200], True),
    "HTTP/2 without asking": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [400], True),
    "HTTP/3.0": (b"GET /api/health HTTP/3.0\r\n\r\n", [400], True),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", [400], True),
    "an upgrade to h2c": (START + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n" + HEALTH * 3, [200], True),
    "an upgrade to h2c with a body that is a request": (
        b"POST /nowhere HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: %d\r\n\r\n"
        % len(HEALTH)
        + HEALTH,
        [404],
        True,
    ),
    "a body and chunks": (
        b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        [400],
        True,
    ),
    "two lengths": (b"POST /nowhere HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", [400], True),
    "a chunk of no size": (CHUNKED + b"\r\n", [400], True),
    "a chunk of 2^64 bytes": (CHUNKED + b"FFFFFFFFFFFFFFFFF\r\n", [400], True),
    "a length below zero": (b"POST /nowhere HTTP/1.1\r\nContent-Length: -1\r\n\r\n", [400], True),
    "a trailer": (CHUNKED + b"1\r\nx\r\n0\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n" + HEALTH, [405, 200], False),
    "a hundred wishes to continue": (START + b"Expect: 100-continue\r\n" * 98 + b"\r\n", [200], False),
    "a path that is no ASCII": (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", [400], True),
    "an escape that is no UTF-8": (b"GET /%ff HTTP/1.1\r\nHost: x\r\n\r\n", [404], False),
    "a method that is none": (b"BREW /pot HTTP/1.1\r\n\r\n", [400], True),
}


@first_and_later
@pytest.mark.parametrize("name", STRANGE)
async def test_strange_requests_get_an_answer_and_nothing_else_happens(
    fortress: Site, name: str, before: bytes
) -> None:
    said, expected, ends = STRANGE[name]
    async with witnessed(fortress), peer(fortress, before) as client:
        await client.say(said)
        assert [(await client.answer())[0] for _ in expected] == expected
        if ends:
            assert await client.end() == b""


async def test_the_body_of_an_upgrade_that_is_not_done_is_no_request_in_whatever_pieces_it_comes(
    fortress: Site,
) -> None:
    said = STRANGE["an upgrade to h2c with a body that is a request"][0]
    for at in (1, len(HEALTH) - 1, len(HEALTH)):
        async with witnessed(fortress), peer(fortress) as client:
            await client.say(said[:-at], said[-at:], pause=0.05)
            assert statuses(await client.end()) == [404]


async def test_a_hundred_wishes_to_continue_at_polls_are_a_hundred_at_most(fortress: Site) -> None:
    async with witnessed(fortress), PollingClient(fortress.server.url, {"token": TOKEN}) as client:
        post = f"POST /socket.io/?{QUERY}&sid={client.session} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
        async with peer(fortress) as asking:
            await asking.say(post.encode() + b"Content-Length: 1\r\n\r\n")
            assert (await asking.answer())[0] == 100
            await asking.say(b"3")
            assert (await asking.answer())[0] == 200


async def test_a_handshake_in_pieces_is_a_websocket_like_any_other(fortress: Site) -> None:
    hello = masked_text_frame('40{"token":"' + TOKEN + '"}')
    whole = UPGRADE + b"\r\n"
    async with witnessed(fortress), peer(fortress, HEALTH) as client:
        await client.say(whole[:50], whole[50:] + hello[:7], hello[7:], pause=0.05)
        assert (await client.reader.readuntil(b'40{"sid":"')).startswith(b"HTTP/1.1 101 ")
        await asyncio.sleep(REQUEST_TIMEOUT + 1)  # no clock of its first life is left
        await client.say(masked_text_frame("42" + '1["realtime:subscribe",{"channel":"orders"}]'))
        await client.reader.readuntil(b'431[{"ok":true')


# What a browser, or a cache, is told.


async def test_every_answer_is_for_no_sniffing(fortress: Site) -> None:
    refused = UPGRADE.replace(b"EIO=4", b"EIO=3") + b"\r\n"
    for said in (
        HEALTH,
        b"HEAD /api/health HTTP/1.1\r\nHost: x\r\n\r\n",
        LARGE,
        b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /socket.io/?EIO=3&transport=polling HTTP/1.1\r\nHost: x\r\n\r\n",
        CHUNKED,
        b"nonsense\r\n\r\n",
        START + b"X: y\r\n" * 100 + b"\r\n",
        refused,
        UPGRADE.replace(b"Version: 13", b"Version: 8") + b"\r\n",
    ):
        async with peer(fortress) as client:
            await client.say(said)
            head = await client.reader.readuntil(b"\r\n\r\n")
            assert head.lower().count(b"\r\nx-content-type-options: nosniff\r\n") == 1, head


async def test_no_answer_leads_to_where_the_host_header_says(fortress: Site) -> None:
    for path in ("/api/health/", "/socket.io//", "//evil.example/%2e%2e", "/api/health//", "//evil.example/socket.io"):
        for host in ("evil.example", "evil.example:80", "a@evil.example"):
            async with witnessed(fortress), peer(fortress) as client:
                await client.say(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                status, said = await client.answer()
                assert status == 404
                assert b"evil" not in said
                assert b"\r\nlocation:" not in said.lower()


async def test_health_is_told_without_its_body_to_who_asks_for_the_head(fortress: Site) -> None:
    async with peer(fortress) as client:
        await client.say(b"HEAD /api/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        said = await client.end()
        assert statuses(said) == [200]
        assert said.endswith(b"\r\n\r\n")
