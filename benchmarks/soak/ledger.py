"""Whether what a client got is what it should have got: each writer numbers its messages in each room, from 1."""

from __future__ import annotations

from collections import Counter
from typing import Any

import orjson

TRIGGER, BURST, FIRST_CLIENT = 0, 1, 1000
"""The numbers of the writers: the trigger, the bursts, and from here on the clients that publish."""


class Ledger:
    """What one client got.

    Args:
        all_along: it is in its rooms before the first message, so the first one that it gets must be number 1. For
            others, a stay is a piece without a gap that begins anywhere.
    """

    __slots__ = ("_last", "all_along", "disordered", "doubled", "lost", "received", "rooms")

    def __init__(self, *, all_along: bool) -> None:
        self.all_along = all_along
        self.received = self.lost = self.doubled = self.disordered = 0
        self.rooms: Counter[str] = Counter()
        self._last: dict[str, dict[int, int]] = {}

    def enter(self, room: str) -> None:
        """Begin a stay."""
        self._last[room] = {}

    def leave(self, room: str) -> None:
        """End it; whatever still comes is wrong."""
        self._last.pop(room, None)

    def take(self, event: bytes) -> tuple[str, int, int] | None:
        """Enter one event, and return its room, writer and number; None for a presence event."""
        if event.startswith(b'["presence:'):
            return None
        data: dict[str, Any] = orjson.loads(event)[1]
        room, writer, number = data["meta"]["channel"], data["w"], data["n"]
        self.received += 1
        self.rooms[room] += 1
        last = self._last.get(room)
        if last is None:
            self.disordered += 1
            return room, writer, number
        expected = last.get(writer, 0 if self.all_along else number - 1) + 1
        if number > expected:
            self.lost += number - expected
        elif number == expected - 1:
            self.doubled += 1
        elif number < expected:
            self.disordered += 1
        last[writer] = max(number, expected - 1)
        return room, writer, number

    def missing(self, totals: dict[str, int]) -> int:
        """Return how many messages of its rooms it has not got, if it was there all along."""
        return sum(totals.get(room, 0) - self.rooms[room] for room in self._last)
