"""How long to wait before trying again: doubled each time up to a limit, and jittered, lest clients come in step."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """The waits of whatever is tried again. Whoever tries counts the failures.

    Args:
        first: the longest first wait, in seconds.
        limit: the longest of all, in seconds.
    """

    first: float
    limit: float

    def after(self, failures: int) -> float:
        """Return the wait after so many earlier failures, in seconds: between half of what it may be and all of it."""
        # The exponent is capped, since 2.0**1024 overflows and there is no end to the attempts.
        longest = min(self.limit, self.first * 2.0 ** min(failures, 64))
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
