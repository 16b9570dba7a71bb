"""How much each owner may send: a token bucket of messages and one of bytes; and what an address stands for.

What lives here: the arithmetic, without a clock. What may not: connections, and what a refusal says (inbox.py).

A bucket is its owner's, not a connection's: fifty sockets of a user send as much as one. After the last of them has gone it
is remembered until it would be full again, so that nobody gains by coming back.

    of(owner)      the owner's bucket, held until `release`
    Bucket.take    one message out of it, or what it holds too little of
"""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address
from typing import Literal

from insforge_realtime.model import Owner

BURST_SECONDS = 2.0
"""How many seconds' worth may be sent at once."""
MOST_REMEMBERED = 10_000
"""How many owners without a connection are remembered."""

Short = Literal["messages", "bytes"]
"""What a bucket holds too little of."""


def place_of(address: str) -> str | None:
    """Return what an address counts as: itself, or for IPv6 its /64, which one customer of a provider has alone; None if it
    is not an address."""
    if ":" not in address:
        return address if address[:1].isdigit() else None
    try:
        parsed = ip_address(address)
    except ValueError:
        return None
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"


class Bucket:
    """One owner's two buckets, full at first.

    Args:
        messages, size: how many messages and how many bytes flow in per second; 0 for no limit.
        now: the time, in seconds from anywhere.
    """

    __slots__ = ("_at", "_burst", "_messages", "_room", "_tokens", "bytes_per_second", "users")

    def __init__(self, messages: float, size: float, now: float) -> None:
        self._messages, self.bytes_per_second = messages, size
        self._tokens = self._burst = max(1.0, BURST_SECONDS * messages)
        self._room = BURST_SECONDS * size
        self._at = now
        self.users = 0
        """How many connections hold it."""

    def take(self, size: float, now: float) -> Short | None:
        """Take a message of so many bytes, and return None; or what there is too little of, and take nothing."""
        self._fill(now)
        if self._messages and self._tokens < 1:
            return "messages"
        # What is larger than the bucket passes when that is full, and leaves it in debt: a quiet owner can send anything.
        if self.bytes_per_second and self._room < min(size, BURST_SECONDS * self.bytes_per_second):
            return "bytes"
        self._tokens -= bool(self._messages)
        self._room -= size if self.bytes_per_second else 0
        return None

    def is_full(self, now: float) -> bool:
        """Return whether a new one would be just the same."""
        self._fill(now)
        return self._tokens >= self._burst and self._room >= BURST_SECONDS * self.bytes_per_second

    def _fill(self, now: float) -> None:
        passed, self._at = now - self._at, now
        self._tokens = min(self._burst, self._tokens + passed * self._messages)
        self._room = min(BURST_SECONDS * self.bytes_per_second, self._room + passed * self.bytes_per_second)


class Buckets:
    """The buckets of all owners.

    Args:
        messages, size: what each gets per second, times its share.
    """

    def __init__(self, messages: float, size: float) -> None:
        self._messages, self._size = messages, size
        self._held: dict[str, Bucket] = {}
        self._left: OrderedDict[str, Bucket] = OrderedDict()
        """Those of owners without a connection, in the order in which they left."""

    def __len__(self) -> int:
        return len(self._held) + len(self._left)

    def of(self, owner: Owner, now: float) -> Bucket:
        """Return the owner's bucket, for one more connection."""
        bucket = self._held.get(owner.id) or self._left.pop(owner.id, None)
        if bucket is None:
            bucket = Bucket(self._messages * owner.share, self._size * owner.share, now)
        self._held[owner.id] = bucket
        bucket.users += 1
        return bucket

    def release(self, owner: Owner, now: float) -> None:
        """Let go of the owner's bucket: one of its connections has gone."""
        bucket = self._held[owner.id]
        bucket.users -= 1
        if not bucket.users:
            del self._held[owner.id]
            self._left[owner.id] = bucket
            self._forget(now)

    def _forget(self, now: float) -> None:
        """Drop those that are full, two at a time, since each call adds one; and one that is too many."""
        for _ in range(2):
            oldest = next(iter(self._left), None)
            if oldest is None or not (self._left[oldest].is_full(now) or len(self._left) > MOST_REMEMBERED):
                return
            del self._left[oldest]
