"""Every error this package raises on purpose, in one tree, and the codes that go over the wire.

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
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


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
