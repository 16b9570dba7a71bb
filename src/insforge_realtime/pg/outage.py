"""What the log says of a database that is away: one line for all links to it, one a minute as long as that lasts, one when
all links are back.

What lives here: who is down, since when, and what was said. What does not: trying again (database.py),
and what an error means (dial.py).

A link is known by the task that keeps it (a context variable), so whoever opens a connection need not know for whom it is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import structlog

from insforge_realtime.pg.dial import remedy

REMIND_SECONDS = 60.0
"""How often the log says that a database is still away."""
SETTLED_SECONDS = 1.0
"""How long a link has to last until it counts as back: there are servers that let us in and then throw us out."""

log = structlog.get_logger("insforge_realtime.pg")


@dataclass(slots=True)
class _Outage:
    """One database's."""

    down: set[DatabaseLink] = field(default_factory=set)
    links: int = 0
    began: float = 0.0
    told: dict[str, float] = field(default_factory=dict)


_outages: dict[str, _Outage] = {}
"""By the database's place."""
_current: ContextVar[DatabaseLink | None] = ContextVar("link", default=None)


@dataclass(slots=True, eq=False)
class DatabaseLink:
    """A connection that is kept up.

    Args:
        name: for the log.
    """

    name: str
    place: str = "the database"
    _settling: asyncio.TimerHandle | None = None

    def lost(self, error: BaseException, text: str) -> None:
        """It is lost, or could not be opened. What all links would say is said once."""
        self._stop_settling()
        outage = _outages.setdefault(self.place, _Outage())
        now = time.monotonic()
        if not outage.down:
            outage.began, outage.links, outage.told = now, 0, {}
        outage.links += self not in outage.down
        outage.down.add(self)
        advice = remedy(error)
        said = outage.told.get(advice or "")
        if said is None or now - said >= REMIND_SECONDS:
            outage.told[advice or ""] = now
            self._tell(text, advice)

    def _tell(self, text: str, advice: str | None) -> None:
        if advice is None:
            log.warning("database link lost", link=self.name, database=self.place, error=text)
        else:
            log.error("the database cannot be used", link=self.name, database=self.place, error=text, advice=advice)

    def opened(self) -> None:
        """It is there; whether it stays is to be seen."""
        self._stop_settling()
        if self._is_down:
            self._settling = asyncio.get_running_loop().call_later(SETTLED_SECONDS, self._settle)

    def end(self) -> None:
        """Nobody keeps it any more."""
        self._stop_settling()
        if self._is_down:
            _outages[self.place].down.discard(self)

    @property
    def _is_down(self) -> bool:
        return self.place in _outages and self in _outages[self.place].down

    def _settle(self) -> None:
        outage = _outages[self.place]
        outage.down.discard(self)
        if not outage.down:
            seconds = round(time.monotonic() - outage.began, 1)
            log.info("database links are back", database=self.place, links=outage.links, seconds=seconds)

    def _stop_settling(self) -> None:
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None


@contextmanager
def keeping(name: str) -> Iterator[DatabaseLink]:
    """The link that connections of this task are for, until the end of the block."""
    link = DatabaseLink(name)
    token = _current.set(link)
    try:
        yield link
    finally:
        _current.reset(token)
        link.end()


def dialling(place: str) -> None:
    """A connection is being opened to the database at `place`."""
    link = _current.get()
    if link is not None:
        link.place = place


def opened() -> None:
    """It was."""
    link = _current.get()
    if link is not None:
        link.opened()
