"""The database's clock, watched with our own: how far it can be believed about leases.

What lives here: arithmetic on what the two clocks showed. The leases are pg/deliveries.py's.

A database's clock is set now and then: time synchronisation steps it, a failover brings another host with another clock.
Our own, which nobody sets, tells: what the database shows must have grown by what has passed here. The bounds of the
difference between the two narrow with each look, since an answer was made between its question and its arrival.
"""

from __future__ import annotations

from collections.abc import Callable

TOLERANCE = 1.0
"""Differences up to here, in seconds, are drift, or a clock that is being slewed."""


class DatabaseClock:
    """What is known of the database's clock.

    Args:
        now: our own clock, in seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._since: float | None = None
        self._least = self._most = 0.0  # how far the database's clock is ahead of ours

    def seen(self, time: float, asked: float) -> float:
        """Take in an answer that has just come.

        Args:
            time: what the database's clock showed, in seconds.
            asked: when it was asked, by our own.

        Returns: by how many seconds it was set since the last look; 0 where it was not, or nothing is known.
        """
        least, most = time - self._now(), time - asked
        step = self._gap(least, most)
        if self._since is None or abs(step) > TOLERANCE:
            self._since = asked
        elif step == 0:
            least, most = max(least, self._least), min(most, self._most)
        self._least, self._most = least, most
        return step if abs(step) > TOLERANCE else 0.0

    def _gap(self, least: float, most: float) -> float:
        if self._since is None:
            return 0.0
        return max(0.0, least - self._most) + min(0.0, most - self._least)

    def believed(self) -> float | None:
        """What it must show by now, at the least, if nobody has set it since the last look; None where nothing is known."""
        return None if self._since is None else self._now() + self._least

    def watched(self) -> float:
        """For how many seconds we have seen it run undisturbed."""
        return 0.0 if self._since is None else self._now() - self._since
