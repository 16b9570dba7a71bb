"""One connection, from its open packet to its end, without I/O.

    receive(text, now)   a packet came            → events() tells what it means
    tick(now)            the deadline has come    → data_to_send(), or ProtocolError
    data_to_send()       texts to write, each a packet
    deadline             when tick must be called next

The states, and what a client may send in each:

    OPENED      only CONNECT to "/", within `connect_timeout`. To another namespace: refused, and still OPENED
      │ CONNECT → event Connect
    ASKED       nothing but pongs and refused namespaces, until the server says yes or no
      │ accept()            │ refuse() → OPENED
    CONNECTED   EVENT → Emit; ACK, ignored: this server asks for none
      │ DISCONNECT → event Disconnect, OPENED
    CLOSED      nothing; after any ProtocolError, too

The server pings every `ping_interval`; a client that stays silent for `ping_timeout` after that is gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from insforge_realtime.errors import ProtocolError
from insforge_realtime.protocol import engineio, socketio

OPENED, ASKED, CONNECTED, CLOSED = range(4)


@dataclass(frozen=True, slots=True)
class Timing:
    """The intervals of a connection, in seconds."""

    ping_interval: float = 25.0
    ping_timeout: float = 20.0
    connect_timeout: float = 45.0


@dataclass(frozen=True, slots=True)
class Connect:
    """The client says who it is; answer with `accept` or `refuse`."""

    auth: Any


@dataclass(frozen=True, slots=True)
class Emit:
    """The client emitted an event; `ack_id` is None unless it waits for an ack."""

    name: str | float
    data: list[Any]
    ack_id: int | None


@dataclass(frozen=True, slots=True)
class Disconnect:
    """The client left, politely."""


Event = Connect | Emit | Disconnect


class Session:
    """The state of one connection.

    Args:
        timing: its intervals.
        now: the clock, in seconds from anywhere.
    """

    __slots__ = ("_connect_by", "_events", "_out", "_ping_at", "_pong_by", "_timing", "state")

    def __init__(self, timing: Timing, now: float) -> None:
        self.state = OPENED
        self._timing = timing
        self._connect_by = now + timing.connect_timeout
        self._ping_at = now + timing.ping_interval
        self._pong_by: float | None = None
        self._events: list[Event] = []
        self._out: list[str] = []

    @property
    def deadline(self) -> float:
        """When `tick` is due."""
        heartbeat = self._ping_at if self._pong_by is None else self._pong_by
        return heartbeat if self.state in (ASKED, CONNECTED) else min(heartbeat, self._connect_by)

    def receive(self, packet: str, now: float) -> None:
        """Take in one Engine.IO packet.

        Raises:
            ProtocolError: the client broke the protocol; the session is closed.
        """
        try:
            self._receive(packet, now)
        except ProtocolError:
            self.state = CLOSED
            raise

    def tick(self, now: float) -> None:
        """Do what is due: ping, or give up.

        Raises:
            ProtocolError: the client answered no ping, or never said CONNECT; the session is closed.
        """
        if self.state == OPENED and now >= self._connect_by:
            self.state = CLOSED
            raise ProtocolError("no CONNECT in time")
        if self._pong_by is not None and now >= self._pong_by:
            self.state = CLOSED
            raise ProtocolError("ping timeout")
        if self._pong_by is None and now >= self._ping_at:
            self._pong_by = now + self._timing.ping_timeout
            self._out.append(engineio.PING)

    def events(self) -> list[Event]:
        """What has happened since the last call."""
        events, self._events = self._events, []
        return events

    def data_to_send(self) -> list[str]:
        """The packets to write since the last call."""
        out, self._out = self._out, []
        return out

    def accept(self, sid: str) -> None:
        """Answer Connect: yes."""
        self.state = CONNECTED
        self._message(socketio.connect_packet(sid))

    def refuse(self, message: str, code: str, now: float) -> None:
        """Answer Connect: no. The client may try again until the connect timeout."""
        self.state = OPENED
        self._connect_by = now + self._timing.connect_timeout
        self._message(socketio.connect_error_packet(message, {"code": code}))

    def _receive(self, packet: str, now: float) -> None:
        kind = packet[:1]
        if self.state == CLOSED:
            raise ProtocolError("packet after the end")
        if kind == engineio.MESSAGE:
            self._on_packet(socketio.decode(packet[1:]), now)
        elif kind == engineio.PONG:
            self._pong_by = None
            self._ping_at = now + self._timing.ping_interval
        elif kind == engineio.CLOSE:
            self.state = CLOSED
            self._events.append(Disconnect())
        else:
            raise ProtocolError("unexpected Engine.IO packet")

    def _on_packet(self, packet: socketio.Packet, now: float) -> None:
        if packet.namespace != "/":
            self._on_other_namespace(packet)
        elif packet.type == socketio.CONNECT and self.state == OPENED:
            self.state = ASKED
            self._events.append(Connect(packet.data))
        elif self.state != CONNECTED or packet.type == socketio.CONNECT:
            raise ProtocolError("unexpected Socket.IO packet")
        elif packet.type == socketio.EVENT:
            self._events.append(Emit(packet.data[0], packet.data[1:], packet.id))
        elif packet.type == socketio.DISCONNECT:
            self.state = OPENED
            self._connect_by = now + self._timing.connect_timeout
            self._events.append(Disconnect())

    def _on_other_namespace(self, packet: socketio.Packet) -> None:
        if packet.type != socketio.CONNECT:
            raise ProtocolError("packet to a namespace that is not connected")
        name = packet.namespace.partition("?")[0]
        self._message(socketio.connect_error_packet("Invalid namespace", namespace=name))

    def _message(self, packet: str) -> None:
        self._out.append(engineio.MESSAGE + packet)
