"""A client that polls over plain HTTP and does the upgrade by hand, so that a test sees and orders every request."""

from __future__ import annotations

import asyncio
import contextlib
import json
from types import TracebackType
from typing import Any, Self

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from support.wire import Conversation

SEPARATOR = "\x1e"
QUERY = "EIO=4&transport=polling"


class PollingClient(Conversation):
    """One session: `async with PollingClient(server.url, auth={"token": …}) as client`.

    Nothing goes on behind the test's back: a poll is asked for with `poll`, or from `start()` on.

    Args:
        url: the server's, without the path.
        auth: of the CONNECT packet; `...` sends none.
        headers: of every request.
    """

    def __init__(self, url: str, auth: Any = ..., **headers: str) -> None:
        super().__init__()
        self._url = url
        self._auth = auth
        self.http = httpx.AsyncClient(base_url=url, trust_env=False, timeout=60, headers=headers)
        self.session = ""
        """The Engine.IO session's id."""
        self.ws: ClientConnection | None = None
        self._posts = asyncio.Lock()
        self._polls: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        # Two connections, for polls and posts, open from now on: see `begin_poll`.
        answer, _ = await asyncio.gather(self.http.get(f"/socket.io/?{QUERY}"), self.http.get("/api/health"))
        assert answer.status_code == 200, answer.text
        assert answer.text[0] == "0", answer.text
        self.open_packet = json.loads(answer.text[1:])
        self.session = self.open_packet["sid"]
        if self._auth is not ...:
            await self.connect(self._auth)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.ws is not None:
            await self.ws.close()
        for task in (self._polls, self._reader):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if self.ws is None:
            with contextlib.suppress(httpx.HTTPError):
                await self.ask("POST", content="1")  # politely, so that it is gone before the test ends
                await self.ask("GET")
        await self.http.aclose()

    # One request each.

    async def ask(self, method: str, **options: Any) -> httpx.Response:
        """A request of this session, and its answer whatever it is."""
        return await self.http.request(method, f"/socket.io/?{QUERY}&sid={self.session}", **options)

    async def poll(self) -> list[str]:
        """One GET that must succeed; its packets."""
        return await self.take(await self.ask("GET"))

    async def take(self, answer: httpx.Response) -> list[str]:
        """Take in what a GET was answered with."""
        assert answer.status_code == 200, answer.text
        packets = answer.text.split(SEPARATOR)
        for packet in packets:
            await self.on_packet(packet)
        return packets

    async def begin_poll(self) -> asyncio.Task[httpx.Response]:
        """A GET that is on its way to the server, before anything that is sent from now on."""
        return await self.begin("GET")

    async def begin(self, method: str, **options: Any) -> asyncio.Task[httpx.Response]:
        """A request that has been sent, but perhaps not been answered.

        The server reads its connections in the order in which something came; a connection that is yet to be accepted
        would be overtaken, so the pool must have one that is idle.
        """
        sent = asyncio.Event()

        async def trace(event: str, _: object) -> None:
            if event == "http11.receive_response_headers.started":
                sent.set()

        request = asyncio.create_task(self.ask(method, extensions={"trace": trace}, **options))
        await sent.wait()
        return request

    async def post(self, *packets: str) -> httpx.Response:
        """One POST."""
        return await self.ask("POST", content=SEPARATOR.join(packets))

    async def poll_until(self, text: str) -> str:
        """Poll until a packet begins with this."""
        while True:
            for packet in await self.poll():
                if packet.startswith(text):
                    return packet

    async def connect(self, auth: object = None) -> None:
        """Say CONNECT, and poll for the answer."""
        assert (await self.post("40" + ("" if auth is None else json.dumps(auth)))).text == "ok"
        self.connected(await self.poll_until("4"))

    # What `Conversation` builds upon.

    async def send(self, packet: str | bytes) -> None:
        if self.ws is not None:
            await self.ws.send(packet)
            return
        assert isinstance(packet, str)
        async with self._posts:
            answer = await self.post(packet)
        assert (answer.status_code, answer.text) == (200, "ok"), answer.text

    async def call(self, name: str, *data: Any, seconds: float = 20.0) -> Any:
        """Emit, and return what the ack says; poll for it, unless somebody does already."""
        answer = await self.ask_for_ack(name, *data)
        async with asyncio.timeout(seconds):
            while not answer.done() and self._polls is None and self.ws is None:
                await self.poll()
            return await answer

    def start(self) -> None:
        """Poll from now on, until the session ends."""
        self._resting = False
        self._polls = asyncio.create_task(self._poll_on())

    async def rest(self) -> None:
        """Wait for the poll that is under way, and begin no other."""
        self._resting = True
        if self._polls is not None:
            await self._polls
            self._polls = None

    async def _poll_on(self) -> None:
        while not self._resting and not self.closed.is_set():
            answer = await self.ask("GET")
            packets = answer.text.split(SEPARATOR) if answer.status_code == 200 else ["1"]
            for packet in packets:
                await self.on_packet(packet)
            if "1" in packets:
                self.on_end()

    # The upgrade, step by step.

    async def websocket(self) -> ClientConnection:
        """Open a WebSocket for this session."""
        return await open_websocket(self._url, self.session)

    async def probe(self) -> ClientConnection:
        """Open one, and have it answer."""
        ws = await self.websocket()
        await ws.send("2probe")
        assert await ws.recv() == "3probe"
        return ws

    async def take_over(self, ws: ClientConnection) -> None:
        """Complete the upgrade, and go on with this WebSocket."""
        await ws.send("5")
        self.carry_on(ws)

    def carry_on(self, ws: ClientConnection) -> None:
        """From now on send and receive here."""
        self.ws = ws
        self._reader = asyncio.create_task(self._read(ws))

    async def upgrade(self) -> None:
        """All of it, as client libraries do it."""
        ws = await self.probe()
        await self.rest()
        await self.take_over(ws)

    async def _read(self, ws: ClientConnection) -> None:
        try:
            async for packet in ws:
                await self.on_packet(str(packet))
        except ConnectionClosed:
            pass
        finally:
            self.on_end()


async def open_websocket(
    url: str, session: str | None = None, *, query: str = "EIO=4&transport=websocket", **headers: str
) -> ClientConnection:
    """A WebSocket to the server at `url` (http://…)."""
    sid = "" if session is None else f"&sid={session}"
    return await connect(
        f"ws{url.removeprefix('http')}/socket.io/?{query}{sid}",
        compression=None,
        max_size=None,
        ping_interval=None,
        proxy=None,
        additional_headers=headers,
    )


async def closes(ws: ClientConnection) -> tuple[list[str | bytes], int | None]:
    """Everything that still comes on a WebSocket until the server closes it, and the code."""
    packets: list[str | bytes] = []
    async with asyncio.timeout(20):
        with contextlib.suppress(ConnectionClosed):
            while True:
                packets.append(await ws.recv())
    return packets, ws.close_code


async def handshakes(port: int, number: int, at_a_time: int = 16) -> None:
    """So many sessions that nobody will use, as cheaply as it gets: pipelined, on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = f"GET /socket.io/?{QUERY} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    for done in range(0, number, at_a_time):
        some = min(at_a_time, number - done)
        writer.write(request * some)
        for _ in range(some):
            answer = await reader.readuntil(b'"maxPayload":1000000}')
            assert answer.startswith(b"HTTP/1.1 200 OK")
    writer.close()
    await writer.wait_closed()
