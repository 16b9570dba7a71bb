"""One timer for the deadlines of all connections: a wheel of quarter-second slots.

A connection's deadline moves often (every pong) and comes up rarely. So it is not moved: the wheel calls at the time it was
last told, and the connection returns its next deadline.

Slots end at multiples of a quarter second of the loop's clock, and the wheel turns there and nowhere else: were it to turn a
quarter second after its last turn, a deadline could wait for nearly two slots.
"""

from __future__ import annotations

import asyncio
import math
from typing import Protocol

import structlog

SLOT_SECONDS = 0.25

log = structlog.get_logger("insforge_realtime.web")


class Timed(Protocol):
    """Something with a deadline."""

    def tick(self, now: float) -> float | None:
        """Do what is due at `now`, and return the next deadline, or None for never."""


class TimerWheel:
    """Calls `tick` of everything scheduled: never before its deadline, and less than a slot after it, plus the loop's lag.

    Args:
        loop: its clock is the one that deadlines are given in.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._slots: dict[int, set[Timed]] = {}
        self._turned_to = self._slot(loop.time())

    def schedule(self, timed: Timed, deadline: float) -> None:
        """Call `timed` at this time, and from then on at each deadline that it returns."""
        slot = max(math.ceil(deadline / SLOT_SECONDS), self._turned_to + 1)
        self._slots.setdefault(slot, set()).add(timed)

    async def run(self) -> None:
        """Turn until cancelled."""
        while True:
            await asyncio.sleep((self._turned_to + 1) * SLOT_SECONDS - self._loop.time())
            self.turn(self._loop.time())

    def turn(self, now: float) -> None:
        """Handle every slot up to `now`. A wheel that was held up catches up."""
        slot = self._slot(now)
        first, self._turned_to = self._turned_to + 1, slot
        for due in range(first, slot + 1):
            for timed in self._slots.pop(due, ()):
                self._tick(timed, now)

    def _tick(self, timed: Timed, now: float) -> None:
        try:
            deadline = timed.tick(now)
        except Exception:
            log.exception("deadline failed")
            return
        if deadline is not None:
            self.schedule(timed, deadline)

    def _slot(self, time: float) -> int:
        """Return how many slots have ended."""
        return math.floor(time / SLOT_SECONDS)
