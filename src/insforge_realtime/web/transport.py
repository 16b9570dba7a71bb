"""What connections and transports know of each other: three Protocols, so that neither imports the other's class.

A *transport* brings packets to and fro: a WebSocket of our own, one of any ASGI server, or HTTP long-polling (transports/).
A *receiver* is what it hands them to: a `Connection`, or a WebSocket's attempt to take one over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from insforge_realtime.errors import Close
    from insforge_realtime.hub import Batch, Stream
    from insforge_realtime.protocol import engineio

CLOSE_SECONDS = 5.0
SHUTDOWN_SECONDS = 1.0
"""How long a client has to take our last words; less when this server shuts down."""


class Transport(Protocol):
    """What a connection needs of the transport that carries it. No verb waits, and none raises."""

    @property
    def stream(self) -> Stream | None:
        """Where WebSocket frames may be written to, as long as nothing stands in their way."""

    def deliver(self, batch: Batch) -> None:
        """Write events that many clients share, or call `too_slow`."""

    def send(self, packet: str) -> None:
        """Write one packet, likewise."""

    def pause_reading(self) -> None:
        """Stop reading."""

    def resume_reading(self) -> None:
        """Go on reading."""

    def close(self, end: Close) -> None:
        """Say goodbye once everything that was sent is written, within a few seconds."""

    def cut(self) -> None:
        """End now, whatever is unsent."""

    def admit(self, admitted: bool) -> None:
        """Take from the client what clients may send; or, as from a stranger, no more than a CONNECT."""


class Receiver(Protocol):
    """What a transport hands its packets to."""

    def receive(self, packet: engineio.Packet) -> None:
        """Take in one packet."""

    def fail(self, end: Close) -> None:
        """Close: the client broke a protocol."""

    def too_large(self) -> None:
        """Close: the client sent what is too large even to be read."""

    def too_slow(self) -> None:
        """Cut: the client leaves too much unread."""

    def end(self) -> None:
        """Expect no more packets: the client said goodbye."""

    def lost(self) -> None:
        """Forget the transport: it is gone."""


class Upgradable(Transport, Protocol):
    """A WebSocket, which can take over a connection from long-polling."""

    def carry(self, receiver: Receiver) -> None:
        """Hand packets to this one from now on."""
