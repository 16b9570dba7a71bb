"""How long to wait before trying again: doubled each time up to a limit, and jittered, lest clients come in step."""

from __future__ import annotations

import random


class Backoff:
    """The waits of one thing that is tried again.

    Args:
        first: the longest first wait, in seconds.
        limit: the longest of all, in seconds.
    """

    def __init__(self, first: float, limit: float) -> None:
        self._first = first
        self._limit = limit
        self._failures = 0

    def next(self) -> float:
        """The next wait in seconds: between half of what it may be and all of it."""
        # The exponent is capped, since 2.0**1024 overflows and there is no end to the attempts.
        longest = min(self._limit, self._first * 2.0 ** min(self._failures, 64))
        self._failures += 1
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret

    def reset(self) -> None:
        """It worked: start from the first wait again."""
        self._failures = 0
