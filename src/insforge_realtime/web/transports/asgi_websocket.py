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
from insforge_realtime.web.admission import BAD_REQUEST, Asked
from insforge_realtime.web.proxies import header_values
from insforge_realtime.web.transports.endpoint import Endpoint
from insforge_realtime.web.transports.send_queue import QueuedTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from starlette.types import Message, Receive, Scope, Send

    from insforge_realtime.delivery import Congestion
    from insforge_realtime.web.admission import Refusal
    from insforge_realtime.web.gateway import Gateway, PollingSession
    from insforge_realtime.web.limiters import ConnectionLimiter
    from insforge_realtime.web.limits import Limits
    from insforge_realtime.web.timer_wheel import TimerWheel
    from insforge_realtime.web.transport import Receiver


log = structlog.get_logger("insforge_realtime.web")


class WebSocketEndpoint(Endpoint):
    """The ASGI application behind `/socket.io/`, for WebSockets."""

    __slots__ = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = Asked.of(scope)
        await receive()
        websocket = AsgiWebSocket(
            self.gateway, self.admission.sockets, self.limits, self.congestion, self.wheel, receive, send
        )
        refusal = self.admission.enter(websocket, asked) or self.admission.refusal(asked)
        try:
            chosen = handshake.subprotocol(header_values(scope, b"sec-websocket-protocol"))
        except ProtocolError:
            refusal = refusal or BAD_REQUEST
        if refusal is not None:
            self.admission.sockets.release(websocket)
            await _refuse(scope, send, refusal)
            return
        # Looked up now: the session may end while the server accepts.
        session = None if asked.sid is None else self.gateway.polling_sessions[asked.sid]
        await websocket.serve(lambda: self._receiver(websocket, session, asked.address), chosen)

    def _receiver(self, websocket: AsgiWebSocket, session: PollingSession | None, address: str) -> Receiver:
        """Return what takes in the packets of a WebSocket that is open."""
        if session is not None:
            websocket.cut_after(UPGRADE_SECONDS)
            return session.upgrade(websocket)
        connection = self.connect(websocket, address)
        websocket.send(connection.open_packet())
        return connection


async def _refuse(scope: Scope, send: Send, refusal: Refusal) -> None:
    """Answer with the status and the reason, where the server can give more than 403."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close"})
        return
    headers = [(name.lower().encode(), value.encode()) for name, value in refusal.headers.items()]
    headers.append((b"content-type", b"application/json"))
    await send({"type": "websocket.http.response.start", "status": int(refusal.status), "headers": headers})
    await send({"type": "websocket.http.response.body", "body": refusal.body.encode()})


class AsgiWebSocket(QueuedTransport):
    """One WebSocket; a transport.

    Args:
        gateway: how long its client has to take our last words.
        limiter, limits, congestion: of its queue and its messages.
        wheel: the timer.
        receive, send: the server's.
    """

    __slots__ = (
        "_asgi_receive",
        "_asgi_send",
        "_cut",
        "_cut_at",
        "_gateway",
        "_goodbye",
        "_more",
        "_receiver",
        "_wheel",
    )  # fmt: skip

    kind = "websocket"

    def __init__(
        self,
        gateway: Gateway,
        limiter: ConnectionLimiter,
        limits: Limits,
        congestion: Congestion,
        wheel: TimerWheel,
        receive: Receive,
        send: Send,
    ) -> None:
        super().__init__(limits, congestion, limiter, limits.message)
        self._gateway, self._wheel = gateway, wheel
        self._asgi_receive, self._asgi_send = receive, send
        self._more = asyncio.Event()
        self._cut = asyncio.get_running_loop().create_future()
        self._goodbye: Close | None = None
        self._cut_at: float | None = None
        self._receiver: Receiver

    async def serve(self, begin: Callable[[], Receiver], subprotocol: str | None) -> None:
        """Accept it, and carry packets until either side hangs up.

        Args:
            begin: called once it is open; returns what takes its packets in.
            subprotocol: the one that was chosen, if any was offered.
        """
        try:
            await self._asgi_send({"type": "websocket.accept", "subprotocol": subprotocol})
            await self._carry(begin)
        finally:
            self._limiter.release(self)

    async def _carry(self, begin: Callable[[], Receiver]) -> None:
        self._receiver = begin()
        both = [tasks.start(self._read(), "reader of a WebSocket"), tasks.start(self._write(), "writer of a WebSocket")]
        try:
            await asyncio.wait((*both, self._cut), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            self._queue.clear()
            self._receiver.lost()

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
        """Return whether the server took it. If not, the client is gone; what servers raise then is up to them."""
        try:
            await self._asgi_send(message)
        except Exception as error:
            log.debug("websocket gone", error=type(error).__name__)
            return False
        return True

    def _packets(self) -> Iterable[str]:
        """Yield them one at a time: what has not been sent counts as waiting."""
        while taken := self._queue.take(0):
            yield taken[0]

    # Transport

    def close(self, end: Close) -> None:
        """Say goodbye behind what is queued."""
        if self._goodbye is None:
            self._goodbye = end
            self._readable.set()
            self._more.set()
            self.cut_after(self._gateway.close_seconds)

    def cut(self) -> None:
        """End now, whatever is unsent."""
        if not self._cut.done():
            self._cut.set_result(None)

    def carry(self, receiver: Receiver) -> None:
        """Hand packets to this one: the upgrade is done."""
        self._receiver = receiver
        self._cut_at = None

    def _add(self, packets: Sequence[str], size: int) -> None:
        if self._goodbye is not None or self._cut.done():
            return
        self._more.set()
        if not self._queue.add(packets, size):
            self._receiver.too_slow()

    # Deadlines

    def cut_after(self, seconds: float) -> None:
        """End in so many seconds, unless the upgrade is done by then."""
        self._cut_at = asyncio.get_running_loop().time() + seconds
        self._wheel.schedule(self, self._cut_at)

    def tick(self, now: float) -> float | None:
        """Do what is due; the wheel calls this."""
        if self._cut_at is not None and now >= self._cut_at:
            self.cut()
        return None
