"""Who is connected: every connection of this server, and its sessions of long-polling by their ids.

What lives here: the registry, and what is done to all of them, or to one user's. Admission is admission.py's; what one
connection does is in connection.py and in its transport's file, which this file knows as two Protocols only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from insforge_realtime.errors import MESSAGES_MISSED, RESTARTING, Close
from insforge_realtime.web.transport import CLOSE_SECONDS, SHUTDOWN_SECONDS

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from insforge_realtime.web.transport import Receiver, Upgradable


class Registered(Protocol):
    """A connection, as the registry sees it."""

    @property
    def sid(self) -> str:
        """The id of its session."""

    @property
    def subject(self) -> str | None:
        """The user whose client it is."""

    def close(self, end: Close) -> None:
        """End in a way that makes the client come back."""

    def disconnect(self) -> None:
        """End in a way that makes the client stay away."""


class PollingSession(Protocol):
    """A session that began by long-polling; also one that has changed to a WebSocket since."""

    @property
    def handed_over(self) -> bool:
        """Whether a WebSocket carries it."""

    @property
    def admitted(self) -> bool:
        """Whether its client was let in."""

    async def respond(self, request: Request) -> Response | None:
        """Return the answer to a request of the session; None where the client has hung up."""

    def upgrade(self, websocket: Upgradable) -> Receiver:
        """Return what takes in the packets of a WebSocket that asks to carry the session."""


class Gateway:
    """The registry of one server.

    Args:
        max_connections: how many clients it may let in; 0 for no limit.
    """

    def __init__(self, max_connections: int) -> None:
        self._max_connections = max_connections
        self.connections: set[Registered] = set()
        self.polling_sessions: dict[str, PollingSession] = {}
        self.clients = 0
        """How many connections have a client that was let in."""
        self.closing = False

    @property
    def is_full(self) -> bool:
        """Whether no other client may be let in."""
        return 0 < self._max_connections <= self.clients

    @property
    def close_seconds(self) -> float:
        """How long a client has to take our last words."""
        return SHUTDOWN_SECONDS if self.closing else CLOSE_SECONDS

    def forget(self, connection: Registered) -> None:
        """Drop a connection whose transport is gone."""
        self.connections.discard(connection)
        self.polling_sessions.pop(connection.sid, None)

    def shut(self) -> None:
        """Let nobody in any more, and close every connection: clients come back to another server, or to the next."""
        self.closing = True
        self._close_all(RESTARTING)

    def recall(self) -> None:
        """Have every client connect anew: it may have missed messages, and on `connect` applications read what there is."""
        self._close_all(MESSAGES_MISSED)

    def disconnect(self, user_id: str) -> int:
        """End all connections of a user, for good, and return how many there were."""
        theirs = [connection for connection in self.connections if connection.subject == user_id]
        for connection in theirs:
            connection.disconnect()
        return len(theirs)

    def _close_all(self, end: Close) -> None:
        for connection in list(self.connections):
            connection.close(end)
