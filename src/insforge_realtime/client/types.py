"""The values that the client hands out. What came over the wire stays a dict; what we build is a dataclass."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NotRequired, TypedDict

ConnectionState = Literal["disconnected", "connecting", "connected"]

SUBSCRIBED = "realtime:subscribed"
"""The event of a confirmed subscription, a name that applications cannot publish."""

AccessToken = str | Callable[[], str | Awaitable[str | None] | None]
"""A token, or a function (plain or async) that is called for one at every handshake."""

Handler = Callable[..., object]
"""Called with the event's data (`connect` has none). Plain or async: what it returns is awaited."""


class Meta(TypedDict):
    """What the server adds to a message, under the key `meta` of every payload."""

    channel: str
    messageId: str
    senderType: Literal["system", "user"]
    senderId: NotRequired[str]
    timestamp: str


class Member(TypedDict):
    """Someone in a channel. A user with two connections is one member."""

    type: Literal["user", "anonymous"]
    presenceId: str
    joinedAt: str


class PresenceEvent(TypedDict):
    """Someone entered a channel, or left it."""

    member: Member
    meta: Meta


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """A refusal.

    Args:
        code: what a program branches on: `UNAUTHORIZED`, `NOT_SUBSCRIBED`, …
        message: for people.
        channel: the channel concerned, if any.
    """

    code: str
    message: str
    channel: str | None = None


@dataclass(frozen=True, slots=True)
class Subscribed:
    """What handlers of `realtime:subscribed` get: the server has confirmed a subscription.

    Args:
        channel: which.
        renewed: it had been confirmed before, on another connection: messages may have been missed.
    """

    channel: str
    renewed: bool


@dataclass(frozen=True, slots=True)
class SubscribeResponse:
    """The answer to `subscribe`: `members` (who is there) where it is `ok`, else `error`."""

    ok: bool
    channel: str
    error: ErrorInfo | None = None
    members: list[Member] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class PublishResponse:
    """The answer to `publish(…, ack=True)`: `message_id` where it is `ok`, else `error`."""

    ok: bool
    message_id: str | None = None
    error: ErrorInfo | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """What a stream yields.

    Args:
        event: the event's name.
        payload: what a listener of the event would get: the published fields, and `meta`.
    """

    event: str
    payload: dict[str, Any]

    def __getitem__(self, key: str) -> Any:
        """A field of the payload: `message["status"]`."""
        return self.payload[key]

    @property
    def meta(self) -> Meta:
        """What the server added to it."""
        meta: Meta = self.payload["meta"]
        return meta

    @property
    def channel(self) -> str:
        """The channel's name."""
        return self.meta["channel"]

    @property
    def id(self) -> str:
        """The message's id, as in `realtime.messages`."""
        return self.meta["messageId"]

    @property
    def timestamp(self) -> datetime:
        """When it was created, in UTC."""
        return datetime.fromisoformat(self.meta["timestamp"])
