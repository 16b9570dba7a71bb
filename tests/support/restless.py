"""Clients that are made of sockets, cheap enough for hundreds of them, and that can leave in every way there is.

What lives here: HTTP, WebSocket and Engine.IO as far as a client that is never wrong needs them, and the faults. What they
are used for is the soak, tests/e2e/test_soak.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from support.raw import masked_text_frame

SEPARATOR = "\x1e"
KEY = "AAAAAAAAAAAAAAAAAAAAAA=="
GONE = (OSError, EOFError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)
"""What a socket raises whose other end is gone."""


class Over(Exception):
    """The session has ended."""


class Line:
    """One TCP connection.

    Args:
        port: of the server, on this machine.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.reader: asyncio.StreamReader = None  # type: ignore[assignment]
        self.writer: asyncio.StreamWriter = None  # type: ignore[assignment]
        self._half_closed = False

    async def open(self) -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port)

    def abort(self) -> None:
        if self.writer is not None:
            self.writer.transport.abort()

    def half_close(self) -> None:
        self._half_closed = True
        with contextlib.suppress(*GONE):
            self.writer.write_eof()

    def write(self, data: bytes) -> None:
        if self._half_closed:
            raise Over
        self.writer.write(data)

    async def _head(self) -> tuple[int, bytes]:
        head = await self.reader.readuntil(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]), head


class Http(Line):
    """HTTP requests, one after the other."""

    async def ask(self, method: str, path: str, body: str = "") -> tuple[int, str]:
        """A request, and its answer: status and body.

        Raises:
            Over: the server has hung up.
        """
        try:
            if self.writer is None:
                await self.open()
            data = body.encode()
            head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(data)}\r\n\r\n"
            self.write(head.encode() + data)
            status, answer = await self._head()
            size = next(
                int(line.split(b":")[1])
                for line in answer.split(b"\r\n")
                if line.lower().startswith(b"content-length:")
            )
            return status, (await self.reader.readexactly(size)).decode()
        except GONE as error:
            raise Over from error


class WebSocket(Line):
    """A WebSocket, after its handshake."""

    async def handshake(self, path: str) -> int:
        """Open it. The status of the answer."""
        try:
            await self.open()
            self.write(
                f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n".encode()
            )
            return (await self._head())[0]
        except GONE as error:
            raise Over from error

    def send(self, packet: str) -> None:
        self.write(masked_text_frame(packet))

    def say_goodbye(self) -> None:
        self.write(b"\x88\x82\0\0\0\0\x03\xe8")

    async def receive(self) -> str:
        """The next packet.

        Raises:
            Over: there is none.
        """
        try:
            first, size = await self.reader.readexactly(2)
            if size > 125:
                size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8), "big")
            payload = await self.reader.readexactly(size)
        except GONE as error:
            raise Over from error
        if first != 0x81:
            raise Over
        return payload.decode()


@dataclass
class Stay:
    """One client's time in one channel.

    Args:
        channel: which.
        begun: what the caller wants to know about the moment when the subscribe was acknowledged.
        ids: of the messages that came, in order.
        left: whether it has been left.
    """

    channel: str
    begun: Any
    ids: list[str] = field(default_factory=list)
    left: bool = False


class Session:
    """One Engine.IO session with one Socket.IO connection in it.

    Args:
        port: of the server.
        token: who it is.
        now: called when a subscribe is acknowledged, for `Stay.begun`.
    """

    def __init__(self, port: int, token: str, now: Any) -> None:
        self._port = port
        self._token = token
        self._now = now
        self._polls, self._posts = Http(port), Http(port)
        self._websocket: WebSocket | None = None
        self._sid = ""
        self._acks: dict[int, asyncio.Future[Any]] = {}
        self._ids = itertools.count(1)
        self._posting = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._reading = asyncio.Event()
        self._reading.set()
        self._rest = False
        self._at_rest = asyncio.Event()
        self._extra: list[Line] = []
        self.connected = asyncio.Event()
        self.over = asyncio.Event()
        self.history: list[str] = []
        self.stays: list[Stay] = []
        """All, in the order in which they began."""
        self._in: dict[str, Stay] = {}

    # The ways in

    async def open(self, transport: str) -> None:
        """Connect by `polling` or `websocket`.

        Raises:
            Over: the server did not let it in, or ended it.
        """
        if transport == "websocket":
            await self._open_websocket()
        else:
            status, body = await self._polls.ask("GET", self._path("polling"))
            if status != 200:
                raise Over
            self._sid = json.loads(body[1:])["sid"]
            self._start(self._poll)
        await self.send("40" + json.dumps({"token": self._token}))
        await self._until(self.connected.wait())

    async def _open_websocket(self) -> None:
        self._websocket = websocket = WebSocket(self._port)
        if await websocket.handshake(self._path("websocket")) != 101:
            raise Over
        await websocket.receive()
        self._start(self._read, websocket)

    async def upgrade(self, give_up: str | None = None) -> None:
        """Change from polling to a WebSocket; or begin to.

        Args:
            give_up: after the `handshake`, after the `probe`, or `between` the server's answer and the last word.

        Raises:
            Over: the session has ended.
        """
        websocket = WebSocket(self._port)
        self._extra.append(websocket)
        if await websocket.handshake(self._path("websocket")) != 101:
            raise Over
        if give_up != "handshake":
            websocket.send("2probe")
        if give_up in (None, "between"):
            assert await websocket.receive() == "3probe"
        if give_up is not None:
            websocket.abort()
            return
        self._rest = True
        await self._until(self._at_rest.wait())
        async with self._posting:
            websocket.send("5")
            self._websocket = websocket
        self._start(self._read, websocket)

    @property
    def polls(self) -> bool:
        """Whether it could be upgraded."""
        return self._websocket is None and not self._rest

    # Requests

    async def call(self, name: str, data: object) -> Any:
        """Emit, and return what the ack says.

        Raises:
            Over: the session has ended.
        """
        number = next(self._ids)
        answer = self._acks[number] = asyncio.get_running_loop().create_future()
        await self.send(f"42{number}{json.dumps([name, data])}")
        await self._until(asyncio.shield(answer))
        return answer.result()

    async def subscribe(self, channel: str) -> None:
        answer = await self.call("realtime:subscribe", {"channel": channel})
        assert answer["ok"], answer

    async def unsubscribe(self, channel: str) -> None:
        """What came before the ack belongs to the stay."""
        answer = await self.call("realtime:unsubscribe", {"channel": channel})
        assert answer["ok"], answer
        self._leave(channel)

    async def send(self, packet: str) -> None:
        async with self._posting:
            if self._websocket is not None:
                self._websocket.send(packet)
                return
            status, _ = await self._posts.ask("POST", self._path("polling"), packet)
            if status != 200:
                self._end()
                raise Over

    async def _until(self, what: Any) -> None:
        """Wait for it, but no longer than the session lasts."""
        waiting = asyncio.ensure_future(what)
        over = asyncio.ensure_future(self.over.wait())
        try:
            await asyncio.wait((waiting, over), return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                raise Over
        finally:
            waiting.cancel()
            over.cancel()

    # The ways out

    async def close(self) -> None:
        """As one should."""
        with contextlib.suppress(Over):
            if self._websocket is not None:
                self._websocket.say_goodbye()
            else:
                await self.send("1")
        await self._wait_for_the_end()

    async def speak_nonsense(self) -> None:
        """Until the server hangs up."""
        with contextlib.suppress(Over):
            await self.send("4nonsense")
        await self._wait_for_the_end()

    async def half_close(self) -> None:
        """Say that nothing more comes, and read what there is."""
        (self._websocket or self._polls).half_close()
        await self._wait_for_the_end()

    async def stop_reading(self, seconds: float) -> None:
        """Then go on, if there is anything left to go on with."""
        self._reading.clear()
        await asyncio.sleep(seconds)
        self._reading.set()

    async def vanish(self, seconds: float) -> None:
        """Neither read nor answer for longer than the server's patience; then it must have ended this."""
        await self.stop_reading(seconds)
        await self._wait_for_the_end()

    async def _wait_for_the_end(self) -> None:
        try:
            async with asyncio.timeout(30):
                await self.over.wait()
        except TimeoutError:
            raise AssertionError(f"the session does not end: {self!r}") from None
        self.abort()

    def __repr__(self) -> str:
        running = [task.get_stack(limit=1) for task in self._tasks]
        return f"sid {self._sid}, websocket {self._websocket}, rest {self._rest}, {self.history}, {running}"

    def abort(self) -> None:
        """Now, without a word."""
        for line in (self._polls, self._posts, self._websocket, *self._extra):
            if line is not None:
                line.abort()
        for task in self._tasks:
            task.cancel()
        self._end()

    def _end(self) -> None:
        self.over.set()
        for channel in list(self._in):
            self._leave(channel)

    def _leave(self, channel: str) -> None:
        if channel in self._in:
            self._in.pop(channel).left = True

    # Incoming

    def _start(self, work: Callable[..., Coroutine[Any, Any, None]], *arguments: Any) -> None:
        task = asyncio.ensure_future(self._to_the_end(work, *arguments))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _to_the_end(self, work: Callable[..., Coroutine[Any, Any, None]], *arguments: Any) -> None:
        try:
            await work(*arguments)
        except Over:
            self._end()

    async def _poll(self) -> None:
        while not self._rest:
            await self._reading.wait()
            status, body = await self._polls.ask("GET", self._path("polling"))
            if status != 200:
                raise Over
            for packet in body.split(SEPARATOR):
                self._on_packet(packet)
        self._at_rest.set()

    async def _read(self, websocket: WebSocket) -> None:
        while True:
            await self._reading.wait()
            self._on_packet(await websocket.receive())

    def _on_packet(self, packet: str) -> None:
        if packet.startswith("42"):
            self._on_event(*json.loads(packet[2:]))
        elif packet.startswith("43"):
            header = packet[2 : packet.index("[")]
            self._on_ack(int(header), json.loads(packet[2 + len(header) :])[0])
        elif packet.startswith("40"):
            self.connected.set()
        elif packet == "2":
            if self._reading.is_set():  # it was on its way to us already
                self._start(self.send, "3")
        elif packet != "6":
            raise Over

    def _on_event(self, name: str, data: Any) -> None:
        if name.startswith(("presence:", "realtime:")):
            return
        meta = data["meta"]
        if meta["channel"] in self._in:
            self._in[meta["channel"]].ids.append(meta["messageId"])

    def _on_ack(self, number: int, answer: Any) -> None:
        if answer.get("ok") and "presence" in answer and answer["channel"] not in self._in:
            stay = Stay(answer["channel"], self._now(answer["channel"]))
            self.stays.append(stay)
            self._in[stay.channel] = stay
        answered = self._acks.pop(number)
        if not answered.done():
            answered.set_result(answer)

    def _path(self, transport: str) -> str:
        return f"/socket.io/?EIO=4&transport={transport}" + (f"&sid={self._sid}" if self._sid else "")
