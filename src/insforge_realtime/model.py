"""The vocabulary: the values that the other modules pass to each other. Frozen, no behaviour, no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import orjson


class Role(StrEnum):
    """The three database roles a client can act as; no other value of the claim `role` is accepted."""

    ANON = "anon"
    AUTHENTICATED = "authenticated"
    PROJECT_ADMIN = "project_admin"


@dataclass(frozen=True, slots=True)
class Identity:
    """The identity of a connection, for as long as it lives.

    Args:
        role: the database role its requests are judged as.
        claims: the token's claims as JSON text, just as PostgreSQL gets them in `request.jwt.claims`.
        subject: the claim `sub`, or None for anonymous clients and project keys.
        expires_at: Unix time in seconds at which the token ends, or None for keys, which do not.
    """

    role: Role
    claims: str
    subject: str | None = None
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class Owner:
    """The account that something is charged to, so that everybody gets a fair share: a user, with all its sockets.

    Args:
        id: unique among owners.
        share: how many people it may stand for: the anonymous clients of one address are more than one.
    """

    id: str
    share: int = 1


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of a channel's presence. A user with two sockets is one member.

    Args:
        type: `"user"`, or `"anonymous"` for clients without a subject.
        presence_id: the user's id, or the socket's id for anonymous ones.
        joined_at: when the first of its sockets joined, ISO 8601 in UTC.
    """

    type: str
    presence_id: str
    joined_at: str
    json: orjson.Fragment = field(init=False, repr=False, compare=False)
    """The member as it appears on the wire. Encoded once: every subscriber gets all members."""

    def __post_init__(self) -> None:
        wire = {"type": self.type, "presenceId": self.presence_id, "joinedAt": self.joined_at}
        # A str, since orjson allocates a kilobyte for its bytes, and the part that is cut off is of no use to anybody.
        object.__setattr__(self, "json", orjson.Fragment(orjson.dumps(wire).decode()))


@dataclass(frozen=True, slots=True)
class Message:
    """A committed row of `realtime.messages`, on its way down.

    Args:
        seq: the row's place in the order of insertion; names the row to the counters.
        channel: the bare channel name, `order:123`.
        event: the finished Socket.IO event, `["UPDATE_order",{…,"meta":{…}}]`, made by PostgreSQL.
    """

    seq: int
    channel: str
    event: str


@dataclass(frozen=True, slots=True)
class Publication:
    """A client's request to publish, checked for form but not yet for permission.

    Args:
        identity: the client's.
        channel: the channel name.
        event: the event name.
        payload: the payload as JSON text, an object.
    """

    identity: Identity
    channel: str
    event: str
    payload: str
