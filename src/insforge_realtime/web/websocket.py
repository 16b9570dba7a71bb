"""The hot door: one `asyncio.Protocol` per WebSocket, plugged into uvicorn through its `ws=` option.

    bytes → websockets' ServerProtocol → whole messages → connection.py
    connection.py → frames → transport.write

What lives here: the handshake, the assembly of messages, backpressure in both directions, the closing handshake. No task,
queue or timer per connection: the wheel is one for all, and what a socket does not take is in its transport's buffer.

Outgoing backpressure: a buffer above its high-water mark makes the sink *full*; a full sink whose buffer passes the
limit is closed. Incoming: a client whose commands pile up is not read from until they are done.

A slow consumer is cut off without a close code: it would not read it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs

import structlog
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import PayloadTooBig
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import OPEN, SEND_EOF
from websockets.server import ServerProtocol

from insforge_realtime.hub import Batch
from insforge_realtime.protocol.frames import text_frame
from insforge_realtime.protocol.upgrade import UPGRADE_SECONDS
from insforge_realtime.web.connection import CLOSE_SECONDS, SHUTDOWN_SECONDS, Connection, Receiver
from insforge_realtime.web.doorway import Asked, Doorway, Refusal, origin_of
from insforge_realtime.web.probe import Probe
from insforge_realtime.web.proxies import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Callable

    from uvicorn.config import Config as UvicornConfig
    from uvicorn.server import ServerState

log = structlog.get_logger("insforge_realtime.web")

# `websockets` logs every frame at debug level and every end at info; our own log says what matters.
_QUIET = logging.getLogger("insforge_realtime.web.frames")
_QUIET.setLevel(logging.CRITICAL)


class Door(asyncio.Protocol):
    """One WebSocket; a carrier."""

    __slots__ = (
        "_app_state", "_cut_at", "_doorway", "_fragments", "_full", "_receiver", "_said_goodbye", "_state", "_text",
        "_transport", "_uvicorn", "_ws",
    )  # fmt: skip

    def __init__(
        self, doorway: Doorway, config: UvicornConfig, server_state: ServerState, app_state: dict[str, Any]
    ) -> None:
        self._doorway = doorway
        self._uvicorn: UvicornConfig | None = config
        self._state = server_state
        self._app_state: dict[str, Any] | None = app_state
        self._ws = ServerProtocol(max_size=doorway.max_message_bytes, logger=_QUIET)
        self._transport: asyncio.Transport = None  # type: ignore[assignment]
        self._receiver: Receiver | None = None
        self._fragments: bytearray | None = None
        self._text = False
        self._full = False
        self._said_goodbye = False
        self._cut_at: float | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self._doorway.high_water)
        self._state.connections.add(self)  # type: ignore[arg-type]

    def connection_lost(self, exc: Exception | None) -> None:
        self._state.connections.discard(self)
        self._doorway.congestion.drained(self)
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.lost()
        # The wheel keeps us until the deadline it was told, and half a message must not wait there with us, in any of
        # the three places where it can be: the parser holds the last frame.
        self._fragments = None
        self._ws.parser.close()
        self._ws.reader.discard()

    def data_received(self, data: bytes) -> None:
        self._ws.receive_data(data)
        for event in self._ws.events_received():
            if isinstance(event, Request):
                self._handshake(event, data)
            elif isinstance(event, Frame) and not self._said_goodbye:
                self._on_frame(event)
        if self._ws.parser_exc is not None and not self._said_goodbye:
            self._on_parser_error(self._ws.parser_exc)
        self._flush_protocol()

    def eof_received(self) -> None:
        return None

    def pause_writing(self) -> None:
        self._full = True
        self._doorway.hub.streams_changed()
        self._doorway.congestion.filled(self)
        self._check_backlog()

    def resume_writing(self) -> None:
        self._full = False
        self._doorway.hub.streams_changed()
        self._doorway.congestion.drained(self)

    def shutdown(self) -> None:
        """uvicorn shuts down."""
        if self._receiver is None:
            self._transport.close()
        self._doorway.shut()

    # The handshake

    def _handshake(self, request: Request, data: bytes) -> None:
        if request.path.partition("?")[0] not in self._doorway.paths:
            self._hand_on(data)
            return
        asked = self._asked(request)
        refusal = self._doorway.refusal(asked)
        if refusal is not None:
            self._refuse(refusal)
            return
        response = self._ws.accept(request)
        self._ws.send_response(response)
        if self._ws.state is OPEN:
            self._open(asked)

    def _asked(self, request: Request) -> Asked:
        peer = self._transport.get_extra_info("peername")
        address = peer[0] if isinstance(peer, tuple) else UNKNOWN
        if self._doorway.trusted:
            address = self._doorway.trusted.client(address, ", ".join(request.headers.get_all("X-Forwarded-For")))
        query = parse_qs(request.path.partition("?")[2])
        return Asked("GET", query, origin_of(request.headers.get_all("Origin")), True, address)

    def _refuse(self, refusal: Refusal) -> None:
        response = self._ws.reject(refusal.status, refusal.body)
        response.headers["Content-Type"] = "application/json"
        self._ws.send_response(response)

    def _open(self, asked: Asked) -> None:
        self._uvicorn = self._app_state = None
        self._flush_protocol()
        if asked.sid is None:
            connection = Connection(self._doorway, self, asked.address)
            self._receiver = connection
            self.send(connection.open_packet([]))
        else:
            self._cut_after(UPGRADE_SECONDS)
            self._receiver = probe = Probe(self._doorway.polls[asked.sid], self)
            probe.begin()

    def _hand_on(self, data: bytes) -> None:
        """A path that is not ours belongs to the ASGI application: let uvicorn's own protocol take over."""
        assert self._uvicorn is not None
        self._state.connections.discard(self)
        other = WebSocketsSansIOProtocol(
            config=self._uvicorn, server_state=self._state, app_state=self._app_state or {}
        )
        other.connection_made(self._transport)
        other.data_received(data)
        # uvicorn makes us the transport's protocol right after this call returns.
        asyncio.get_running_loop().call_soon(self._transport.set_protocol, other)
        self._ws = ServerProtocol(logger=_QUIET)

    # Incoming

    def _on_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.TEXT or frame.opcode is Opcode.BINARY:
            self._text = frame.opcode is Opcode.TEXT
            if frame.fin:
                self._on_message(frame.data)
            else:
                self._fragments = bytearray(frame.data)
        elif frame.opcode is Opcode.CONT and self._fragments is not None:
            self._fragments += frame.data
            if frame.fin:
                data, self._fragments = self._fragments, None
                self._on_message(data)

    def _on_message(self, data: bytes | bytearray | memoryview) -> None:
        assert self._receiver is not None
        try:
            packet = str(data, "utf-8") if self._text else bytes(data)
        except UnicodeDecodeError:
            self._receiver.fail(1007, "invalid UTF-8")
        else:
            self._receiver.receive(packet)

    def _on_parser_error(self, error: Exception) -> None:
        """The client broke RFC 6455, or our limit. `websockets` has queued the close frame; say why before it."""
        receiver = self._receiver
        if receiver is None:
            return
        if isinstance(error, PayloadTooBig):
            receiver.too_large()
        else:
            receiver.fail(1002, str(error))

    # Carrier

    @property
    def stream(self) -> asyncio.Transport | None:
        """The transport, except while it is full: then each write must look at how much waits."""
        return None if self._full else self._transport

    def deliver(self, batch: Batch) -> None:
        """Write events that many sinks share."""
        self._transport.write(batch.websocket)
        if self._full:
            self._check_backlog()

    def send(self, packet: str) -> None:
        if not self._said_goodbye and not self._transport.is_closing():
            self._transport.write(text_frame(packet.encode()))
            if self._full:
                self._check_backlog()

    def hold(self, held: bool) -> None:
        if self._transport.is_closing():
            return
        if held:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def close(self, code: int, reason: str) -> None:
        """Say goodbye with a close frame, and give the peer a moment to answer it."""
        if self._said_goodbye or self._transport.is_closing():
            return
        self._said_goodbye = True
        if self._ws.state is OPEN:
            self._ws.send_close(code, reason)
        self._flush_protocol()
        self._cut_after(SHUTDOWN_SECONDS if self._doorway.closing else CLOSE_SECONDS)

    def cut(self) -> None:
        """End the connection now, whatever is unsent."""
        self._transport.abort()

    def carry(self, receiver: Receiver) -> None:
        """The upgrade is done."""
        self._receiver = receiver
        self._cut_at = None

    # Deadlines

    def _cut_after(self, seconds: float) -> None:
        """Whoever does not hang up in time, or does not upgrade, is cut off."""
        self._cut_at = asyncio.get_running_loop().time() + seconds
        self._doorway.wheel.schedule(self, self._cut_at)

    def tick(self, now: float) -> float | None:
        """The wheel calls this."""
        if self._cut_at is not None and now >= self._cut_at:
            self.cut()
        return None

    # Outgoing

    def _hang_up(self) -> None:
        """Nothing can be written any more, since the client has closed, or was never let in."""
        self._said_goodbye = True
        self._cut_after(CLOSE_SECONDS)
        if self._receiver is not None:
            self._receiver.end()

    def _flush_protocol(self) -> None:
        """Write what `websockets` has to say: the handshake, pongs, close frames, the end of the stream."""
        for data in self._ws.data_to_send():
            if self._transport.is_closing():
                return
            if data != SEND_EOF:
                self._transport.write(data)
            elif self._transport.can_write_eof():
                # Only half: closing with bytes unread would reset the connection, and what we said last with it.
                self._transport.write_eof()
                if not self._said_goodbye:
                    self._hang_up()
            else:
                self._transport.close()
        if self._full:
            self._check_backlog()

    def _check_backlog(self) -> None:
        limit = self._doorway.config.max_buffered_bytes
        if limit and self._transport.get_write_buffer_size() > limit and not self._transport.is_closing():
            if self._receiver is None:
                self.cut()
            else:
                self._receiver.too_slow()


def websocket_class(doorway: Callable[[], Doorway | None]) -> type[asyncio.Protocol]:
    """The class to give to uvicorn as `ws=`.

    Args:
        doorway: asked for at each handshake; while there is none, the ASGI application answers.
    """

    class RealtimeWebSocket(Door):
        __slots__ = ()

        def __new__(
            cls, config: UvicornConfig, server_state: ServerState, app_state: dict[str, Any]
        ) -> RealtimeWebSocket:
            open_doorway = doorway()
            if open_doorway is None:
                other: Any = WebSocketsSansIOProtocol(config=config, server_state=server_state, app_state=app_state)
                return cast(RealtimeWebSocket, other)
            door = super().__new__(cls)
            Door.__init__(door, open_doorway, config, server_state, app_state)
            return door

        def __init__(self, *_: object, **__: object) -> None:
            """Has been made already."""

    return RealtimeWebSocket
