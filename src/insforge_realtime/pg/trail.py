"""What the feed has delivered lately, and from where it may go on after its connection was lost. For pg/feed.py.

A snapshot P is good only in the history that it was taken in. A crash of PostgreSQL gives out again the transaction ids that
were not in the flushed WAL; an asynchronous standby that is promoted has never seen the last of them; a restore goes back by
days. In each case P would call rows of the new history old. So the feed leaves a *footprint* once a second: a snapshot, and
the rows that it delivered after it and before the next one. A footprint is good if all that was visible in its snapshot is
part of today's history. Any of these proves it:

    the life of the server is the same: it has neither been restarted nor crashed. Only the link was lost.
    a row    that was delivered after the footprint exists today, and its transaction id was given out after the snapshot was
             taken (xid >= xmax). A history is a prefix of the WAL of its past. The commit of that row stands in it; so does
             all that was committed before that row's transaction began, and every transaction id given out by then. That
             holds across crashes, any number of failovers, and restores.
    the WAL  was flushed up to where it had been inserted when the snapshot had been taken, and this is the same timeline
             of the same cluster. (Inserted, not committed: the ids of rolled-back savepoints stay unflushed for seconds.)
             Two standbys may both be promoted to a timeline of the same number: it is not believed where rows that were
             delivered have other ids now, or their numbers are not given out yet.

The feed goes on from the newest footprint that is proved, and leaves out what it delivered after it. Where there is none,
nothing is known of what was missed: `Lost`, and the feed says so to everybody.

Kept are the footprints of the last seconds, at least one that is flushed, and of the older ones the newest with rows: on a
quiet system it is the only witness of a failover.
"""

from __future__ import annotations

from array import array
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import asyncpg

from insforge_realtime.pg.queries import query

if TYPE_CHECKING:
    from insforge_realtime.pg.database import Connection

UNKNOWN = asyncpg.SyntaxOrAccessError, asyncpg.FeatureNotSupportedError, asyncpg.ObjectNotInPrerequisiteStateError
"""What is raised by what is like PostgreSQL, but has none of its functions about the WAL."""
FOOTPRINT_SECONDS = 1.0
MOST_ROWS = 500_000
"""Rows remembered in all, at 16 bytes each; with more of them the trail gets shorter than it was asked to be."""
WITNESSES = 8
"""How many of a footprint's first rows, and of its last ones, are looked for. One that is found is a proof."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a database is in its WAL.

    Args:
        history: names the cluster and its timeline.
        inserted, flushed: positions in the WAL, in bytes.
        seq: the last one given out to a message.
    """

    history: str
    inserted: int
    flushed: int
    seq: int


@dataclass(slots=True)
class Footprint:
    """What was delivered after the snapshot `since`, taken at the time `at`, and before the next footprint's.

    Args:
        position: of the WAL, once the snapshot had been taken; None where the database does not tell.
        seqs, keys: of the rows; a key is a hash of the message's id.
    """

    at: float
    since: str
    position: Position | None
    seqs: array[int] = field(default_factory=lambda: array("q"))
    keys: array[int] = field(default_factory=lambda: array("q"))

    @property
    def witnesses(self) -> list[tuple[int, int]]:
        """Some of the rows, as (seq, key)."""
        rows = list(zip(self.seqs[:WITNESSES], self.keys[:WITNESSES], strict=True))
        return rows + list(zip(self.seqs[WITNESSES:][-WITNESSES:], self.keys[WITNESSES:][-WITNESSES:], strict=True))


class Resumption(NamedTuple):
    """Where to go on: after the snapshot `since`, without the rows whose keys are `delivered`."""

    since: str
    delivered: frozenset[int]


class Lost(Exception):
    """No footprint can be proved; the message says why."""


class Trail:
    """The footprints of one feed: `begin`, then `leave` and `remember`; `resume` after each lost connection.

    Args:
        seconds: how far back. An asynchronous standby that lags by more when it is promoted leaves nothing to go on from.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._recent: deque[Footprint] = deque()
        self._oldest: Footprint | None = None
        """Of those that were forgotten, the newest with rows."""
        self._flushed = 0
        self._rows = 0
        self._life = ""

    def is_due(self, now: float) -> bool:
        """Whether it is time for a footprint."""
        return not self._recent or self._recent[-1].at <= now - FOOTPRINT_SECONDS

    def leave(self, now: float, since: str, position: Position | None) -> None:
        """Leave a footprint: `position` must have been asked for after the snapshot `since` was taken."""
        if position is not None:
            self._flushed = max(self._flushed, position.flushed)
        self._recent.append(Footprint(now, since, position))
        while len(self._recent) > 1 and (self._is_out_of_time(now) or self._rows > MOST_ROWS):
            self._forget()

    def remember(self, seqs: list[int], keys: list[int]) -> None:
        """These rows are being delivered."""
        self._recent[-1].seqs.extend(seqs)
        self._recent[-1].keys.extend(keys)
        self._rows += len(seqs)

    async def begin(self, connection: Connection, now: float, since: str, seconds: float) -> None:
        """Forget everything, and begin with this snapshot. The WAL is flushed up to it, so that the first footprint is good
        at once, and no early restart of the database is taken for another history."""
        self._recent.clear()
        self._oldest = None
        self._flushed = self._rows = 0
        self._life = await connection.fetchval(query("server_life"), timeout=seconds)
        self.leave(now, since, await position(connection, seconds))
        with suppress(*UNKNOWN):
            await connection.execute(query("flush_wal"), timeout=seconds)
        flushed = await position(connection, seconds)
        if flushed is not None:
            self._flushed = flushed.flushed

    async def resume(self, connection: Connection, seconds: float) -> Resumption:
        """From where to go on in the database that this connection leads to.

        Args:
            seconds: what a statement may take.

        Raises:
            Lost: from nowhere.
        """
        footprints = [*([self._oldest] if self._oldest else []), *self._recent]
        life = await connection.fetchval(query("server_life"), timeout=seconds)
        newest = (
            len(footprints) - 1 if life == self._life else await self._newest_proved(connection, footprints, seconds)
        )
        if newest < 0:
            raise Lost("another history: no message delivered lately is in it" if self._rows else "another history")
        return self._go_on_from(footprints[newest:], life)

    def _go_on_from(self, footprints: list[Footprint], life: str) -> Resumption:
        """The first of these is good in this life. The snapshots of the others may not be, but their rows were delivered."""
        first = footprints[0]
        for footprint in footprints[1:]:
            first.seqs.extend(footprint.seqs)
            first.keys.extend(footprint.keys)
        self._recent, self._oldest = deque([first]), None
        self._rows = len(first.seqs)
        if life != self._life:
            self._life, self._flushed = life, 0  # another timeline's WAL says nothing of this one
        return Resumption(first.since, frozenset(first.keys))

    async def _newest_proved(self, connection: Connection, footprints: list[Footprint], seconds: float) -> int:
        """The newest footprint that a row or the WAL proves, or -1."""
        witnesses = [(place, *row, f.since) for place, f in enumerate(footprints) for row in f.witnesses]
        found = await connection.fetch(
            query("find_witnesses"), *([witness[i] for witness in witnesses] for i in range(4)), timeout=seconds
        )
        newest = max((row["footprint"] for row in found if row["proves"]), default=-1)
        now = await position(connection, seconds)
        reached = max((seq for _, seq, _, _ in witnesses), default=0)
        if now is not None and now.seq >= reached and all(row["same"] for row in found):
            newest = max(newest, self._proved_by_wal(footprints, now))
        return newest

    def _proved_by_wal(self, footprints: list[Footprint], now: Position) -> int:
        """The newest footprint that the WAL proves, or -1."""
        if now.inserted < self._flushed:
            return -1
        proved = [
            place
            for place, footprint in enumerate(footprints)
            if footprint.position is not None
            and footprint.position.history == now.history
            and footprint.position.inserted <= self._flushed
        ]
        return max(proved, default=-1)

    def _is_out_of_time(self, now: float) -> bool:
        """Whether the oldest may be forgotten: the next one is old enough, and as good."""
        following = self._recent[1]
        flushed = following.position is None or following.position.inserted <= self._flushed
        return following.at < now - self._seconds and flushed

    def _forget(self) -> None:
        footprint = self._recent.popleft()
        self._rows -= len(footprint.seqs)
        if footprint.seqs:
            self._oldest = footprint


async def position(connection: Connection, seconds: float) -> Position | None:
    """Where the database is in its WAL; None where it does not tell: not all that is like PostgreSQL has these functions."""
    try:
        row = await connection.fetchrow(query("wal_position"), timeout=seconds)
    except UNKNOWN:
        return None
    assert row is not None
    return Position(row["history"], row["inserted"], row["flushed"], row["seq"])
