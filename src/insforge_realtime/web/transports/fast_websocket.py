"""The fast WebSocket: an `asyncio.Protocol`, plugged into uvicorn through its `ws=` option, or begun by listener.py.

    bytes → protocol/handshake.py, once; then protocol/frames.py → whole messages → connection.py
    connection.py → frames → transport.write

What lives here: the handshake, backpressure in both directions, the closing handshake. No task, queue or timer per
connection: the wheel is one for all, and what a socket does not take is in its transport's buffer.

Outgoing backpressure: a buffer above its high-water mark makes the sink *full*; a full sink whose buffer is over the limit
when there is more to write is closed. Incoming: a client whose commands pile up is not read from until they are done.

A slow consumer is cut off without a close code: it would not read it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from insforge_realtime.errors import MESSAGE_TOO_BIG, Close, ProtocolError
from insforge_realtime.protocol import frames, handshake
from insforge_realtime.protocol.frames import Broken, Goodbye, Ping, text_frame
from insforge_realtime.protocol.upgrade import UPGRADE_SECONDS
from insforge_realtime.web.admission import BAD_REQUEST, Asked, Refusal, log_eviction, origin_of
from insforge_realtime.web.transport import CLOSE_SECONDS
from insforge_realtime.web.transports.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from uvicorn.config import Config as UvicornConfig
    from uvicorn.server import ServerState

    from insforge_realtime.hub import Batch, Hub
    from insforge_realtime.web.transport import Receiver


@dataclass(frozen=True, slots=True)
class FastEndpoint(Endpoint):
    """Where fast WebSockets come in. Each holds this, in one slot; so does listener.py, which makes them.

    Args:
        hub: told of WebSockets that may be written to at once, or no longer.
    """

    hub: Hub

    def asked(self, request: handshake.Request, transport: asyncio.BaseTransport) -> Asked:
        """Return what a handshake asks for."""
        address = self.admission.client_of(transport, request.values(b"x-forwarded-for"))
        return Asked("GET", parse_qs(request.query), origin_of(request.values(b"origin")), True, address)


class FastWebSocket(asyncio.Protocol):
    """One WebSocket; a transport.

    Args:
        endpoint: where it came in.
        config, server_state, app_state: uvicorn's.
    """

    __slots__ = (
        "_app_state",
        "_cut_at",
        "_endpoint",
        "_full",
        "_reader",
        "_receiver",
        "_said_goodbye",
        "_state",
        "_transport",
        "_uvicorn",
    )  # fmt: skip

    def __init__(
        self, endpoint: FastEndpoint, config: UvicornConfig, server_state: ServerState, app_state: dict[str, Any]
    ) -> None:
        self._endpoint = endpoint
        self._uvicorn: UvicornConfig | None = config
        """Until the handshake: uvicorn's own protocol may take over."""
        self._state = server_state
        self._app_state: dict[str, Any] | None = app_state
        self._transport: asyncio.Transport = None  # type: ignore[assignment]
        self._reader: frames.Reader | None = None
        """From the handshake to the client's goodbye: what comes before and after is not made of frames."""
        self._receiver: Receiver | None = None
        self._full = False
        self._said_goodbye = False
        self._cut_at: float | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self._endpoint.limits.high_water)
        if not self._endpoint.admission.accept(self, transport):
            self._transport.abort()
        self._state.connections.add(self)  # type: ignore[arg-type]

    def connection_lost(self, exc: Exception | None) -> None:
        self._state.connections.discard(self)
        self._endpoint.admission.sockets.release(self)
        self._endpoint.congestion.drained(self)
        # The wheel keeps us until the deadline it was told, and half a message must not wait there with us.
        self._reader = None
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.lost()

    def data_received(self, data: bytes) -> None:
        if self._reader is not None:
            self._read(data)
        elif self._uvicorn is not None:
            self._on_head(data)

    def eof_received(self) -> None:
        return None

    def pause_writing(self) -> None:
        self._full = True
        self._endpoint.hub.streams_changed()
        self._endpoint.congestion.filled(self)

    def resume_writing(self) -> None:
        self._full = False
        self._endpoint.hub.streams_changed()
        self._endpoint.congestion.drained(self)

    def shutdown(self) -> None:
        """Let nobody in any more, and close every connection: uvicorn shuts down."""
        if self._receiver is None:
            self._transport.close()
        self._endpoint.gateway.shut()

    # The handshake

    def _on_head(self, data: bytes) -> None:
        """Read a request of which uvicorn knows no more than that it is for a WebSocket."""
        asking = handshake.read(data)
        if asking is None:
            self._refuse(BAD_REQUEST)
        elif asking[0].path in self._endpoint.limits.paths:
            self.begin(*asking)
        else:
            self._hand_on(data)

    def begin(self, request: handshake.Request, rest: bytes) -> None:
        """Let a client in, or refuse it.

        Args:
            request: to a path that is ours.
            rest: what came after it in the same bytes.
        """
        if self._transport.is_closing():
            return  # there is no place for us
        asked = self._endpoint.asked(request, self._transport)
        refusal = self._endpoint.admission.refusal(asked, self)
        if refusal is not None:
            self._refuse(refusal)
            return
        try:
            answer = handshake.accept(request)
        except ProtocolError:
            self._refuse(BAD_REQUEST)
        else:
            self._open(asked, answer)
            if rest:
                self.data_received(rest)

    def _refuse(self, refusal: Refusal) -> None:
        self._uvicorn = self._app_state = None
        self._transport.write(handshake.refuse(refusal.status, refusal.body, refusal.retry_after))
        self._end_stream()

    def _open(self, asked: Asked, answer: bytes) -> None:
        self._uvicorn = self._app_state = None
        self._reader = frames.Reader(self._endpoint.limits.message.stranger)
        if asked.sid is None:
            connection = self._endpoint.connect(self, asked.address)
            self._receiver = connection
            # In one write: each is a system call.
            self._transport.write(answer + text_frame(connection.open_packet().encode()))
        else:
            self._transport.write(answer)
            self._cut_after(UPGRADE_SECONDS)
            self._receiver = self._endpoint.gateway.polling_sessions[asked.sid].upgrade(self)

    def _hand_on(self, data: bytes) -> None:
        """Let uvicorn's own protocol take over: a path that is not ours belongs to the ASGI application."""
        assert self._uvicorn is not None
        self._state.connections.discard(self)
        self._endpoint.admission.sockets.release(self)
        other = WebSocketsSansIOProtocol(
            config=self._uvicorn, server_state=self._state, app_state=self._app_state or {}
        )
        self._uvicorn = self._app_state = None
        other.connection_made(self._transport)
        other.data_received(data)
        # uvicorn makes us the transport's protocol right after this call returns.
        asyncio.get_running_loop().call_soon(self._transport.set_protocol, other)

    # Incoming

    def _read(self, data: bytes) -> None:
        assert self._reader is not None
        reader, events = self._reader, self._reader.receive(data)
        while events:
            for event in events:
                if isinstance(event, Goodbye):
                    self._on_goodbye(event)
                elif isinstance(event, Broken):
                    self._on_broken(event)
                elif not self._said_goodbye:
                    self._on_message(event)
            if not reader.postponed or self._reader is not reader:
                return
            reader.postponed = False
            events = reader.receive(b"")

    def _on_message(self, event: str | bytes | Ping) -> None:
        assert self._receiver is not None
        if isinstance(event, Ping):
            self._write(frames.control_frame(frames.PONG, event.payload))
        else:
            self._receiver.receive(event)

    def _on_goodbye(self, goodbye: Goodbye) -> None:
        if not self._said_goodbye:
            self._write(frames.control_frame(frames.CLOSE, goodbye.payload))
        self._end_stream()

    def _on_broken(self, broken: Broken) -> None:
        """Close with the reason: the client broke RFC 6455, or our limit."""
        assert self._receiver is not None
        if not self._said_goodbye:
            if broken.end == MESSAGE_TOO_BIG:
                self._receiver.too_large()
            else:
                self._receiver.fail(broken.end)
        self._end_stream()

    # Transport

    @property
    def stream(self) -> asyncio.Transport | None:
        """The transport, except while it is full: then each write must look at how much waits."""
        return None if self._full else self._transport

    def deliver(self, batch: Batch) -> None:
        """Write events that many sinks share."""
        self._write(batch.websocket)

    def send(self, packet: str) -> None:
        if not self._said_goodbye:
            self._write(text_frame(packet.encode()))

    def pause_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self, end: Close) -> None:
        """Say goodbye with a close frame, and give the peer a moment to answer it."""
        if self._said_goodbye or self._transport.is_closing():
            return
        self._write(frames.control_frame(frames.CLOSE, frames.goodbye_payload(end)))
        self._said_goodbye = True
        self._cut_after(self._endpoint.gateway.close_seconds)

    def cut(self) -> None:
        """End the connection now, whatever is unsent."""
        self._transport.abort()

    def admit(self, admitted: bool) -> None:
        """Take from the client what clients may send; or, as from a stranger, no more than a CONNECT."""
        if self._reader is not None:
            self._reader.max_size = self._endpoint.limits.message.of(admitted)
        sockets = self._endpoint.admission.sockets
        (sockets.authenticated if admitted else sockets.unauthenticated)(self)

    def evict(self) -> None:
        """Be gone: another socket gets the place."""
        log_eviction("websocket", self._transport)
        self.cut()

    def carry(self, receiver: Receiver) -> None:
        """Hand packets to this one: the upgrade is done, and it has our stream now."""
        self._receiver = receiver
        self._cut_at = None
        self._endpoint.hub.streams_changed()

    # Deadlines

    def _cut_after(self, seconds: float) -> None:
        """Cut a client that does not hang up in time, or does not upgrade."""
        self._cut_at = asyncio.get_running_loop().time() + seconds
        self._endpoint.wheel.schedule(self, self._cut_at)

    def tick(self, now: float) -> float | None:
        """Do what is due; the wheel calls this."""
        if self._cut_at is not None and now >= self._cut_at:
            self.cut()
        return None

    # Outgoing

    def _write(self, data: bytes) -> None:
        if self._full:
            self._check_backlog()
        if not self._transport.is_closing():
            self._transport.write(data)

    def _end_stream(self) -> None:
        """Write nothing any more: the client has said goodbye, or broke the RFC, or was never let in."""
        self._reader = None
        if self._transport.is_closing():
            return
        if not self._transport.can_write_eof():
            self._transport.close()
            return
        # Only half: closing with bytes unread would reset the connection, and what we said last with it.
        self._transport.write_eof()
        if not self._said_goodbye:
            self._said_goodbye = True
            self._cut_after(CLOSE_SECONDS)
            if self._receiver is not None:
                self._receiver.end()

    def _check_backlog(self) -> None:
        """Cut a slow client, before each write, so that one message is never by itself a backlog."""
        limit = self._endpoint.limits.max_buffered_bytes
        if limit and self._transport.get_write_buffer_size() > limit and not self._transport.is_closing():
            if self._receiver is None:
                self.cut()
            else:
                self._receiver.too_slow()


def websocket_class(endpoint: Callable[[], FastEndpoint | None]) -> type[asyncio.Protocol]:
    """Return the class to give to uvicorn as `ws=`.

    Args:
        endpoint: called at each handshake; while there is none, the ASGI application answers.
    """

    class RealtimeWebSocket(FastWebSocket):
        __slots__ = ()

        def __new__(
            cls, config: UvicornConfig, server_state: ServerState, app_state: dict[str, Any]
        ) -> RealtimeWebSocket:
            open_endpoint = endpoint()
            if open_endpoint is None:
                other: Any = WebSocketsSansIOProtocol(config=config, server_state=server_state, app_state=app_state)
                return cast(RealtimeWebSocket, other)
            websocket = super().__new__(cls)
            FastWebSocket.__init__(websocket, open_endpoint, config, server_state, app_state)
            return websocket

        def __init__(self, *_: object, **__: object) -> None:
            """Do nothing: `__new__` has made it."""

    return RealtimeWebSocket
