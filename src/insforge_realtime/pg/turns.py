"""Who is asked for next: a queue in which owners take turns, and a memory for who was slow. Pure.

Owners and not requests wait in line, so whoever has a thousand requests waiting delays the others by one of them. Source:
J. Nagle, "On packet switches with infinite storage", RFC 970 (fair queueing).
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")

SUSPECTED_SECONDS = 30.0
"""For how long somebody is suspected after having been slow."""
MOST_SUSPECTS = 10_000
"""How many are remembered; the oldest are forgotten first."""


class Turns(Generic[T]):
    """First come, first served among the requests of one owner; one request of each owner in turn."""

    def __init__(self) -> None:
        self._owners: deque[str] = deque()
        """In the order of their turns: those who have something in the queue."""
        self._queues: dict[str, deque[T]] = {}

    def __bool__(self) -> bool:
        return bool(self._owners)

    def push(self, owner: str, item: T) -> None:
        """Let it wait."""
        queue = self._queues.get(owner)
        if queue is None:
            self._queues[owner] = deque((item,))
            self._owners.append(owner)
        else:
            queue.append(item)

    def pop(self) -> T:
        """The next one. Raises IndexError where nothing waits."""
        owner = self._owners.popleft()
        queue = self._queues[owner]
        item = queue.popleft()
        if queue:
            self._owners.append(owner)
        else:
            del self._queues[owner]
        return item


class Suspects:
    """Who was slow of late, and which kinds of channel were.

    A kind is suspected only once it was slow for two owners: one user whose own rows make a policy slow gives nobody else's
    channel a bad name.
    """

    def __init__(self) -> None:
        self._owners: dict[str, float] = {}
        self._kinds: dict[str, tuple[float, str]] = {}
        """Until when, and for whom it was slow: `ANYBODY` once there were two."""

    def suspect(self, owner: str, kind: str, now: float) -> bool:
        """It was slow, just now. Whether anything is suspected that was not before."""
        until = now + SUSPECTED_SECONDS
        known, whom = self._owners.pop(owner, 0.0) > now, owner
        self._owners[owner] = until
        before_until, before = self._kinds.pop(kind, (0.0, owner))
        if before_until > now and before != owner:
            known, whom = known and before == ANYBODY, ANYBODY
        self._kinds[kind] = (until, whom)
        for remembered in (self._owners, self._kinds):
            if len(remembered) > MOST_SUSPECTS:
                del remembered[next(iter(remembered))]
        return not known

    def includes(self, owner: str, kind: str, now: float) -> bool:
        """Whether to expect that it is slow again."""
        if not self._owners:
            return False
        until, whom = self._kinds.get(kind, (0.0, ""))
        return self._owners.get(owner, 0.0) > now or (until > now and whom == ANYBODY)


ANYBODY = ""
"""No owner's name."""
