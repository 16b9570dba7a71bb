"""The hot door: one `asyncio.Protocol` per WebSocket, plugged into uvicorn through its `ws=` option.

    bytes → websockets' ServerProtocol → whole text messages → protocol/session.py → commands.py
    hub, acks, errors → frames → transport.write

What lives here: the handshake, the assembly of messages, backpressure in both directions, the close. No task, queue or
timer per connection: the wheel is one for all, and what a socket does not take is in its transport's buffer.

Outgoing backpressure: a buffer above its high-water mark makes the sink *full*; a full sink whose buffer passes the
limit is closed. Incoming: a client whose commands pile up is not read from until they are done.

Close codes, all of which make a Socket.IO client reconnect: 1012 this server restarts, 1008 the token has expired, 1009 a
message was too big, 1002 or 1007 the client broke a protocol. A slow consumer is cut off without one: it would not read it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from typing import TYPE_CHECKING, Any, cast

import structlog
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import PayloadTooBig
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import OPEN, SEND_EOF
from websockets.server import ServerProtocol

from insforge_realtime.commands import Client
from insforge_realtime.errors import InternalError, PayloadTooLarge, ProtocolError, RequestError
from insforge_realtime.hub import Batch
from insforge_realtime.protocol import engineio, socketio
from insforge_realtime.protocol.frames import text_frame
from insforge_realtime.protocol.session import CLOSED, Connect, Disconnect, Emit, Session
from insforge_realtime.web.doorway import Doorway

if TYPE_CHECKING:
    from uvicorn.config import Config as UvicornConfig
    from uvicorn.server import ServerState

PATH = "/socket.io/"
CLOSE_SECONDS = 5.0
SHUTDOWN_SECONDS = 1.0
"""How long a peer has to answer our close frame; less when this server shuts down."""

log = structlog.get_logger("insforge_realtime.web")

# `websockets` logs every frame at debug level and every end at info; our own log says what matters.
_QUIET = logging.getLogger("insforge_realtime.web.frames")
_QUIET.setLevel(logging.CRITICAL)


class Door(asyncio.Protocol):
    """One WebSocket."""

    __slots__ = (
        "_app_state", "_client", "_close_by", "_doorway", "_due", "_fragments", "_full", "_session", "_state", "_text",
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
        self._session: Session | None = None
        self._client: Client | None = None
        self._fragments: bytearray | None = None
        self._text = False
        self._full = False
        self._close_by: float | None = None
        self._due = float("inf")

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self._doorway.high_water)
        self._state.connections.add(self)  # type: ignore[arg-type]
        self._doorway.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._state.connections.discard(self)
        self._doorway.connections.discard(self)
        self._doorway.congestion.drained(self)
        self._session = None
        self._goodbye()
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
            elif isinstance(event, Frame) and self._close_by is None:
                self._on_frame(event)
        if self._ws.parser_exc is not None and self._close_by is None:
            self._on_parser_error(self._ws.parser_exc)
        self._flush_protocol()

    def eof_received(self) -> None:
        return None

    def pause_writing(self) -> None:
        self._full = True
        self._doorway.congestion.filled(self)
        self._check_backlog()

    def resume_writing(self) -> None:
        self._full = False
        self._doorway.congestion.drained(self)

    def shutdown(self) -> None:
        """uvicorn shuts down."""
        self._doorway.closing = True
        self.close(1012, "server restarts", SHUTDOWN_SECONDS)

    # The handshake

    def _handshake(self, request: Request, data: bytes) -> None:
        if request.path.partition("?")[0] not in (PATH, PATH.rstrip("/")):
            self._hand_on(data)
            return
        refusal = self._doorway.refusal(request)
        if refusal is not None:
            status, body = refusal
            response = self._ws.reject(status, body)
            response.headers["Content-Type"] = "application/json"
            self._ws.send_response(response)
            log.info("handshake refused", status=int(status), body=body)
            return
        response = self._ws.accept(request)
        self._ws.send_response(response)
        if self._ws.state is OPEN:
            self._open()

    def _open(self) -> None:
        now = asyncio.get_running_loop().time()
        config = self._doorway.config
        self._uvicorn = self._app_state = None
        self._session = Session(self._doorway.timing, now)
        self._arm(self._session.deadline)
        self._flush_protocol()
        self._send(
            engineio.open_packet(
                secrets.token_urlsafe(15),
                upgrades=[],
                ping_interval=config.ping_interval,
                ping_timeout=config.ping_timeout,
                max_payload=config.max_payload_bytes or 2**31 - 1,
            )
        )

    def _hand_on(self, data: bytes) -> None:
        """A path that is not ours belongs to the ASGI application: let uvicorn's own protocol take over."""
        assert self._uvicorn is not None
        self._state.connections.discard(self)
        self._doorway.connections.discard(self)
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
        if self._session is None:
            return
        try:
            if not self._text:
                raise ProtocolError("binary packets are not accepted")
            self._session.receive(str(data, "utf-8"), asyncio.get_running_loop().time())
        except UnicodeDecodeError:
            self._end(1007, "invalid UTF-8")
        except ProtocolError as error:
            self._end(1002, str(error))
        else:
            self._after_session()

    def _after_session(self) -> None:
        assert self._session is not None
        for packet in self._session.data_to_send():
            self._send(packet)
        for event in self._session.events():
            if isinstance(event, Emit) and self._client is not None:
                self._doorway.commands.handle(self._client, event.name, event.data, event.ack_id)
            elif isinstance(event, Connect):
                self._doorway.start(self._hello(event.auth))
            elif isinstance(event, Disconnect):
                self._goodbye()
                self._arm(self._session.deadline)
        if self._session is not None and self._session.state == CLOSED:
            self.close(1000, "closed by the client")

    async def _hello(self, auth: object) -> None:
        session = self._session
        assert session is not None
        try:
            client = await self._doorway.commands.hello(self, auth)
        except RequestError as error:
            self._refuse(session, error)
            return
        except Exception:
            log.exception("connect failed")
            self._refuse(session, InternalError())
            return
        if self._session is not session:
            self._doorway.commands.goodbye(client)
            return
        self._client = client
        session.accept(client.sid)
        self._after_session()
        self._arm(self._deadline(session, client))

    def _refuse(self, session: Session, error: RequestError) -> None:
        log.info("connect refused", code=error.code, reason=error.message)
        if self._session is session:
            session.refuse(error.message, error.code, asyncio.get_running_loop().time())
            self._after_session()
            self._arm(session.deadline)

    # Deadlines

    def tick(self, now: float) -> float | None:
        """Do what is due; the wheel calls this."""
        if now < self._due:
            return None  # the deadline has moved since; the wheel has it, too
        self._due = float("inf")
        deadline = self._on_deadline(now)
        self._due = deadline or self._due
        return deadline

    def _on_deadline(self, now: float) -> float | None:
        session, client = self._session, self._client
        if self._close_by is not None:
            self.cut()
        elif client is not None and _has_expired(client):
            self._doorway.commands.expire(client)
        elif client is not None and client.held:
            return now + 1.0  # its pongs are behind the commands that we have stopped reading
        elif session is not None:
            try:
                session.tick(now)
            except ProtocolError as error:
                self._end(1002, str(error))
                return None
            self._after_session()
            return self._deadline(session, client)
        return None

    def _deadline(self, session: Session, client: Client | None) -> float:
        """The session's, or the end of the client's token, which is on another clock."""
        if client is None or client.identity.expires_at is None:
            return session.deadline
        return min(session.deadline, asyncio.get_running_loop().time() + client.identity.expires_at - time.time())

    def _arm(self, deadline: float) -> None:
        if deadline < self._due:
            self._due = deadline
            self._doorway.wheel.schedule(self, deadline)

    # commands.Connection

    def deliver(self, batch: Batch) -> None:
        """Write events that many sinks share."""
        self._transport.write(batch.websocket)
        if self._full:
            self._check_backlog()

    def emit(self, name: str, data: object) -> None:
        self._send(engineio.MESSAGE + socketio.event_packet(socketio.event(name, data)))

    def acknowledge(self, ack_id: int, data: object) -> None:
        self._send(engineio.MESSAGE + socketio.ack_packet(ack_id, data))

    def hold(self, held: bool) -> None:
        if self._transport.is_closing():
            return
        if held:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def close(self, code: int, reason: str, seconds: float = CLOSE_SECONDS) -> None:
        """Say goodbye with a close frame, and give the peer a moment to answer it."""
        if self._close_by is not None or self._transport.is_closing():
            return
        if self._ws.state is not OPEN:
            self._transport.close()
            return
        self._ws.send_close(code, reason)
        self._flush_protocol()
        self._closing(seconds)

    def cut(self) -> None:
        """End the connection now, whatever is unsent."""
        self._transport.abort()

    # Outgoing

    def _send(self, packet: str) -> None:
        if self._close_by is None and not self._transport.is_closing():
            self._transport.write(text_frame(packet.encode()))
            if self._full:
                self._check_backlog()

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
                if self._close_by is None:
                    self._closing(CLOSE_SECONDS)  # nothing can be written any more, whoever began the goodbye
            else:
                self._transport.close()
        if self._full:
            self._check_backlog()

    def _check_backlog(self) -> None:
        limit = self._doorway.config.max_buffered_bytes
        if limit and self._transport.get_write_buffer_size() > limit and not self._transport.is_closing():
            self._doorway.slow_consumers += 1
            log.warning("slow consumer closed", sid=self._client and self._client.sid, limit=limit)
            self._transport.abort()

    def _on_parser_error(self, error: Exception) -> None:
        """The client broke RFC 6455, or our limit. `websockets` has queued the close frame; say why before it."""
        log.info("connection closed", sid=self._client and self._client.sid, reason=str(error))
        if isinstance(error, PayloadTooBig) and self._client is not None:
            self.emit("realtime:error", PayloadTooLarge("The message is too large").as_dict())
        self._closing(CLOSE_SECONDS)

    def _end(self, code: int, reason: str) -> None:
        """The client broke a protocol."""
        log.info("connection closed", sid=self._client and self._client.sid, code=code, reason=reason)
        self.close(code, reason)

    def _closing(self, seconds: float) -> None:
        """From here on nothing is read or sent; the wheel cuts whoever does not hang up."""
        self._close_by = asyncio.get_running_loop().time() + seconds
        self._arm(self._close_by)
        self._session = None
        self._goodbye()

    def _goodbye(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            self._doorway.commands.goodbye(client)


def _has_expired(client: Client) -> bool:
    expires_at = client.identity.expires_at
    return expires_at is not None and expires_at < time.time()


def websocket_class(doorway: Doorway) -> type[asyncio.Protocol]:
    """The class to give to uvicorn as `ws=`."""

    class RealtimeWebSocket(Door):
        __slots__ = ()

        def __init__(self, config: UvicornConfig, server_state: ServerState, app_state: dict[str, Any]) -> None:
            super().__init__(doorway, config, server_state, app_state)

    return RealtimeWebSocket
