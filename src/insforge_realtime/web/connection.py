"""One client's connection, from its handshake to its end, whichever transport carries it, and while that changes.

    a transport → receive → protocol/session.py → commands.py
    hub, acks, errors → the transport

What lives here is what all transports (transport.py) have in common: who the client is, the deadlines, the end. What does
not: bytes, frames, HTTP.

How it may end, and whether the client comes back, is a `Close` of errors.py.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from math import inf
from typing import TYPE_CHECKING, TypeAlias

import structlog

from insforge_realtime import tasks
from insforge_realtime.errors import (
    CLOSED_BY_CLIENT,
    DISCONNECTED,
    MESSAGE_TOO_BIG,
    TOO_MANY_CONNECTIONS,
    TOO_MANY_REFUSALS,
    Close,
    InternalError,
    InvalidRequest,
    PayloadTooLarge,
    ProtocolError,
    RequestError,
    broken_protocol,
)
from insforge_realtime.metrics import FULL, OK
from insforge_realtime.protocol import engineio, socketio
from insforge_realtime.protocol.session import CLOSED, CONNECTED, Connect, Disconnect, Emit, Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from insforge_realtime.commands import Commands
    from insforge_realtime.hub import Batch, Stream
    from insforge_realtime.inbox import Peer
    from insforge_realtime.metrics import Metrics
    from insforge_realtime.web.admission import Admission
    from insforge_realtime.web.gateway import Gateway
    from insforge_realtime.web.limits import Limits
    from insforge_realtime.web.timer_wheel import TimerWheel
    from insforge_realtime.web.transport import Transport

    MakeConnection: TypeAlias = Callable[[Transport, str], "Connection"]
    """Makes one that a transport carries, for a client of this address."""

log = structlog.get_logger("insforge_realtime.web")


class Connection:
    """One client; the `Outbound` of its peer, and the `Sink` in its rooms.

    Args:
        gateway: the registry, which has it until its transport is gone.
        admission: counts its CONNECTs.
        commands: what to do with what its client sends.
        limits: its own.
        wheel: the timer.
        metrics: where CONNECTs and their results are counted.
        transport: what carries it.
        address: the client's.
    """

    __slots__ = (
        "_admission",
        "_commands",
        "_due",
        "_gateway",
        "_limits",
        "_metrics",
        "_peer",
        "_session",
        "_transport",
        "_wheel",
        "address",
        "sid",
    )  # fmt: skip

    def __init__(
        self,
        gateway: Gateway,
        admission: Admission,
        commands: Commands,
        limits: Limits,
        wheel: TimerWheel,
        metrics: Metrics,
        transport: Transport,
        address: str,
    ) -> None:
        now = asyncio.get_running_loop().time()
        self.sid = secrets.token_urlsafe(15)
        self.address = address
        self._gateway, self._admission, self._commands = gateway, admission, commands
        self._limits, self._wheel, self._metrics = limits, wheel, metrics
        self._session: Session | None = Session(limits.timing, now, limits.message.admitted or inf)
        self._peer: Peer | None = None
        self._due = float("inf")
        self._transport = transport
        gateway.connections.add(self)
        self._arm(self._session.deadline)

    def open_packet(self, upgrades: Sequence[str] = ()) -> str:
        """Return the first packet that the server sends.

        Args:
            upgrades: the transports that the client may change to.
        """
        timing = self._limits.timing
        return engineio.open_packet(
            self.sid,
            upgrades=list(upgrades),
            ping_interval=timing.ping_interval,
            ping_timeout=timing.ping_timeout,
            max_payload=self._limits.max_payload,
        )

    @property
    def ended(self) -> bool:
        """Whether nothing is received any more."""
        return self._session is None

    @property
    def admitted(self) -> bool:
        """Whether its client was let in."""
        return self._peer is not None

    @property
    def subject(self) -> str | None:
        """The user whose client this is."""
        return None if self._peer is None else self._peer.identity.subject

    # Sink

    @property
    def stream(self) -> Stream | None:
        return self._transport.stream

    def deliver(self, batch: Batch) -> None:
        self._transport.deliver(batch)

    # Receiver

    def receive(self, packet: engineio.Packet) -> None:
        """Take in one packet."""
        session = self._session
        if session is None:
            return
        try:
            session.receive(packet, asyncio.get_running_loop().time())
        except ProtocolError as error:
            self.fail(broken_protocol(str(error)))
            return
        self._after(session)
        # Where ping_timeout is longer than ping_interval, a pong brings the next deadline forward.
        self._arm(session.deadline)

    def fail(self, end: Close) -> None:
        """Log that the client broke a protocol, and close."""
        if self._session is None:
            return
        log.info("connection closed", sid=self._socket_id, code=end.code, reason=end.reason, address=self.address)
        self.close(end)

    def lost(self) -> None:
        """Forget the client: the transport is gone."""
        self.end()
        self._gateway.forget(self)

    def too_large(self) -> None:
        """Close: a message was so far over the limit that it was not even read."""
        if self._peer is not None:
            self.emit("realtime:error", PayloadTooLarge("The message is too large").as_dict())
        self.fail(MESSAGE_TOO_BIG)

    def too_slow(self) -> None:
        """Cut: more is waiting for the client than it may leave unread."""
        self._metrics.slow_consumers += 1
        limit = self._limits.max_buffered_bytes
        log.warning("slow consumer closed", sid=self._socket_id, limit=limit, address=self.address)
        self._transport.cut()

    # The session

    def _after(self, session: Session) -> None:
        """Do what the session came to. Any of it may be the end: a full transport ends us while it is written to."""
        for packet in session.data_to_send():
            self._transport.send(packet)
        for event in session.events():
            if self._session is not session:
                return
            if isinstance(event, Emit) and self._peer is not None:
                self._commands.handle(self._peer, event)
            elif isinstance(event, Connect):
                tasks.start(self._hello(session, event), "CONNECT of a client")
            elif isinstance(event, Disconnect):
                self._goodbye()
                self._transport.admit(False)
                self._arm(session.deadline)
        if session.state == CLOSED:
            self.close(CLOSED_BY_CLIENT)
        elif session.state != CONNECTED and session.exhausted:
            self.fail(TOO_MANY_REFUSALS)

    async def _hello(self, session: Session, event: Connect) -> None:
        """Answer a CONNECT, unless the session is over before this begins: what broke it can be in the same bytes."""
        if self._session is not session:
            return
        try:
            self._admission.check_connect(self.address)
            if event.flaw is not None:
                raise InvalidRequest(event.flaw)
            peer = await self._commands.hello(self, event.auth)
        except RequestError as error:
            self._refuse(session, error)
            return
        except Exception:
            log.exception("connect failed")
            self._refuse(session, InternalError())
            return
        if self._session is not session:
            self._commands.goodbye(peer)
            return
        if self._gateway.is_full:
            self._commands.goodbye(peer)
            self._metrics.connects[FULL] += 1
            self.fail(TOO_MANY_CONNECTIONS)
            return
        self._peer = peer
        self._gateway.clients += 1
        self._metrics.connects[OK] += 1
        self._transport.admit(True)
        session.accept(peer.sid)
        self._after(session)
        self._arm(self._deadline(session))

    def _refuse(self, session: Session, error: RequestError) -> None:
        self._metrics.connects[error.code] += 1
        log.info("connect refused", **{"sub": "anonymous", **error.for_the_log()}, address=self.address)
        if self._session is session:
            session.refuse(error.message, error.code)
            self._after(session)
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
        session, peer = self._session, self._peer
        if session is None:
            return None
        if peer is not None and _has_expired(peer):
            self._commands.expire(peer)
            return None
        if peer is not None and peer.paused:
            return now + 1.0  # its pongs are behind the commands that we have stopped reading
        try:
            session.tick(now)
        except ProtocolError as error:
            self.fail(broken_protocol(str(error)))
            return None
        self._after(session)
        return self._deadline(session)

    def _deadline(self, session: Session) -> float:
        """Return the session's, or the end of the client's token, which is on another clock."""
        if self._peer is None or self._peer.identity.expires_at is None:
            return session.deadline
        expires_in = self._peer.identity.expires_at - time.time()
        return min(session.deadline, asyncio.get_running_loop().time() + expires_in)

    def _arm(self, deadline: float) -> None:
        if deadline < self._due and self._session is not None:
            self._due = deadline
            self._wheel.schedule(self, deadline)

    # Outbound

    def emit(self, name: str, data: object) -> None:
        self._transport.send(engineio.MESSAGE + socketio.event_packet(socketio.event(name, data)))

    def acknowledge(self, ack_id: int, data: object) -> None:
        self._transport.send(engineio.MESSAGE + socketio.ack_packet(ack_id, data))

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def close(self, end: Close) -> None:
        """End in a way that makes the client come back."""
        if self._session is not None:
            self._transport.close(end)
            self.end()

    def disconnect(self) -> None:
        """End in a way that makes the client stay away, until its user connects it again."""
        if self._session is not None:
            self._session.disconnect()
            for packet in self._session.data_to_send():
                self._transport.send(packet)
            self.close(DISCONNECTED)

    def carry_on(self, transport: Transport, unsent: Iterable[str]) -> None:
        """Change the transport.

        Args:
            transport: the new one.
            unsent: the packets that the old one has not written.
        """
        self._transport = transport
        transport.admit(self._peer is not None)
        for packet in unsent:
            transport.send(packet)
        if self._peer is not None and self._peer.paused:
            transport.pause_reading()

    # The end

    def end(self) -> None:
        """Receive nothing from here on; the transport may still be sending what it has."""
        self._session = None
        self._goodbye()

    def _goodbye(self) -> None:
        peer, self._peer = self._peer, None
        if peer is not None:
            self._gateway.clients -= 1
            self._commands.goodbye(peer)

    @property
    def _socket_id(self) -> str | None:
        return None if self._peer is None else self._peer.sid


def _has_expired(peer: Peer) -> bool:
    expires_at = peer.identity.expires_at
    return expires_at is not None and expires_at < time.time()
