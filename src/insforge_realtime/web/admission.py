"""Who has a place here, and who gives way to whom. Pure bookkeeping: no socket, no clock but the one that it is handed.

A *guest* is a socket, from the moment that it is accepted, or a session of long-polling. It waits until somebody vouches for
it: when its client has said CONNECT with a credential that was accepted. Of what waits, anybody can make any number.
So whenever there is no room for a newcomer, the guest that has waited longest gives way, and only where nobody waits is the
newcomer refused. A flood of silent sockets drives out silent sockets; an honest client needs its place as a stranger for
a few milliseconds.

What always holds, whatever is called in whatever order:

    every guest is counted once, in all and for its address, from `enter` to `leave` or until it has given way
    those who wait are guests, those of an address are guests of that address, and no count is below zero
    no limit is passed, except by calls of `doubt`
    an address that has no guest is not remembered

Addresses are places, as `place_of` in rates.py has them. None is for whoever comes through a UNIX socket or a trusted proxy:
no limit for an address applies.
"""

from __future__ import annotations

from math import inf
from typing import Literal, Protocol

REMEMBERED = 50_000
"""How many addresses a `Rate` knows of. An attacker who has more is not stopped by counting them."""
BURST_SECONDS = 20.0
"""So many seconds' worth may come at once."""

Full = Literal["all", "address"]
"""Which limit leaves no room."""


class Guest(Protocol):
    """Somebody who has a place."""

    def give_way(self) -> None:
        """The place is another's now: be gone. May call `leave`, which has nothing left to do."""


class _Address:
    """The guests of one address; of those who have none, with the name None and without a limit."""

    __slots__ = ("held", "name", "waiting")

    def __init__(self, name: str | None) -> None:
        self.name = name
        self.held = 0
        self.waiting: dict[Guest, None] | None = None
        """Those who wait, the oldest first. None when they are none, as nearly always."""


class Admission:
    """The places for one kind of guest.

    Args:
        most: how many there are in all; 0 for no limit.
        per_address: how many of them for one address; 0 for no limit.
        waiting: how many may wait; 0 for no limit.
    """

    def __init__(self, *, most: int = 0, per_address: int = 0, waiting: int = 0) -> None:
        self._most, self._per_address, self._most_waiting = most or inf, per_address or inf, waiting or inf
        self._held: dict[Guest, _Address] = {}
        self._waiting: dict[Guest, None] = {}
        self._nowhere = _Address(None)
        self._addresses: dict[str | None, _Address] = {}
        self.gave_way = 0
        """How many had to go."""

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, guest: Guest) -> bool:
        return guest in self._held

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @property
    def addresses(self) -> int:
        """How many addresses they have."""
        return len(self._addresses)

    def enter(self, guest: Guest, address: str | None) -> Full | None:
        """A newcomer takes a place, and waits; or finds none, and why.

        Args:
            guest: not here yet.
            address: as `place_of` has it.
        """
        if not self._room_at(address):
            return "address"
        if len(self._held) >= self._most and not self._make_way(self._waiting):
            return "all"
        self._count(guest, address)
        self.doubt(guest)
        return None

    def move(self, guest: Guest, address: str | None) -> bool:
        """A guest turns out to have this address. False, and everything stays as it was, if that leaves no room."""
        if guest not in self._held or self._held[guest].name == address:
            return True
        if not self._room_at(address):
            return False
        waits = guest in self._waiting
        self.leave(guest)
        self._count(guest, address)
        if waits:
            self.doubt(guest)
        return True

    def hand_over(self, guest: Guest, successor: Guest) -> None:
        """The same socket is another guest now, with the same place, and waits if it did, as the newest."""
        if guest in self._held:
            waits = guest in self._waiting
            self.vouch(guest)
            self._held[successor] = self._held.pop(guest)
            if waits:
                self.doubt(successor)

    def vouch(self, guest: Guest) -> None:
        """Its client is known."""
        if guest in self._waiting:
            del self._waiting[guest]
            place = self._held[guest]
            if place.waiting is not None:
                del place.waiting[guest]
                place.waiting = place.waiting or None

    def doubt(self, guest: Guest) -> None:
        """Its client is not known, or no longer: the guest waits, as the newest of them."""
        if guest not in self._held or guest in self._waiting:
            return
        if len(self._waiting) >= self._most_waiting:
            self._make_way(self._waiting)
        self._waiting[guest] = None
        place = self._held[guest]
        if place is not self._nowhere:
            place.waiting = place.waiting or {}
            place.waiting[guest] = None

    def leave(self, guest: Guest) -> None:
        """It has gone. Harmless to repeat."""
        if guest in self._held:
            self.vouch(guest)
            place = self._held.pop(guest)
            place.held -= 1
            if not place.held:
                self._addresses.pop(place.name, None)

    def _count(self, guest: Guest, address: str | None) -> None:
        place = self._nowhere
        if address is not None:
            place = self._addresses.get(address) or self._addresses.setdefault(address, _Address(address))
        place.held += 1
        self._held[guest] = place

    def _room_at(self, address: str | None) -> bool:
        place = self._addresses.get(address)
        return place is None or place.held < self._per_address or self._make_way(place.waiting)

    def _make_way(self, waiting: dict[Guest, None] | None) -> bool:
        """The oldest of these goes. False if there is none."""
        if not waiting:
            return False
        oldest = next(iter(waiting))
        self.leave(oldest)
        self.gave_way += 1
        oldest.give_way()
        return True


class Rate:
    """How often each address may do something: a bucket for each, of which no more is remembered than when it is full again.

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
        """Once more. 0.0 if that is within the limit; else how many seconds later it would be, and nothing has happened."""
        if address is None or not self._cost:
            return 0.0
        full_at = max(self._full_at.pop(address, now), now)
        over = full_at + self._cost - now - max(BURST_SECONDS, self._cost)
        self._full_at[address] = full_at if over > 1e-6 else full_at + self._cost
        self._forget(now)
        return over if over > 1e-6 else 0.0

    def _forget(self, now: float) -> None:
        """Those whose buckets are full, two at a time, since each call adds one; and whoever is one too many."""
        for _ in range(2):
            oldest = next(iter(self._full_at))
            if self._full_at[oldest] > now and len(self._full_at) <= REMEMBERED:
                return
            del self._full_at[oldest]
            if not self._full_at:
                return
