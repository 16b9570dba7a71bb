"""How many requests each host may have at the moment: fairness, and the circuit breaker. Pure, apart from log lines.

A host is what lies between `//` and `/` in a URL, with its port. One that hangs occupies its own few slots and nobody
else's. One that keeps failing is left alone for a while:

    CLOSED   up to `per_host` requests
      │ `failures` attempts in a row that failed
    OPEN     none, for 5 s, then 10, 20 … 60; its deliveries wait, and their attempts are not used up
      │ the time is up
    PROBED   one request: an answer closes the breaker, a failure opens it again for twice as long

Apart from that, a host rests if it is we who cannot send to it at the moment: 1 s, then 2, 4 … 30, until a request to it
has any result at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import structlog

FIRST_PAUSE, LONGEST_PAUSE = 5.0, 60.0
FIRST_REST, LONGEST_REST = 1.0, 30.0

log = structlog.get_logger("insforge_realtime.webhooks")


@dataclass(slots=True)
class _Trouble:
    """A host whose last attempt failed."""

    failures: int = 0
    pause: float = 0.0
    until: float = 0.0


@dataclass(slots=True)
class _Rest:
    """A host that this server could not send to."""

    pause: float
    until: float


class Hosts:
    """What is in flight to each host, and how it has fared lately.

    Args:
        per_host: requests that one host may have at a time.
        failures: how many in a row open the breaker; 0 for never.
        now: the time, in seconds.
    """

    def __init__(self, *, per_host: int, failures: int, now: Callable[[], float]) -> None:
        self.per_host = per_host
        self._failures = failures
        self._now = now
        self._under_way: Counter[str] = Counter()
        self._trouble: dict[str, _Trouble] = {}
        self._rests: dict[str, _Rest] = {}

    @property
    def left_alone(self) -> list[str]:
        """The hosts whose breaker is not closed."""
        return [host for host, trouble in self._trouble.items() if self._is_open(trouble)]

    def limits(self) -> dict[str, int]:
        """Return how many more each host may have, for hosts that may not have `per_host`."""
        return {host: self._room(host) for host in {*self._under_way, *self.left_alone, *self._rests}}

    def next_probe(self) -> float | None:
        """Return in how many seconds some host may be tried again; None if none is left alone."""
        until = [self._trouble[host].until for host in self.left_alone] + [rest.until for rest in self._rests.values()]
        times = [time - self._now() for time in until]
        return min((time for time in times if time > 0), default=None)

    def begin(self, host: str) -> None:
        """Count a request to this host that begins."""
        self._under_way[host] += 1

    def end(self, host: str, failed: bool | None) -> None:
        """Count a request that has ended; `failed` is None if that says nothing about the host."""
        self._under_way[host] -= 1
        if not self._under_way[host]:
            del self._under_way[host]
        if failed is not None:
            self._rests.pop(host, None)
        if failed:
            self._fail(host)
        elif failed is False:
            self._succeed(host)

    def rest(self, host: str) -> None:
        """Leave a host alone for a moment to which nothing can be sent from here, without a word in the log."""
        before = self._rests.get(host)
        if before is None or self._now() >= before.until:
            pause = min(before.pause * 2, LONGEST_REST) if before else FIRST_REST
            self._rests[host] = _Rest(pause, self._now() + pause)

    def _room(self, host: str) -> int:
        rest = self._rests.get(host)
        if rest is not None and self._now() < rest.until:
            return 0
        trouble = self._trouble.get(host)
        most = self.per_host
        if trouble is not None and self._is_open(trouble):
            most = 0 if self._now() < trouble.until else 1
        return max(0, most - self._under_way[host])

    def _is_open(self, trouble: _Trouble) -> bool:
        return 0 < self._failures <= trouble.failures

    def _fail(self, host: str) -> None:
        trouble = self._trouble.setdefault(host, _Trouble())
        trouble.failures += 1
        # A request that fails while the host is left alone was in flight before.
        if self._is_open(trouble) and self._now() >= trouble.until:
            trouble.pause = min(trouble.pause * 2 or FIRST_PAUSE, LONGEST_PAUSE)
            trouble.until = self._now() + trouble.pause
            log.warning("webhook host left alone", host=host, failures=trouble.failures, seconds=trouble.pause)

    def _succeed(self, host: str) -> None:
        trouble = self._trouble.pop(host, None)
        if trouble is not None and self._is_open(trouble):
            log.info("webhook host answers again", host=host)
