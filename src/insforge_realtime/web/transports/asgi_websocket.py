"""A WebSocket of any ASGI server: the transport where fast_websocket.py cannot be plugged in.

It behaves as that does, and costs more: two tasks for each connection, and a call into the server for each message.
A message reaches us when the server has read it whole, so the server's own limit on its size is what protects memory.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from insforge_realtime import tasks
from insforge_realtime.errors import Close, ProtocolError
from insforge_realtime.protocol import handshake
from insforge_realtime.protocol.upgrade import UPGRADE_SECONDS
from insforge_realtime.web.connection import CLOSE_SECONDS, SHUTDOWN_SECONDS, Connection, Receiver
from insforge_realtime.web.gateway import BAD_REQUEST, Asked
from insforge_realtime.web.proxies import header_values
from insforge_realtime.web.transports.send_queue import SendQueue
from insforge_realtime.web.transports.upgrade import UpgradeAttempt

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from starlette.types import Message, Receive, Scope, Send

    from insforge_realtime.hub import Batch
    from insforge_realtime.web.gateway import Gateway, Refusal


log = structlog.get_logger("insforge_realtime.web")


class WebSocketEndpoint:
    """The ASGI application behind `/socket.io/`, for WebSockets.

    Args:
        gateway: what all connections share.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = Asked.of(scope)
        await receive()
        websocket = AsgiWebSocket(self._gateway, receive, send)
        refusal = self._gateway.entry(websocket, asked) or self._gateway.refusal(asked)
        try:
            chosen = handshake.subprotocol(header_values(scope, b"sec-websocket-protocol"))
        except ProtocolError:
            refusal = refusal or BAD_REQUEST
        if refusal is not None:
            self._gateway.sockets.leave(websocket)
            await _refuse(scope, send, refusal)
            return
        await websocket.serve(asked, chosen)


async def _refuse(scope: Scope, send: Send, refusal: Refusal) -> None:
    """With the status and the reason, where the server can say more than 403."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close"})
        return
    headers = [(name.lower().encode(), value.encode()) for name, value in refusal.headers.items()]
    headers.append((b"content-type", b"application/json"))
    await send({"type": "websocket.http.response.start", "status": int(refusal.status), "headers": headers})
    await send({"type": "websocket.http.response.body", "body": refusal.body.encode()})


class AsgiWebSocket:
    """One WebSocket; a transport.

    Args:
        gateway: what all connections share.
        receive, send: the server's.
    """

    def __init__(self, gateway: Gateway, receive: Receive, send: Send) -> None:
        self._gateway = gateway
        self._asgi_receive = receive
        self._asgi_send = send
        self._queue = SendQueue(gateway)
        self._more = asyncio.Event()
        self._readable = asyncio.Event()
        self._readable.set()
        self._cut = asyncio.get_running_loop().create_future()
        self._goodbye: Close | None = None
        self._cut_at: float | None = None
        self._receiver: Receiver
        self._limit = gateway.max_stranger_bytes

    async def serve(self, asked: Asked, subprotocol: str | None) -> None:
        """Accept it, and carry packets until either side hangs up."""
        try:
            await self._asgi_send({"type": "websocket.accept", "subprotocol": subprotocol})
            await self._carry(asked)
        finally:
            self._gateway.sockets.leave(self)

    async def _carry(self, asked: Asked) -> None:
        self._begin(asked)
        both = [tasks.start(self._read(), "reader of a WebSocket"), tasks.start(self._write(), "writer of a WebSocket")]
        try:
            await asyncio.wait((*both, self._cut), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            self._queue.clear()
            self._receiver.lost()

    def _begin(self, asked: Asked) -> None:
        if asked.sid is None:
            connection = Connection(self._gateway, self, asked.address)
            self._receiver = connection
            self.send(connection.open_packet([]))
        else:
            self._cut_after(UPGRADE_SECONDS)
            self._receiver = probe = UpgradeAttempt(self._gateway.polls[asked.sid], self)
            probe.begin()

    async def _read(self) -> None:
        while (message := await self._asgi_receive())["type"] == "websocket.receive":
            packet = message.get("text")
            packet = message["bytes"] if packet is None else packet
            if self._goodbye is not None:
                continue
            if self._limit is not None and len(packet) > self._limit:
                self._receiver.too_large()
            else:
                self._receiver.receive(packet)
            await self._readable.wait()

    async def _write(self) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            for packet in self._packets():
                if not await self._sent({"type": "websocket.send", "text": packet}):
                    return
            if self._goodbye is not None:
                end = self._goodbye
                await self._sent({"type": "websocket.close", "code": end.code, "reason": end.reason})
                return

    async def _sent(self, message: Message) -> bool:
        """Whether the server took it. If it did not, the client is gone; what servers raise then is up to them."""
        try:
            await self._asgi_send(message)
        except Exception as error:
            log.debug("websocket gone", error=type(error).__name__)
            return False
        return True

    def _packets(self) -> Iterable[str]:
        """One at a time: what has not been sent counts as waiting."""
        while taken := self._queue.take(0):
            yield taken[0]

    # Transport

    stream = None

    def deliver(self, batch: Batch) -> None:
        """Queue events."""
        self._add(batch.packets, batch.size)

    def send(self, packet: str) -> None:
        self._add((packet,), len(packet))

    def pause_reading(self) -> None:
        self._readable.clear()

    def resume_reading(self) -> None:
        self._readable.set()

    def close(self, end: Close) -> None:
        if self._goodbye is None:
            self._goodbye = end
            self._readable.set()
            self._more.set()
            self._cut_after(SHUTDOWN_SECONDS if self._gateway.closing else CLOSE_SECONDS)

    def cut(self) -> None:
        if not self._cut.done():
            self._cut.set_result(None)

    def admit(self, admitted: bool) -> None:
        gateway = self._gateway
        self._limit = gateway.max_message_bytes if admitted else gateway.max_stranger_bytes
        (gateway.sockets.vouch if admitted else gateway.sockets.doubt)(self)

    def give_way(self) -> None:
        """Another socket gets the place."""
        self._gateway.tell_of_a_place("websocket")
        self.cut()

    def carry(self, receiver: Receiver) -> None:
        """The upgrade is done."""
        self._receiver = receiver
        self._cut_at = None

    def _add(self, packets: Sequence[str], size: int) -> None:
        if self._goodbye is not None or self._cut.done():
            return
        self._more.set()
        if not self._queue.add(packets, size):
            self._receiver.too_slow()

    # Deadlines

    def _cut_after(self, seconds: float) -> None:
        self._cut_at = asyncio.get_running_loop().time() + seconds
        self._gateway.wheel.schedule(self, self._cut_at)

    def tick(self, now: float) -> float | None:
        """The wheel calls this."""
        if self._cut_at is not None and now >= self._cut_at:
            self.cut()
        return None
