"""Every error this package raises on purpose, in one tree, and every way in which the server ends a connection.

    RealtimeError
    ├── RequestError             answered to the client that asked; carries a wire code
    │   ├── Unauthorized             UNAUTHORIZED       a policy denied it or could not read a value; or a bad credential
    │   ├── NotSubscribed            NOT_SUBSCRIBED     a publish to a channel that the client has not joined
    │   ├── InvalidRequest           INVALID_REQUEST    malformed, wrong types, reserved or overlong names
    │   ├── PayloadTooLarge          PAYLOAD_TOO_LARGE  over REALTIME_MAX_PAYLOAD_BYTES, as sent or once stored
    │   ├── RateLimited              RATE_LIMITED       over REALTIME_MAX_MESSAGES_PER_SECOND or …_MAX_BYTES_PER_SECOND
    │   ├── TokenExpired             TOKEN_EXPIRED      get a fresh token and reconnect
    │   ├── Unavailable              UNAVAILABLE        the database cannot be reached; try again
    │   └── InternalError            INTERNAL_ERROR     our fault or a policy's; the log has the details
    ├── ProtocolError            the peer broke Engine.IO or Socket.IO: the connection is closed
    ├── ConfigError              a setting is missing or wrong: one line, exit status 2
    │   └── NotMigratedError         the database is not migrated, or older than this server
    ├── DatabaseError            a command cannot use the database; the message says why
    ├── MigrationError           the database cannot be brought to the current schema
    └── EmbeddedPostgresError    the embedded PostgreSQL cannot be started

Each message is written for its reader: a `RequestError`'s goes to the client, so it never reveals a detail of the
database; the others go to the operator's terminal or log.

A connection that the server ends has a `Close`: a code and a reason, which a WebSocket's close frame carries and the log
repeats. Long-polling has no such frame: PROTOCOL.md ("How connections end") has what its clients see instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final


class RealtimeError(Exception):
    """The root: catch it to catch everything this package raises on purpose."""


class RequestError(RealtimeError):
    """A request that is refused; `code` is what the client branches on, the message is for people.

    Args:
        message: for the client; None for the default of this class.
        known: what only the operator learns, from the log: why, which channel, which user.
    """

    code: ClassVar[str] = "INTERNAL_ERROR"
    default: ClassVar[str] = "Internal error"

    def __init__(self, message: str | None = None, known: Mapping[str, str] | None = None) -> None:
        self.message = message or self.default
        self.known = dict(known or {})
        super().__init__(self.message)

    def for_the_log(self) -> dict[str, str]:
        """Return the error for the operator: with a reason that clients do not learn."""
        return {"code": self.code, "reason": self.message, **self.known}

    def as_dict(self) -> dict[str, str]:
        """Return the error as it appears in an ack or in `realtime:error`."""
        return {"code": self.code, "message": self.message}


class Unauthorized(RequestError):
    code = "UNAUTHORIZED"
    default = "Not allowed"


class NotSubscribed(RequestError):
    code = "NOT_SUBSCRIBED"
    default = "Subscribe to the channel before publishing to it"


class InvalidRequest(RequestError):
    code = "INVALID_REQUEST"
    default = "Malformed request"


class PayloadTooLarge(RequestError):
    code = "PAYLOAD_TOO_LARGE"
    default = "Payload too large"


class RateLimited(RequestError):
    code = "RATE_LIMITED"
    default = "Too many messages; slow down"


class TokenExpired(RequestError):
    code = "TOKEN_EXPIRED"
    default = "The token has expired; reconnect with a fresh one"


class Unavailable(RequestError):
    code = "UNAVAILABLE"
    default = "The database cannot be reached right now; try again"


class InternalError(RequestError):
    code = "INTERNAL_ERROR"
    default = "Internal error"


class ProtocolError(RealtimeError):
    """The peer sent bytes that its protocol forbids."""


class ConfigError(RealtimeError):
    """A setting is missing or has a value that cannot be used."""


class NotMigratedError(ConfigError):
    """A server cannot start on this database before `migrate` has run."""


class DatabaseError(RealtimeError):
    """A command cannot use the database: it is away, not migrated, or refuses."""


class MigrationError(RealtimeError):
    """The schema cannot be brought up to date; the message says what to do."""


class EmbeddedPostgresError(RealtimeError):
    """The embedded PostgreSQL cannot be used; the message names the way out (usually DATABASE_URL)."""


@dataclass(frozen=True, slots=True)
class Close:
    """How the server ends a connection.

    Args:
        code: of RFC 6455, section 7.4.
        reason: one line, for people.
    """

    code: int
    reason: str

    @property
    def is_normal(self) -> bool:
        """Whether the connection has served its purpose."""
        return self.code == 1000

    @property
    def is_protocol_error(self) -> bool:
        """Whether the client broke a protocol."""
        return self.code in (1002, 1007)


CLOSED_BY_CLIENT: Final = Close(1000, "closed by the client")
"""The client sent a close packet, and we hang up. It stays away."""
DISCONNECTED: Final = Close(1000, "disconnected")
"""The operator has disconnected the user, behind a DISCONNECT. The client stays away until its user connects it again."""
INVALID_UTF8: Final = Close(1007, "invalid UTF-8")
"""The client broke a protocol: text that is not UTF-8. The client comes back."""
TOKEN_EXPIRED: Final = Close(1008, "token expired")
"""The client's token has expired, behind a `realtime:error`. The client comes back, with a fresh token if it has one."""
TOO_MANY_REFUSALS: Final = Close(1008, "too many refused CONNECTs")
"""CONNECT was refused REALTIME_MAX_REFUSED_CONNECTS times. The client comes back."""
MESSAGE_TOO_BIG: Final = Close(1009, "message too big")
"""A message was so far over its limit that it was not read. The client comes back; it should send less."""
RESTARTING: Final = Close(1012, "server restarts")
"""The server shuts down. The client comes back, to another server or to the next one here."""
MESSAGES_MISSED: Final = Close(1012, "messages may have been missed")
"""The feed lost track after a failover of the database. The client comes back, and reads what there is."""
TOO_MANY_CONNECTIONS: Final = Close(1013, "too many connections")
"""REALTIME_MAX_CONNECTIONS others were let in before it. The client comes back, to be refused until somebody has left."""
NOT_RUNNING: Final = Close(1013, "")
"""The lifespan of `Realtime` does not run. This ends a WebSocket before its handshake, so servers make status 403 of it. The
client comes back."""


def broken_protocol(reason: str) -> Close:
    """Return the end of a connection whose client broke Engine.IO, Socket.IO or RFC 6455, answered no ping, or never sent a
    CONNECT. The client comes back.

    Args:
        reason: which rule it broke.
    """
    return Close(1002, reason)


UPGRADE_REFUSED: Final = broken_protocol("the session cannot be upgraded")
"""Another WebSocket is upgrading the session, or has. The client's session goes on; only this WebSocket never comes back."""
SESSION_ENDED: Final = broken_protocol("the session has ended")
"""The session ended while this WebSocket was upgrading it. The client comes back if the session's own end lets it."""
TWO_POLLS: Final = broken_protocol("two polls at a time")
"""A second GET while one waits: nobody could tell the order of the packets. The client comes back."""
TWO_POSTS: Final = broken_protocol("two posts at a time")
"""A second POST while one is being read, likewise. The client comes back."""
HALF_A_BODY: Final = broken_protocol("half a body")
"""A POST broke off, or took longer than a client may be silent. The client comes back."""
