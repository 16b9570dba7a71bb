"""A connected peer: who it is, whose account it uses, where it is subscribed, and its commands, one after the other.

A task handles a peer's commands while its inbox has any, in the order in which they came; an empty inbox has none. While too
many wait, the peer's connection is not read from.

What may not live here: what a command means (commands.py), and what a WebSocket is: `Outbound` is a handful of verbs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

from insforge_realtime import tasks
from insforge_realtime.clock import iso_now
from insforge_realtime.errors import Close, RateLimited
from insforge_realtime.hub import Sink
from insforge_realtime.model import Identity, Member, Owner, Role
from insforge_realtime.rates import Bucket, place_of
from insforge_realtime.validation import Command

INBOX_HIGH, INBOX_LOW = 64, 16
"""The commands waiting at which a peer's connection is read no more, and read again."""
ANONYMOUS_SHARE = 10
"""How many people the anonymous clients of one address may be."""


class Outbound(Sink, Protocol):
    """What may be done to a peer: its side of a connection, whichever transport carries that. No verb waits or raises."""

    @property
    def address(self) -> str:
        """The client's."""

    def emit(self, name: str, data: object) -> None:
        """Send one event to this peer alone."""

    def acknowledge(self, ack_id: int, data: object) -> None:
        """Send the answer that the peer waits for."""

    def close(self, end: Close) -> None:
        """Close the connection in a way that makes the client reconnect."""

    def pause_reading(self) -> None:
        """Stop reading."""

    def resume_reading(self) -> None:
        """Go on reading."""


class Peer:
    """One connected peer.

    Args:
        outbound: its connection.
        identity: who it has proved to be.
        sid: of its Socket.IO session.
        owner: whose account its requests go to.
        bucket: the owner's.
    """

    __slots__ = ("_inbox", "bucket", "channels", "gone", "identity", "outbound", "owner", "paused", "sid")

    def __init__(self, outbound: Outbound, identity: Identity, sid: str, owner: Owner, bucket: Bucket) -> None:
        self.outbound = outbound
        self.identity = identity
        self.sid = sid
        self.owner = owner
        self.bucket = bucket
        self.channels: dict[str, None] = {}
        """Where it is subscribed, in the order of subscribing."""
        self.gone = False
        """Whether it has left. What is left in its inbox is handled all the same."""
        self.paused = False
        """Whether its connection is not read from."""
        self._inbox: deque[Command] | None = None
        """None while no task handles it: most peers are silent, and an empty deque takes 760 bytes."""

    @property
    def presence_id(self) -> str:
        return self.sid if self.is_anonymous else str(self.identity.subject)

    @property
    def is_anonymous(self) -> bool:
        return self.identity.subject is None or self.identity.role is Role.ANON

    def as_member(self) -> Member:
        """Return what its channels are told of it, if it joins now."""
        return Member("anonymous" if self.is_anonymous else "user", self.presence_id, iso_now())

    def charge(self, size: int, now: float) -> RateLimited | None:
        """Take one message of `size` bytes out of the owner's bucket, and return None; or why it holds too little."""
        short = self.bucket.take(size, now)
        if short == "bytes":
            return RateLimited(f"More than {self.bucket.bytes_per_second} bytes a second; slow down")
        return None if short is None else RateLimited()

    def enqueue(self, command: Command, handle: Callable[[Peer, Command], Awaitable[None]]) -> None:
        """Put one command behind those that wait.

        Args:
            handle: is called with each in turn; must not raise. The same for all commands of a peer.
        """
        if self._inbox is None:
            self._inbox = deque((command,))
            tasks.start(self._work(self._inbox, handle), "commands of a client")
            return
        self._inbox.append(command)
        if len(self._inbox) >= INBOX_HIGH and not self.paused:
            self.paused = True
            self.outbound.pause_reading()

    async def _work(self, inbox: deque[Command], handle: Callable[[Peer, Command], Awaitable[None]]) -> None:
        """Handle the inbox until it is empty."""
        while inbox:
            await handle(self, inbox.popleft())
            if self.paused and not self.gone and len(inbox) <= INBOX_LOW:
                self.paused = False
                self.outbound.resume_reading()
        self._inbox = None


def owner_of(identity: Identity, address: str, sid: str) -> Owner:
    """Return whose account a peer's requests go to. A project's key is on servers: each connection has its own account."""
    if identity.subject is not None:
        return Owner(f"user {identity.subject}")
    place = place_of(address)
    if identity.role is Role.PROJECT_ADMIN or place is None:
        return Owner(f"socket {sid}")
    return Owner(f"address {place}", ANONYMOUS_SHARE)
