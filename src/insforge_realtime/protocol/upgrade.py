"""The change from HTTP long-polling to WebSocket, as the new WebSocket sees it, without I/O.

    ASKED     `2probe` → `3probe`, PROBED. The server ends the pending poll (with a noop, if it has nothing better), so
      │         that the client can stop polling: what the client still sends and gets over HTTP precedes the change
    PROBED    `5` → DONE
      │
    DONE      the session's own packets, which are not ours

Anything else, in any state, ends the attempt, and the session continues over polling as if nothing had happened. Source: the
Engine.IO protocol, revision 4, "Upgrade".
"""

from __future__ import annotations

from insforge_realtime.errors import ProtocolError
from insforge_realtime.protocol import engineio

ASKED, PROBED, DONE = range(3)

UPGRADE_SECONDS = 10.0
"""How long a client may take from the WebSocket handshake to its `5`."""


class Upgrade:
    """The state of one attempt."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state = ASKED

    def receive(self, packet: engineio.Packet) -> str | None:
        """Take in a packet, and return the one to answer with, if any.

        Raises:
            ProtocolError: it has no place here.
        """
        if self.state == ASKED and packet == engineio.PROBE:
            self.state = PROBED
            return engineio.PROBE_ANSWER
        if self.state == PROBED and packet == engineio.UPGRADE:
            self.state = DONE
            return None
        raise ProtocolError("not the packets of an upgrade")
