"""A TCP proxy between a client and a server, that does to a connection what networks do.

It knows nothing of WebSocket: it passes bytes, or it does not. All its verbs take effect at once, on every connection.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from types import TracebackType
from typing import Self

CHUNK = 65536


class Proxy:
    """Listens on a port of its own: `async with Proxy(server.port) as proxy: … proxy.url …`.

    Args:
        port: of the server, on 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._pairs: set[_Pair] = set()
        self._server: asyncio.Server | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._trap: bytes | None = None
        self.port = 0
        self.accepted = 0
        """How many connections have come so far."""
        self.sprung = 0
        """How often the trap of `reset_on` was sprung."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def open(self) -> int:
        """How many connections there are now."""
        return len(self._pairs)

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.refuse()

    def point_at(self, port: int) -> None:
        """New connections go to another server from now on; those there are stay where they are."""
        self._target = port

    async def listen(self) -> None:
        """Accept connections (again), always on the same port."""
        assert self._server is None
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, limit=CHUNK)
        self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Cut all connections, and refuse new ones (there is nobody who listens) until `listen`."""
        if self._server is not None:
            # Whoever was accepted just now is let in first: asyncio would forget to close a socket whose server is gone.
            asyncio.get_running_loop().remove_reader(self._server.sockets[0].fileno())
            await asyncio.sleep(0)
            self._server.close()
            self._server = None
        await self.cut()

    async def cut(self) -> None:
        """End all connections in good order."""
        await self._end(reset=False)

    async def reset(self) -> None:
        """End all connections with a TCP reset."""
        await self._end(reset=True)

    def stall(self) -> None:
        """Pass nothing on and close nothing, until `resume`. New connections are accepted, and stall as well."""
        self._flowing.clear()

    def resume(self) -> None:
        """Pass on what was held back, and all that follows."""
        self._flowing.set()

    def reset_on(self, wanted: bytes | None) -> None:
        """Set a trap: a connection is reset in place of passing on bytes of the *server* that contain `wanted`.

        (The client's bytes are masked by WebSocket, so they cannot be read.) `None` takes the trap away.
        """
        self._trap = wanted

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            upstream = await asyncio.open_connection("127.0.0.1", self._target, limit=CHUNK)
        except OSError:
            _abort(writer)
            return
        pair = _Pair(self, (reader, writer), upstream)
        self._pairs.add(pair)
        try:
            await pair.run()
        finally:
            self._pairs.discard(pair)

    async def _end(self, *, reset: bool) -> None:
        for pair in tuple(self._pairs):
            pair.end(reset=reset)
        while self._pairs:
            await asyncio.sleep(0.001)

    async def passes(self, data: bytes, *, from_server: bool) -> bool:
        """Wait while stalled; whether `data` may go on."""
        await self._flowing.wait()
        if not from_server or self._trap is None or self._trap not in data:
            return True
        self.sprung += 1
        return False


Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Pair:
    """One connection of a client, and ours to the server for it."""

    def __init__(self, proxy: Proxy, client: Stream, server: Stream) -> None:
        self._proxy = proxy
        self._client, self._server = client, server
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Until either side ends, or `end`."""
        (client_reader, client_writer), (server_reader, server_writer) = self._client, self._server
        self._tasks = [
            asyncio.create_task(self._pump(client_reader, server_writer, from_server=False)),
            asyncio.create_task(self._pump(server_reader, client_writer, from_server=True)),
        ]
        await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in (client_writer, server_writer):
            writer.close()

    def end(self, *, reset: bool) -> None:
        if reset:
            self._reset()
        for task in self._tasks:
            task.cancel()

    def _reset(self) -> None:
        for _, writer in (self._client, self._server):
            _abort(writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, from_server: bool) -> None:
        try:
            while data := await reader.read(CHUNK):
                if not await self._proxy.passes(data, from_server=from_server):
                    self._reset()
                    return
                writer.write(data)
                await writer.drain()
        except OSError:
            self._reset()


def _abort(writer: asyncio.StreamWriter) -> None:
    """Close with a reset in place of a FIN."""
    connection = writer.get_extra_info("socket")
    if connection is not None and not writer.is_closing():
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
