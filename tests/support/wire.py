"""A client that speaks Socket.IO packets itself, so that a test sees every frame and can send any."""

from __future__ import annotations

import asyncio
import json
from types import TracebackType
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed


class Refused(Exception):
    """The server answered CONNECT_ERROR; `error` is its JSON."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(str(error))
        self.error = error


class Conversation:
    """What a client remembers and asks for, whichever transport carries its packets."""

    def __init__(self) -> None:
        self._acks: dict[int, asyncio.Future[Any]] = {}
        self._ids = 0
        self.open_packet: dict[str, Any] = {}
        self.sid: str | None = None
        self.events: list[tuple[str, Any]] = []
        """Every event received, in order, as (name, data)."""
        self.packets: list[str] = []
        """Every packet received, in order."""
        self.closed = asyncio.Event()

    async def send(self, packet: str | bytes) -> None:
        """Send anything."""
        raise NotImplementedError

    async def emit(self, name: str, *data: Any) -> None:
        """Emit without asking for an ack."""
        await self.send("42" + json.dumps([name, *data]))

    async def call(self, name: str, *data: Any, seconds: float = 20.0) -> Any:
        """Emit, and return what the ack says."""
        answer = await self.ask_for_ack(name, *data)
        async with asyncio.timeout(seconds):
            return await answer

    async def ask_for_ack(self, name: str, *data: Any) -> asyncio.Future[Any]:
        """Emit; the ack is to come."""
        return await self.ask_in_text(json.dumps([name, *data]))

    async def ask_in_text(self, event: str) -> asyncio.Future[Any]:
        """Emit an event that is JSON already; the ack is to come."""
        self._ids += 1
        answer = self._acks[self._ids] = asyncio.get_running_loop().create_future()
        await self.send(f"42{self._ids}{event}")
        return answer

    async def subscribe(self, channel: str) -> Any:
        return await self.call("realtime:subscribe", {"channel": channel})

    async def publish(self, channel: str, event: str, payload: Any) -> Any:
        return await self.call("realtime:publish", {"channel": channel, "event": event, "payload": payload})

    def named(self, name: str) -> list[Any]:
        """The data of every event of this name so far."""
        return [data for event, data in self.events if event == name]

    async def wait_for(self, name: str, number: int = 1, seconds: float = 20.0) -> list[Any]:
        """Until so many events of this name have come."""
        async with asyncio.timeout(seconds):
            while len(self.named(name)) < number:
                if self.closed.is_set():
                    raise AssertionError(f"closed with {len(self.named(name))} of {number} {name}: {self.packets[-3:]}")
                await asyncio.sleep(0.003)
        return self.named(name)

    def connected(self, answer: str) -> None:
        """Take in the answer to CONNECT.

        Raises:
            Refused: it is no.
        """
        if answer.startswith("44"):
            raise Refused(json.loads(answer[2:]))
        assert answer.startswith("40"), answer
        self.sid = json.loads(answer[2:])["sid"]

    async def on_packet(self, packet: str) -> None:
        """Take in one packet, and answer it if it is a ping."""
        self.packets.append(packet)
        if packet == "2":
            await self.send("3")
        elif packet.startswith("42"):
            name, *data = json.loads(packet[2:])
            self.events.append((name, data[0] if data else None))
        elif packet.startswith("43"):
            header = packet[2 : packet.index("[")]
            future = self._acks.pop(int(header), None)
            if future is not None and not future.done():
                future.set_result(json.loads(packet[2 + len(header) :])[0])

    def on_end(self) -> None:
        """Nothing more comes."""
        self.closed.set()
        for future in self._acks.values():
            if not future.done():
                future.cancel()


class WireClient(Conversation):
    """One connection: `async with WireClient(server.ws_url, auth={"token": …}) as client`.

    Args:
        url: the WebSocket URL, with its query.
        auth: of the CONNECT packet; `...` sends no CONNECT at all.
    """

    def __init__(self, url: str, auth: Any = None, **options: Any) -> None:
        super().__init__()
        self._url = url
        self._auth = auth
        self._options = options
        self.ws: ClientConnection = None  # type: ignore[assignment]

    async def __aenter__(self) -> Self:
        self.ws = await connect(
            self._url, compression=None, max_size=None, ping_interval=None, proxy=None, **self._options
        )
        opened = str(await self.ws.recv())
        assert opened[0] == "0", opened
        self.open_packet = json.loads(opened[1:])
        if self._auth is not ...:
            await self.connect()
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.ws.close()
        await self._reader

    async def connect(self) -> None:
        """Send CONNECT and read the answer. Before the reader runs, so only in `__aenter__`."""
        await self.ws.send("40" + ("" if self._auth is None else json.dumps(self._auth)))
        try:
            self.connected(str(await self.ws.recv()))
        except Refused:
            await self.ws.close()
            raise

    async def send(self, packet: str | bytes) -> None:
        await self.ws.send(packet)

    async def _read(self) -> None:
        try:
            async for packet in self.ws:
                await self.on_packet(str(packet))
        except ConnectionClosed:
            pass
        finally:
            self.on_end()
