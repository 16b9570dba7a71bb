"""One attempt against real sockets on loopback that answer whatever they like, byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from insforge_realtime.pg.deliveries import Claim
from insforge_realtime.webhooks.guard import LOOPBACK, Guard
from insforge_realtime.webhooks.request import Outcome, Signer
from insforge_realtime.webhooks.sender import Sender

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Receiver:
    """Reads requests, and answers each as it should. `url`, and how many connections and requests there were."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.connections = self.requests = 0
        self.url = ""
        self._tasks: set[asyncio.Task[None]] = set()

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(2)  # the payload {}
                self.requests += 1
                await self.answer(writer)
        writer.close()
        self._tasks.discard(task)


@contextlib.asynccontextmanager
async def receiving(answer: bytes | Answer, *, then_close: bool = True) -> AsyncIterator[Receiver]:
    async def write(writer: asyncio.StreamWriter) -> None:
        assert isinstance(answer, bytes)
        writer.write(answer)
        await writer.drain()
        if then_close:
            raise ConnectionError

    receiver = Receiver(write if isinstance(answer, bytes) else answer)
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    try:
        yield receiver
    finally:
        server.close()
        await receiver.end()


@pytest.fixture
async def sender() -> AsyncIterator[Sender]:
    async with Sender(Guard(LOOPBACK), Signer([]), timeout=20) as found:
        yield found


async def send(sender: Sender, receiver: Receiver) -> Outcome:
    until = asyncio.get_running_loop().time() + 60
    return await sender.send(Claim(1, 1, 0, "host", receiver.url, "id", "e", "c", "{}"), until)


def said(outcome: Outcome) -> tuple[str, int | None, str | None]:
    return outcome.verdict, outcome.status_code, outcome.response


OK = b"HTTP/1.1 200 OK\r\n"
EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
WHOLE = OK + b"Content-Length: 2\r\n\r\nhi"


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        # As it should be.
        (WHOLE, ("delivered", 200, "hi")),
        (b"HTTP/1.0 200 OK\r\n\r\nhi", ("delivered", 200, "hi")),
        (b"HTTP/1.1 204 No Content\r\n\r\n", ("delivered", 204, None)),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", ("delivered", 200, "hi")),
        # Odd, and understood all the same.
        (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nhi", ("delivered", 200, "hi")),
        (b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nhi", ("delivered", 200, "hi")),
        (b"\r\n\r\n" + WHOLE, ("delivered", 200, "hi")),
        (OK + b"X: " + b"x" * 60_000 + b"\r\nContent-Length: 2\r\n\r\nhi", ("delivered", 200, "hi")),
        (b"HTTP/1.1 200 " + b"very " * 5000 + b"OK\r\nContent-Length: 2\r\n\r\nhi", ("delivered", 200, "hi")),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", ("delivered", 204, None)),
        (EARLY + b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + WHOLE, ("delivered", 200, "hi")),
        # What follows the status line does not matter.
        (OK, ("delivered", 200, None)),
        (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nhi", ("delivered", 200, ...)),
        (b"HTTP/1.1 200 OK\n\n", ("delivered", 200, None)),
        (OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi", ("delivered", 200, ...)),
        (OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi", ("delivered", 200, ...)),
        (OK + b"Content-Length: many\r\n\r\nhi", ("delivered", 200, ...)),
        (OK + b"Content-Length: -1\r\n\r\nhi", ("delivered", 200, ...)),
        (OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nhi", ("delivered", 200, ...)),
        (OK + b"X: " + b"x" * 200_000 + b"\r\n\r\nhi", ("delivered", 200, ...)),
        (OK + b"X: 1\r\n" * 5000 + b"\r\nhi", ("delivered", 200, ...)),
        (OK + b"\0\xff no header at all\r\n\r\nhi", ("delivered", 200, ...)),
        (OK + b" folded\r\n: nameless\r\n\r\n", ("delivered", 200, ...)),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nnot a length\r\n", ("delivered", 200, None)),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\nffffffffffffffffffff\r\n", ("delivered", 200, ...)),
        (OK + b"Content-Length: 1000\r\n\r\nit breaks off", ("delivered", 200, "it breaks off")),
        (OK + b"Content-Encoding: gzip\r\n\r\nno gzip", ("delivered", 200, "no gzip")),
        (b"HTTP/1.1 200 \xff\0\r\n\r\n", ("delivered", 200, ...)),
        (b"HTTP/2.0 200 OK\r\n\r\n", ("delivered", 200, ...)),
        (b"HTTP/1.1 200 " + b"OK" * 1000, ("delivered", 200, ...)),
        (b"HTTP/1.1 500 No\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi", ("retry", 500, ...)),
        (b"HTTP/1.1 404 No\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi", ("failed", 404, ...)),
        # Other statuses.
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", ("failed", 101, ...)),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", ("failed", 304, None)),
        (b"HTTP/1.1 600 What\r\nContent-Length: 0\r\n\r\n", ("retry", 600, None)),
        (b"HTTP/1.1 999 What\r\nContent-Length: 0\r\n\r\n", ("retry", 999, None)),
        # No HTTP, or no status line: nobody can say that it has arrived.
        (b"", ("retry", None, None)),
        (b"hello", ("retry", None, None)),
        (b"200 OK\r\n\r\n", ("retry", None, None)),
        (b"HTTP/1.1 200", ("retry", None, None)),
        (b"HTTP/1.1 20", ("retry", None, None)),
        (b"HTTP/1.1 99 What\r\n\r\n", ("retry", None, None)),
        (b"HTTP/1.1 1000 What\r\n\r\n", ("retry", None, None)),
        (b"HTTP/1.1 099 What\r\n\r\n", ("retry", None, None)),
        (b"HTTP/1.1 2000\r\n\r\n", ("retry", None, None)),
        (b"HTTP/1.1 -200 OK\r\n\r\n", ("retry", None, None)),
        (b"ICY 200 OK\r\n\r\n", ("retry", None, None)),
        (b"\x16\x03\x01 no HTTP \r\n\r\n", ("retry", None, None)),
        (b"x" * 100_000, ("retry", None, None)),
        (b"\r\n" * 100_000, ("retry", None, None)),
        (EARLY, ("retry", None, None)),
        (b"HTTP/1.1 103 Early Hints\r\n", ("retry", None, None)),
    ],
)  # fmt: skip
async def test_the_status_line_decides_and_nothing_that_follows(
    sender: Sender, answer: bytes, outcome: tuple[str, int | None, object]
) -> None:
    async with receiving(answer) as receiver:
        verdict, status, response = said(await send(sender, receiver))
    assert (verdict, status) == outcome[:2]
    assert outcome[2] in (..., response)


@pytest.mark.parametrize("size", [1, 7])
async def test_an_answer_in_pieces_is_the_same(sender: Sender, size: int) -> None:
    async def write(writer: asyncio.StreamWriter) -> None:
        text = EARLY + WHOLE
        for start in range(0, len(text), size):
            writer.write(text[start : start + size])
            await writer.drain()
            await asyncio.sleep(0)

    async with receiving(write) as receiver:
        assert said(await send(sender, receiver)) == ("delivered", 200, "hi")
        assert said(await send(sender, receiver)) == ("delivered", 200, "hi")
        assert (receiver.connections, receiver.requests) == (1, 2)


async def test_what_comes_after_an_answer_is_not_taken_for_the_next_one(sender: Sender) -> None:
    answers = [WHOLE + b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", WHOLE]

    async def write(writer: asyncio.StreamWriter) -> None:
        writer.write(answers.pop(0))

    async with receiving(write) as receiver:
        for _ in range(2):
            assert (await send(sender, receiver)).status_code == 200


def for_ever(beginning: bytes, piece: bytes) -> Answer:
    async def write(writer: asyncio.StreamWriter) -> None:
        writer.write(beginning)
        while True:
            writer.write(piece)
            await writer.drain()

    return write


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (for_ever(b"", EARLY * 500), ("retry", None)),
        (for_ever(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 500), ("retry", None)),
        (for_ever(b"HTTP/1.1 102 Processing\r\n", b"X: y\r\n" * 1000), ("retry", None)),
        (for_ever(b"", b"\r\n" * 1000), ("retry", None)),
        (for_ever(b"", b"x" * 1000), ("retry", None)),
        (for_ever(OK, b"X: y\r\n" * 1000), ("delivered", 200)),
        (for_ever(OK + b"X: ", b"y" * 1000), ("delivered", 200)),
        (for_ever(b"HTTP/1.1 200 ", b"very " * 1000), ("delivered", 200)),
        (for_ever(OK + b"\r\n", b"x" * 100_000), ("delivered", 200)),
        (for_ever(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 10_000), ("delivered", 200)),
        (for_ever(OK + b"Content-Encoding: gzip\r\n\r\n", zlib.compress(bytes(10_000_000))), ("delivered", 200)),
    ],
)
async def test_an_answer_without_end_ends_the_attempt_and_keeps_nobody_waiting(
    sender: Sender, answer: Answer, outcome: tuple[str, int | None]
) -> None:
    """The receiver shares the loop: what it writes in one turn is little, and so must be what is read of it in one."""
    loop = asyncio.get_running_loop()
    longest, last = 0.0, loop.time()

    async def watch() -> None:
        nonlocal longest, last
        while True:
            await asyncio.sleep(0.001)
            longest, last = max(longest, loop.time() - last), loop.time()

    watching = asyncio.create_task(watch())
    async with receiving(answer) as receiver, asyncio.timeout(10):
        verdict, status, _ = said(await send(sender, receiver))
    watching.cancel()
    assert (verdict, status) == outcome
    assert longest < 1


@pytest.mark.parametrize(
    ("beginning", "outcome"),
    [
        (b"", ("retry", None)),
        (b"HTTP/1.1 20", ("retry", None)),
        (EARLY * 10, ("retry", None)),
        (OK, ("delivered", 200)),
        (OK + b"X: y\r\n", ("delivered", 200)),
        (OK + b"Content-Length: 10\r\n\r\nhello", ("delivered", 200)),
    ],
)
async def test_an_answer_that_stops_is_given_up_and_counts_as_far_as_it_came(
    beginning: bytes, outcome: tuple[str, int | None]
) -> None:
    async def write(writer: asyncio.StreamWriter) -> None:
        writer.write(beginning)
        await asyncio.sleep(60)

    async with Sender(Guard(LOOPBACK), Signer([]), timeout=0.3) as sender, receiving(write) as receiver:
        assert said(await send(sender, receiver))[:2] == outcome


async def test_informational_answers_that_drip_do_not_outlast_the_time_of_an_attempt() -> None:
    async def write(writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(EARLY)
            await writer.drain()
            await asyncio.sleep(0.01)

    async with Sender(Guard(LOOPBACK), Signer([]), timeout=0.5) as sender, receiving(write) as receiver:
        outcome = await send(sender, receiver)
        assert (outcome.verdict, outcome.error) == ("retry", "no answer within 0.5 s")


@pytest.mark.parametrize(
    "error",
    [
        *(OSError(number, "there is no more") for number in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)),
        OSError(errno.EADDRNOTAVAIL, "no port"),
        socket.gaierror(socket.EAI_MEMORY, "no memory"),
        MemoryError(),
    ],
)
async def test_what_this_machine_lacks_is_neither_an_attempt_nor_a_fault_of_the_host(error: BaseException) -> None:
    def look_up(_host: str, _port: int, _family: int) -> list[str]:
        raise error

    async with Sender(Guard(LOOPBACK), Signer([]), timeout=5, lookup=look_up) as sender:
        outcome = await sender.send(Claim(1, 1, 0, "h", "http://name.example/", "id", "e", "c", "{}"), 1e9)
    assert (outcome.verdict, outcome.host_failed) == ("postponed", None)
    assert outcome.error


async def test_a_name_that_does_not_exist_is_an_attempt() -> None:
    async with Sender(Guard(LOOPBACK), Signer([]), timeout=20) as sender:
        outcome = await sender.send(Claim(1, 1, 0, "h", "http://no-such-host.invalid/", "id", "e", "c", "{}"), 1e9)
    assert outcome.verdict == "retry"
