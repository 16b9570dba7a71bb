"""One page of what the feed delivers: how it is asked for, and what becomes of the rows in it that nobody can be given.

No row stops the feed. What cannot be made into an event is marked in the database, logged and passed over; what is larger
than any client may leave unread goes to nobody. `realtime.read_page` (sql/functions.sql) finds both. A page that takes
longer than its time limit is given more and more of it, and meanwhile the feed is not live.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import asyncpg
import structlog

from insforge_realtime.pg.database import LOST, describe
from insforge_realtime.pg.queries import query, written_out

if TYPE_CHECKING:
    from insforge_realtime.metrics import Metrics
    from insforge_realtime.pg.database import Connection

PAGE_ROWS = 4000
PAGE_BYTES = 1_000_000
LARGEST = 2**30
"""No text of PostgreSQL is larger."""
LOOK_SECONDS, LONGEST_LOOK_SECONDS = 10.0, 600.0
"""What PostgreSQL gives a look, at first and at most. Looks are index scans of one page; only the first page of a window of
millions of rows, after an outage, takes seconds."""
GRACE_SECONDS = 5.0
"""Where PostgreSQL does not end a statement in its time and so much more, the link is dead."""
STATEMENT_SECONDS = LOOK_SECONDS + GRACE_SECONDS
LONGEST_REASON = 1000

log = structlog.get_logger("insforge_realtime.pg.feed")

Reason = Literal["not connected yet", "database unreachable", "database refuses", "not migrated", "looks fail"]
"""Why the feed is not live, in words that anybody may read. PostgreSQL's own are in the log."""


@dataclass(slots=True)
class FeedHealth:
    """How the feed does.

    Args:
        looked_at: when all that was committed had last been delivered, by the event loop's clock; at first, the feed's
            beginning.
        state: live once a look of this connection has been delivered whole.
        reason: why it is not live.
        paced: whether it never sleeps, since transactions may be prepared here.
        last_gap: why nobody could tell what was missed, the last time.
    """

    looked_at: float
    state: Literal["connecting", "live", "down"] = "connecting"
    reason: Reason | None = "not connected yet"
    paced: bool = False
    last_gap: str | None = None


class Window(NamedTuple):
    """The rows that became visible after `since` and by `until`, delivered up to row `seq`. A window whose end is not
    known yet has not been looked at."""

    since: str
    until: str | None = None
    seq: int = 0


class Page(NamedTuple):
    """Rows to deliver, in order, as columns; and where to go on.

    Args:
        rest: the window without this page; a new one, once it was the last.
        webhooks: whether any row has some.
        keys: a hash of each message's id.
        events: finished events.
    """

    rest: Window
    webhooks: bool
    seqs: list[int]
    keys: list[int]
    channels: list[str]
    events: list[str]


class PageReader:
    """Reads the pages of one feed.

    Args:
        health: the feed's.
        metrics: where rows that are passed over are counted.
        largest: the bytes of an event that no client gets if it is larger; 0 for no limit.
    """

    def __init__(self, health: FeedHealth, metrics: Metrics, largest: int) -> None:
        self._health = health
        self._metrics = metrics
        self._largest = largest or LARGEST
        self._limit = LOOK_SECONDS

    async def prepare(self, connection: Connection) -> None:
        """Once for each connection."""
        await connection.execute(query("plan_looks_by_index"), timeout=STATEMENT_SECONDS)
        await self._set_limit(connection, LOOK_SECONDS)

    async def read(self, connection: Connection, window: Window) -> Page:
        """The next page of a window."""
        row = await self._fetch(connection, window)
        if self._limit > LOOK_SECONDS:
            await self._set_limit(connection, LOOK_SECONDS)
        for message in row["oversized"]:
            self._metrics.messages_oversized += 1
            log.error("message is too large for any client; nobody gets it", message=message, limit=self._largest)
        if row["failed"]:
            await self._mark(connection, row["last_seq"], row["failed_id"], row["failed"])
        more = Window(window.since, row["snapshot"], row["last_seq"]) if row["more"] else Window(row["snapshot"])
        return Page(more, row["webhooks"], row["seqs"], row["keys"], row["channels"], row["events"])

    async def _fetch(self, connection: Connection, window: Window) -> asyncpg.Record:
        """However long that takes: what is slow is the whole window, not the link, which would not say so."""
        while True:
            try:
                row = await connection.fetchrow(
                    query("look"), window.since, window.until, window.seq, PAGE_ROWS, PAGE_BYTES, self._largest,
                    timeout=self._limit + GRACE_SECONDS,
                )  # fmt: skip
            except asyncpg.QueryCanceledError:
                self._health.state, self._health.reason = "down", "looks fail"
                await self._set_limit(connection, min(self._limit * 2, LONGEST_LOOK_SECONDS))
                log.warning("a look takes long", seconds=self._limit)
            else:
                assert row is not None
                return row

    async def _set_limit(self, connection: Connection, seconds: float) -> None:
        self._limit = seconds
        statement = written_out("limit_statements", str(round(seconds * 1000)))
        await connection.execute(statement, timeout=STATEMENT_SECONDS)

    async def _mark(self, connection: Connection, seq: int, message_id: str, reason: str) -> None:
        """So that no other feed, nor this one after a restart, tries the row again. What fails here stops nothing either."""
        self._metrics.messages_undeliverable += 1
        log.error("message is undeliverable and is passed over", message=message_id, error=reason)
        try:
            await connection.execute(
                query("mark_undeliverable"), seq, reason[:LONGEST_REASON], timeout=STATEMENT_SECONDS
            )
        except asyncpg.PostgresError as error:
            log.error("message cannot be marked as undeliverable", message=message_id, error=describe(error))


def reason_for(error: BaseException) -> Reason:
    """Return what health tells of an error."""
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError | asyncpg.InvalidCatalogNameError):
        return "database refuses"
    if isinstance(error, asyncpg.SyntaxOrAccessError | asyncpg.InvalidSchemaNameError):
        return "not migrated"
    if isinstance(error, LOST) and not isinstance(error, asyncpg.QueryCanceledError):
        return "database unreachable"
    return "looks fail"
