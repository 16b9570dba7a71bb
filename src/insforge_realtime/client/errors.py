"""What the client raises on purpose, in one tree.

    ClientError              code, message: the code is for programs, the message for people
    ├── ConnectError         an attempt to connect failed; also what `connect_error` listeners get
    ├── NotConnected         a publish while there is no connection
    ├── InvalidRequest       a publish of what JSON cannot represent: nothing was sent
    ├── SubscribeError       a stream's channel was refused, now or after a reconnect
    └── StreamOverflow       a stream's reader was too slow: messages would have been lost

`subscribe` and `publish(ack=True)` raise none of these for a refusal: they return it, as `ok` and `error`.
"""

from __future__ import annotations

LATER = ("UNAVAILABLE", "RATE_LIMITED")
"""Codes that are not an answer: the server cannot judge, or not now. The same is sent again."""


class ClientError(Exception):
    """The root: catch it to catch everything that the client raises on purpose.

    Args:
        code: one of the server's codes (`UNAUTHORIZED`, …) or of the client's (`CONNECTION_FAILED`, …).
        message: for people.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.message} ({self.code})"


class ConnectError(ClientError):
    """The server could not be reached (`CONNECTION_FAILED`), or it refused (its own code)."""


class NotConnected(ClientError):
    """There is no connection to publish on.

    Args:
        why: the error of the last attempt to connect.
    """

    def __init__(self, why: ConnectError | None = None) -> None:
        super().__init__("NOT_CONNECTED", f"Not connected to the realtime server: {why or 'call connect() first'}")


class InvalidRequest(ClientError, TypeError, ValueError):
    """JSON cannot represent what was to be sent, so it was not sent.

    Python's own `json` raises a TypeError or a ValueError for it; so this is both.
    """

    def __init__(self, message: str) -> None:
        super().__init__("INVALID_REQUEST", message)


class SubscribeError(ClientError):
    """A stream has no subscription to read from."""


class StreamOverflow(ClientError):
    """A stream's buffer was full: the stream ends with this error, after the messages in it."""

    def __init__(self, channel: str, size: int) -> None:
        super().__init__("STREAM_OVERFLOW", f"The reader of {channel!r} fell more than {size} messages behind")
