"""How many connections there may be, in all and for one address, and how often one may come. Pure bookkeeping: no socket, no
clock but the one that is handed in. What is refused for it is admission.py's business.

A connection is counted from the moment that it is accepted; so is a session of long-polling. It is *unauthenticated*
until its client has sent a CONNECT with a credential that was accepted. Of those, anybody can make any number. So
whenever there is no room for a newcomer, the unauthenticated connection that has waited longest is evicted, and only
where there is none is the newcomer refused. A flood of silent sockets drives out silent sockets; an honest one is
unauthenticated for a few milliseconds.

What always holds, whatever is called in whatever order:

    every connection is counted once, in all and for its address, from `acquire` to `release` or until it is evicted
    the unauthenticated are connections, those of an address are connections of that address, and no count is below zero
    no limit is passed, except by calls of `unauthenticated`
    an address that has no connection is not remembered

Addresses are places, as `place_of` in rates.py has them. None stands for a UNIX socket or a trusted proxy: no limit for
an address applies.
"""

from __future__ import annotations

from math import inf
from typing import Literal, Protocol

from insforge_realtime.metrics import Metrics

REMEMBERED = 50_000
"""How many addresses a `RateLimiter` knows of. An attacker who has more is not stopped by counting them."""
BURST_SECONDS = 20.0
"""So many seconds' worth may come at once."""

Full = Literal["all", "address"]
"""Which limit leaves no room."""


class Evictable(Protocol):
    """A connection that is counted."""

    def evict(self) -> None:
        """Be gone: the place is another's now. May call `release`, which has nothing left to do."""


class _Address:
    """The connections of one address; of those that have none, with the name None and without a limit."""

    __slots__ = ("held", "name", "waiting")

    def __init__(self, name: str | None) -> None:
        self.name = name
        self.held = 0
        self.waiting: dict[Evictable, None] | None = None
        """The unauthenticated ones, the oldest first. None when there are none, as nearly always."""


class ConnectionLimiter:
    """Counts connections of one kind.

    Args:
        most: how many there may be in all; 0 for no limit.
        per_address: how many of them from one address; 0 for no limit.
        unauthenticated: how many of them may be unauthenticated; 0 for no limit.
        metrics: where those that had to go are counted.
    """

    def __init__(
        self, *, most: int = 0, per_address: int = 0, unauthenticated: int = 0, metrics: Metrics | None = None
    ) -> None:
        self._most, self._per_address = most or inf, per_address or inf
        self._most_waiting = unauthenticated or inf
        self._held: dict[Evictable, _Address] = {}
        self._waiting: dict[Evictable, None] = {}
        """The unauthenticated ones, the oldest first."""
        self._nowhere = _Address(None)
        self._addresses: dict[str | None, _Address] = {}
        self._metrics = metrics or Metrics()

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, connection: Evictable) -> bool:
        return connection in self._held

    @property
    def waiting(self) -> int:
        """How many are unauthenticated."""
        return len(self._waiting)

    @property
    def addresses(self) -> int:
        """How many addresses they come from."""
        return len(self._addresses)

    def acquire(self, connection: Evictable, address: str | None) -> Full | None:
        """Count a newcomer, as unauthenticated; or return which limit leaves no room for it.

        Args:
            connection: not counted yet.
            address: as `place_of` has it.
        """
        if not self._room_at(address):
            return "address"
        if len(self._held) >= self._most and not self._evict(self._waiting):
            return "all"
        self._count(connection, address)
        self.unauthenticated(connection)
        return None

    def move(self, connection: Evictable, address: str | None) -> bool:
        """Count a connection for this address from now on. Return False, and change nothing, if that has no room."""
        if connection not in self._held or self._held[connection].name == address:
            return True
        if not self._room_at(address):
            return False
        waits = connection in self._waiting
        self.release(connection)
        self._count(connection, address)
        if waits:
            self.unauthenticated(connection)
        return True

    def hand_over(self, connection: Evictable, successor: Evictable) -> None:
        """Count another object for the same socket. If it is unauthenticated, it is the newest of those."""
        if connection in self._held:
            waits = connection in self._waiting
            self.authenticated(connection)
            self._held[successor] = self._held.pop(connection)
            if waits:
                self.unauthenticated(successor)

    def authenticated(self, connection: Evictable) -> None:
        """Keep it: its client is known."""
        if connection in self._waiting:
            del self._waiting[connection]
            place = self._held[connection]
            if place.waiting is not None:
                del place.waiting[connection]
                place.waiting = place.waiting or None

    def unauthenticated(self, connection: Evictable) -> None:
        """Let it wait, as the newest: its client is not known, or no longer."""
        if connection not in self._held or connection in self._waiting:
            return
        if len(self._waiting) >= self._most_waiting:
            self._evict(self._waiting)
        self._waiting[connection] = None
        place = self._held[connection]
        if place is not self._nowhere:
            place.waiting = place.waiting or {}
            place.waiting[connection] = None

    def release(self, connection: Evictable) -> None:
        """Count it no more. Harmless to repeat."""
        if connection in self._held:
            self.authenticated(connection)
            place = self._held.pop(connection)
            place.held -= 1
            if not place.held:
                self._addresses.pop(place.name, None)

    def _count(self, connection: Evictable, address: str | None) -> None:
        place = self._nowhere
        if address is not None:
            place = self._addresses.get(address) or self._addresses.setdefault(address, _Address(address))
        place.held += 1
        self._held[connection] = place

    def _room_at(self, address: str | None) -> bool:
        place = self._addresses.get(address)
        return place is None or place.held < self._per_address or self._evict(place.waiting)

    def _evict(self, waiting: dict[Evictable, None] | None) -> bool:
        """Evict the oldest of these. Return False if there is none."""
        if not waiting:
            return False
        oldest = next(iter(waiting))
        self.release(oldest)
        self._metrics.connections_evicted += 1
        oldest.evict()
        return True


class RateLimiter:
    """A bucket for each address, of which no more is remembered than when it is full again.

    Args:
        rate: times a second, on average; `BURST_SECONDS` as many in a burst. 0 for no limit.
    """

    def __init__(self, rate: float) -> None:
        self._cost = 1 / rate if rate else 0.0
        self._full_at: dict[str, float] = {}
        """In the order of the last try."""

    def __len__(self) -> int:
        return len(self._full_at)

    def wait(self, address: str | None, now: float) -> float:
        """Take one out. Return 0.0 if it was there; else in how many seconds it would be, and nothing has happened."""
        if address is None or not self._cost:
            return 0.0
        full_at = max(self._full_at.pop(address, now), now)
        over = full_at + self._cost - now - max(BURST_SECONDS, self._cost)
        self._full_at[address] = full_at if over > 1e-6 else full_at + self._cost
        self._forget(now)
        return over if over > 1e-6 else 0.0

    def _forget(self, now: float) -> None:
        """Forget full buckets, two at a time, since each call adds one; and one that is one too many."""
        for _ in range(2):
            oldest = next(iter(self._full_at))
            if self._full_at[oldest] > now and len(self._full_at) <= REMEMBERED:
                return
            del self._full_at[oldest]
            if not self._full_at:
                return
