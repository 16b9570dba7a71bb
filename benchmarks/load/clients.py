"""Clients that understand what they get, for whoever must look at each event or answer heartbeats: one class a transport.

What lives here: Engine.IO and Socket.IO as far as a client that makes no mistake needs them. A crowd that only counts
costs a fraction of it: crowd.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any, Self, cast

from benchmarks.load.wire import GONE, HANDSHAKE, read_packets, text_frame

Events = Callable[[bytes], object]
"""Called with each event as it came: `["name",{…}]`."""


def ignore(event: bytes) -> None:
    """Do nothing with an event."""


class Client:
    """What both transports have in common: the way in, acks, heartbeats.

    Args:
        on_event: gets every event of this client.
    """

    def __init__(self, on_event: Events) -> None:
        self.closed = False
        self.on_event = on_event
        self._acks: dict[int, asyncio.Future[Any]] = {}
        self._next = 0
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._connected: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def call(self, name: str, data: object) -> dict[str, Any]:
        """Emit an event, and return its ack.

        Raises:
            ConnectionError: the connection has ended before.
        """
        if self.closed:
            raise ConnectionError
        self._next += 1
        number = self._next
        answer = self._acks[number] = asyncio.get_running_loop().create_future()
        self.send(f"42{number}{json.dumps([name, data])}")
        return cast(dict[str, Any], await answer)

    async def subscribe(self, channel: str) -> None:
        """Subscribe to a channel.

        Raises:
            RuntimeError: it is refused.
        """
        answer = await self.call("realtime:subscribe", {"channel": channel})
        if not answer["ok"]:
            raise RuntimeError(f"{channel}: {answer}")

    def send(self, packet: str) -> None:
        """Send one Engine.IO packet, now or soon."""
        raise NotImplementedError

    def abort(self) -> None:
        """Be gone."""
        raise NotImplementedError

    async def _enter(self, token: str) -> None:
        await self._opened  # what comes together with the handshake, a server need not read
        self.send("40" + json.dumps({"token": token}))
        await self._connected

    def _receive(self, packet: bytes) -> None:
        if packet.startswith(b"42"):
            self.on_event(packet[2:])
        elif packet == b"2":
            self.send("3")
        elif packet.startswith(b"43"):
            self._acknowledge(packet[2:])
        elif packet.startswith(b"40") and not self._connected.done():
            self._connected.set_result(None)
        elif packet.startswith(b"0") and not self._opened.done():
            self._opened.set_result(None)
        elif packet.startswith((b"1", b"41", b"44")):
            self._end()

    def _acknowledge(self, ack: bytes) -> None:
        """Take an ack: the number of a call, and an array with the answer."""
        number, bracket, rest = ack.partition(b"[")
        answered = self._acks.pop(int(number))
        if not answered.done():
            answered.set_result(json.loads(bracket + rest)[0])

    def _end(self) -> None:
        """Tell all that wait that nothing more comes."""
        self.closed = True
        waiting = [self._opened, self._connected, *self._acks.values()]
        self._acks.clear()
        for future in waiting:
            if not future.done():
                future.set_exception(ConnectionError("closed"))
                future.exception()  # nobody has to look


class WebSocketClient(Client, asyncio.Protocol):
    """One WebSocket, straight on its transport."""

    def __init__(self, on_event: Events) -> None:
        super().__init__(on_event)
        self._unread = b""
        self._open = False

    @classmethod
    async def connect(cls, port: int, token: str, on_event: Events = ignore) -> Self:
        """Connect, and return the client once it is let in.

        Raises:
            ConnectionError: the server does not let it in.
            TimeoutError: it has not in a minute.
        """
        async with asyncio.timeout(60):
            _, client = await asyncio.get_running_loop().create_connection(lambda: cls(on_event), "127.0.0.1", port)
            client.transport.write(HANDSHAKE)
            await client._enter(token)
        return client

    def send(self, packet: str) -> None:
        self.transport.write(text_frame(packet.encode()))

    def abort(self) -> None:
        self.transport.abort()
        self._end()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def data_received(self, data: bytes) -> None:
        data = self._unread + data if self._unread else data
        at = 0
        if not self._open:
            at = data.find(b"\r\n\r\n") + 4
            if at == 3:
                self._unread = data
                return
            self._open = True
        packets, self._unread = read_packets(data, at)
        for packet in packets:
            self._receive(packet)


class PollingClient(Client):
    """HTTP long-polling on two connections: one polls, the other posts."""

    def __init__(self, on_event: Events, port: int) -> None:
        super().__init__(on_event)
        self._port = port
        self._path = "/socket.io/?EIO=4&transport=polling"
        self._writers: list[asyncio.StreamWriter] = []
        self._outbox: list[str] = []
        self._posts = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def connect(cls, port: int, token: str, on_event: Events = ignore) -> Self:
        """Connect, and return the client once it is let in.

        Raises:
            ConnectionError: the server does not let it in.
        """
        client = cls(on_event, port)
        polls, posts = await client._open_stream(), await client._open_stream()
        opened = await client._request(*polls, "GET")
        client._path += "&sid=" + json.loads(opened[1:])["sid"]
        client._receive(opened)
        client._tasks = [asyncio.create_task(client._poll(*polls)), asyncio.create_task(client._post(*posts))]
        await client._enter(token)
        return client

    def send(self, packet: str) -> None:
        self._outbox.append(packet)
        self._posts.set()

    def abort(self) -> None:
        for task in self._tasks:
            task.cancel()
        for writer in self._writers:
            writer.transport.abort()
        self._end()

    async def _open_stream(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers.append(writer)
        return reader, writer

    async def _poll(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(*GONE):
            while not self.closed:
                for packet in (await self._request(reader, writer, "GET")).split(b"\x1e"):
                    self._receive(packet)
        self._end()

    async def _post(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(*GONE):
            while await self._posts.wait():
                self._posts.clear()
                packets, self._outbox = self._outbox, []
                await self._request(reader, writer, "POST", "\x1e".join(packets).encode())
        self._end()

    async def _request(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, method: str, body: bytes = b""
    ) -> bytes:
        head = f"{method} {self._path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        if b" 200 " not in answer[:16]:
            raise ConnectionError(answer)
        size = int(answer.partition(b"content-length:")[2].partition(b"\r\n")[0])
        return await reader.readexactly(size)
