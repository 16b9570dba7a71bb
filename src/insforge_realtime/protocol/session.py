"""One connection, from its open packet to its end, without I/O.

    receive(packet, now) a packet has arrived     → events() returns its meaning
    tick(now)            the deadline is reached  → data_to_send(), or ProtocolError
    data_to_send()       texts to write, each a packet
    deadline             when tick must be called next

The states, and what a client may send in each:

    OPENED      only CONNECT to "/", within `connect_timeout` of the open packet: neither a refusal nor anything else
      │           restarts that. To another namespace: refused, and still OPENED
      │ CONNECT → event Connect
    ASKED       nothing but pongs and refused namespaces, until the server accepts or refuses
      │ accept()            │ refuse() → OPENED
    CONNECTED   EVENT → Emit; ACK, ignored: this server requests none. A binary EVENT or ACK that announces attachments
      │           is followed by nothing but these (and pongs), and counts once the last of them has arrived
      │ DISCONNECT → event Disconnect, OPENED; or disconnect(), the server's
    CLOSED      nothing; after any ProtocolError, too

Which transport carries the packets is not known here, and may change in mid-session (upgrade.py).

The server pings every `ping_interval`; a client that stays silent for `ping_timeout` after that is gone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Any

from insforge_realtime.errors import ProtocolError
from insforge_realtime.protocol import engineio, socketio

OPENED, ASKED, CONNECTED, CLOSED = range(4)


@dataclass(frozen=True, slots=True)
class Timing:
    """The intervals of a connection, in seconds, and how many CONNECTs may be refused."""

    ping_interval: float = 25.0
    ping_timeout: float = 20.0
    connect_timeout: float = 45.0
    refusals: float = inf


@dataclass(frozen=True, slots=True)
class Connect:
    """The client sent its credentials; answer with `accept` or `refuse`, always the latter if there is a `flaw`."""

    auth: Any
    flaw: str | None = None


@dataclass(slots=True)  # not frozen: that would take twice as long, for each message
class Emit:
    """The client emitted an event.

    Args:
        name, data: of the event. Attachments are `bytes` in the data.
        ack_id: None unless the client waits for an ack.
        payload: the text of the data's payload, just as it arrived; None if it has none.
        flaw: why it must be refused, if it must be; the data is only a sketch then.
        size: of the packet and its attachments, in bytes.
    """

    name: str | float
    data: list[Any]
    ack_id: int | None
    payload: str | None = field(default=None, compare=False)
    flaw: str | None = None
    size: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Disconnect:
    """The client left, politely."""


Event = Connect | Emit | Disconnect


class Gathering:
    """A binary packet whose attachments are on their way."""

    __slots__ = ("attachments", "packet", "room")

    def __init__(self, packet: socketio.Packet, room: float) -> None:
        self.packet = packet
        self.room = room
        self.attachments: list[bytes] = []

    def add(self, attachment: bytes) -> bool:
        """Take in the next one; return whether it was the last, so that all of them are in their places now."""
        self.room -= len(attachment)
        if self.room < 0:
            raise ProtocolError("attachments too large")
        self.attachments.append(attachment)
        self.packet.size += len(attachment)
        if len(self.attachments) < self.packet.attachments:
            return False
        socketio.attach(self.packet, self.attachments)
        return True


class Session:
    """The state of one connection.

    Args:
        timing: its intervals.
        now: the clock, in seconds from anywhere.
        max_binary: how many bytes the attachments of one packet may have together.
    """

    __slots__ = (
        "_connect_by",
        "_events",
        "_gathering",
        "_max_binary",
        "_out",
        "_ping_at",
        "_pong_by",
        "_refusals",
        "_timing",
        "state",
    )

    def __init__(self, timing: Timing, now: float, max_binary: float = inf) -> None:
        self.state = OPENED
        self._gathering: Gathering | None = None
        self._max_binary = max_binary
        self._timing = timing
        self._connect_by = now + timing.connect_timeout
        self._ping_at = now + timing.ping_interval
        self._pong_by: float | None = None
        self._refusals = 0
        # Tuples, because the empty one is shared: these are empty nearly always, in every connection.
        self._events: tuple[Event, ...] = ()
        self._out: tuple[str, ...] = ()

    @property
    def deadline(self) -> float:
        """When `tick` is due."""
        heartbeat = self._ping_at if self._pong_by is None else self._pong_by
        return heartbeat if self.state in (ASKED, CONNECTED) else min(heartbeat, self._connect_by)

    @property
    def exhausted(self) -> bool:
        """Whether the client has been refused as often as it may be."""
        return self.state != CONNECTED and self._refusals >= self._timing.refusals

    def receive(self, packet: engineio.Packet, now: float) -> None:
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
            ProtocolError: the client left a ping unanswered, or never sent CONNECT; the session is closed.
        """
        if self.state == OPENED and now >= self._connect_by:
            self.state = CLOSED
            raise ProtocolError("no CONNECT in time")
        if self._pong_by is not None and now >= self._pong_by:
            self.state = CLOSED
            raise ProtocolError("ping timeout")
        if self._pong_by is None and now >= self._ping_at:
            self._pong_by = now + self._timing.ping_timeout
            self._out += (engineio.PING,)

    def events(self) -> list[Event]:
        """Return what has happened since the last call."""
        events, self._events = self._events, ()
        return list(events)

    def data_to_send(self) -> list[str]:
        """Return the packets to write since the last call."""
        out, self._out = self._out, ()
        return list(out)

    def accept(self, sid: str) -> None:
        """Accept the client's CONNECT."""
        self.state = CONNECTED
        self._refusals = 0
        self._message(socketio.connect_packet(sid))

    def refuse(self, message: str, code: str) -> None:
        """Refuse the client's CONNECT. It may try again until the connect timeout, unless it is `exhausted` now."""
        self.state = OPENED
        self._refusals += 1
        self._message(socketio.connect_error_packet(message, {"code": code}))

    def disconnect(self) -> None:
        """End the session for good: the client will not come back by itself."""
        self.state = CLOSED
        self._message(socketio.disconnect_packet())

    def _receive(self, packet: engineio.Packet, now: float) -> None:
        kind = packet[:1]
        if self.state == CLOSED:
            raise ProtocolError("packet after the end")
        if isinstance(packet, bytes):
            self._on_attachment(packet)
        elif kind == engineio.MESSAGE:
            if self._gathering is not None:
                raise ProtocolError("a message where an attachment was due")
            self._on_packet(socketio.decode(packet[1:]), now)
        elif kind == engineio.PONG:
            self._pong_by = None
            self._ping_at = now + self._timing.ping_interval
        elif kind == engineio.CLOSE:
            self.state = CLOSED
            self._events += (Disconnect(),)
        else:
            raise ProtocolError("unexpected Engine.IO packet")

    def _on_packet(self, packet: socketio.Packet, now: float) -> None:
        if packet.namespace != "/":
            self._on_other_namespace(packet)
        elif packet.type == socketio.CONNECT and self.state == OPENED:
            self.state = ASKED
            self._events += (Connect(packet.data, packet.flaw),)
        elif self.state != CONNECTED or packet.type == socketio.CONNECT:
            raise ProtocolError("unexpected Socket.IO packet")
        elif packet.type == socketio.DISCONNECT:
            self.state = OPENED
            self._connect_by = now + self._timing.connect_timeout
            self._events += (Disconnect(),)
        elif packet.attachments:
            self._gathering = Gathering(packet, self._max_binary)
        else:
            self._on_data(packet)

    def _on_attachment(self, attachment: bytes) -> None:
        if self._gathering is None:
            raise ProtocolError("binary data that no packet announced")
        if self._gathering.add(attachment):
            packet, self._gathering = self._gathering.packet, None
            self._on_data(packet)

    def _on_data(self, packet: socketio.Packet) -> None:
        if packet.type in (socketio.EVENT, socketio.BINARY_EVENT):
            name, *data = packet.data
            self._events += (Emit(name, data, packet.id, packet.payload, packet.flaw, packet.size),)

    def _on_other_namespace(self, packet: socketio.Packet) -> None:
        if packet.type != socketio.CONNECT:
            raise ProtocolError("packet to a namespace that is not connected")
        if self.state != CONNECTED:
            self._refusals += 1
        name = packet.namespace.partition("?")[0]
        self._message(socketio.connect_error_packet("Invalid namespace", namespace=name))

    def _message(self, packet: str) -> None:
        self._out += (engineio.MESSAGE + packet,)
