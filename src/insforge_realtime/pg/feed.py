"""The feed: every committed row of `realtime.messages`, once, in order, soon. Nothing else reads messages.

**What is new.** PostgreSQL answers exactly: with P the snapshot of the previous look, a row is new if its transaction is not
visible in P and is visible now. One statement returns the new rows and the snapshot E they were seen in; E is the next P.
However long a transaction runs and however late it commits, its rows appear in one look and in no other.
A window (P, E] with many rows is read in pages by `seq`, the later pages restricted to what is visible in E. Where a
connection breaks between two pages, the next one goes on with the same window.

**After a reconnect.** P is data, so it survives the connection, and what was committed meanwhile is new, as long as the
history is the same. After a crash, a failover or a restore it may be another one, in which P means something else. So after
every reconnect the feed goes on from the newest snapshot that is proved to be good in today's history, and leaves out what
it delivered since (trail.py). Where there is none it begins anew, and `lost_track` tells everybody: no gap is silent.

**The doorbell.** Two ways to learn of new rows, each good where the other is bad. *Looking* every few milliseconds costs
0.1 ms a look, and writers nothing: right while much comes. *Being rung* costs a look for each ring, but the writer a NOTIFY,
which takes a database-wide lock until after the WAL flush, so that commits that ring never flush together: right while
little comes. A feed changes between them by what it sees, in this order:

    AWAKE    look every 2 ms, or every 5 or 10 while many rows come
      │ in a watch of 50 ms, fewer than every fourth look found something
    TICKET   nextval('asleep'), again until it is greater than `rung`
      │        from here on, a writer whose AFTER INSERT trigger runs sees asleep > rung, and rings
    DROWSY   a barrier, a transaction id of our own: look at each ring, and now and then, until a snapshot's xmin is greater
      │        now every writer whose trigger ran before the ticket has ended, and was seen
    ASLEEP   look at each ring, each nudge, and at the fallback's time
      │ rings come thick (25 in 0.1 s), or there were 64 to 512 of them (perhaps they come slowly only because writers
      │ must ring: see what they do when they need not), or somebody called
    CALL     NOTIFY 'awake k', k being the highest ring heard; then, in a transaction of its own, `rung` is set to k: AWAKE

(A snapshot's xmax is not a barrier: transactions at and above it can be in progress.) `rung` stops writers from ringing for
all tickets ≤ k, also other feeds'. So it is set only after all were told: a feed that hears 'awake k' with a ticket ≤ k is
called. A feed that is awake and hears a ring (another one sleeps) calls, too.

**Two-phase commit.** A transaction that has notified cannot be prepared, and its application cannot know beforehand whether
somebody sleeps. Where transactions may be prepared (max_prepared_transactions > 0, which is not PostgreSQL's default, and
realtime.two_phase is not off) writers never ring and the feed never sleeps: PACED, it looks every 2 to 20 ms.

A ring carries no data, and anyone may NOTIFY. Forged rings and calls make a feed look, and keep it awake; a forged number is
cut to `asleep`. The fallback also is the health probe of the connection, and finds out whether `rung` has reached our ticket
without a call (our ear was deaf, or somebody has set it by hand).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from itertools import compress
from typing import TYPE_CHECKING

import structlog

from insforge_realtime.metrics import Metrics
from insforge_realtime.model import Message
from insforge_realtime.pg.database import LINK_ERRORS, keep
from insforge_realtime.pg.pages import STATEMENT_SECONDS, FeedHealth, Page, PageReader, Window, reason_for
from insforge_realtime.pg.queries import query
from insforge_realtime.pg.trail import Lost, Trail, position

if TYPE_CHECKING:
    from insforge_realtime.pg.database import Connection, Database

PAUSES = ((32, 0.01), (8, 0.005), (0, 0.002))
"""Rows that a look found, and the seconds until the next. A look costs more than a row: after many it may wait for more."""
WATCH_SECONDS, LOOKS_A_FIND = 0.05, 4
"""Where fewer than one look in so many finds something in so long, rings are cheaper."""
DROWSY_SECONDS, DROWSIEST_SECONDS = 0.003, 0.1
"""How often to look while waiting at the barrier: less and less often, since one old transaction may close it for hours."""
THICK_RINGS, THICK_SECONDS = 25, 0.1
"""Where so many rings come in so long, looking is cheaper."""
RINGS_ASLEEP, MOST_RINGS_ASLEEP = 64, 512
"""After so many rings, have a look at what writers do when they need not ring; twice as many after each look in vain."""
LOCK_SECONDS = 5.0
PACED_SECONDS = 0.02
"""The longest pause where nobody may ring: half of it is what a message waits for on average, and a look costs 0.1 ms."""
CALL = "awake "

log = structlog.get_logger("insforge_realtime.pg.feed")


class Feed:
    """Delivers every row that is committed from its first connection on.

    Args:
        database: whose messages. The connection goes around a pooler, since it must keep its session (LISTEN).
        deliver: called with each page of rows, in order; the next look waits for it. It must not raise.
        fallback: seconds between looks while asleep; 0 switches them off, for tests of the doorbell.
        webhooks: called when a page has messages with webhooks in it, which wait in their own queue.
        lost_track: called when it cannot be told what was missed, with the reason, before delivery goes on from now.
        trail: seconds of the past that a failover may take back without anybody losing track.
        largest: the bytes of an event that no client gets if it is larger; 0 for no limit.
        metrics: where looks, rings and messages are counted.
    """

    def __init__(
        self,
        database: Database,
        deliver: Callable[[list[Message]], Awaitable[None]],
        *,
        fallback: float = 2.0,
        webhooks: Callable[[], None] = lambda: None,
        lost_track: Callable[[str], None] = lambda _: None,
        trail: float = 60.0,
        largest: int = 0,
        metrics: Metrics | None = None,
    ) -> None:
        self.metrics = metrics or Metrics()
        self._now = asyncio.get_running_loop().time
        self.health = FeedHealth(self._now())
        self.ready = asyncio.Event()
        self.asleep = False
        self._database = database.direct
        self._deliver = deliver
        self._webhooks = webhooks
        self._lost_track = lost_track
        self._reader = PageReader(self.health, self.metrics, largest)
        self._fallback = fallback or None
        self._window: Window | None = None
        self._trail = Trail(trail)
        self._already: frozenset[int] = frozenset()
        self._alarm = asyncio.Event()
        self._ring = 0
        self._rings: deque[float] = deque(maxlen=THICK_RINGS)
        self._rings_asleep = 0
        """How many there were since the ticket was taken."""
        self._patience = RINGS_ASLEEP
        self._called = 0
        self._ticket = 0
        """The last one taken; 0 before the first."""

    @property
    def lag_seconds(self) -> float:
        """Return how long ago all that is committed was last known to be delivered; 0 while the feed is live and on time."""
        asleep = (self._fallback or 0.0) if self.health.state == "live" else 0.0
        return max(0.0, self._now() - self.health.looked_at - asleep)

    def nudge(self) -> None:
        """Look now: a publish was committed on this node, which needs no ring."""
        self._alarm.set()

    async def run(self) -> None:
        """Stay connected and deliver until cancelled; then see to it that nobody rings for us."""
        try:
            await keep("feed", self._serve)
        finally:
            if self._ticket:
                await self._last_call()

    async def _last_call(self) -> None:
        """Call once more on the way out, on a connection of its own: the old one may have been cut in mid-statement. Without
        it, writers would go on ringing, at the price of a NOTIFY for each commit, until another feed hears them."""
        self._ring = self._ticket
        try:
            async with asyncio.timeout(3), self._connected() as last:
                await self._call(last)
        except LINK_ERRORS:
            pass

    def _connected(self) -> AbstractAsyncContextManager[Connection]:
        """Return a connection on which no name means what somebody else has made of it, and no lock is waited for long."""
        return self._database.connected("feed", lock_timeout=LOCK_SECONDS, search_path="pg_catalog, pg_temp")

    async def _serve(self) -> None:
        try:
            async with self._connected() as connection:
                await self._prepare(connection)
                while self.health.paced:
                    await self._pace(connection)
                while True:
                    await self._awake(connection)
                    await self._take_ticket(connection)
                    if await self._drowse(connection):
                        self.asleep = True
                        self.metrics.feed_naps += 1
                        await self._sleep(connection)
                        self.asleep = False
        except BaseException as error:
            self._mark_down(error)
            raise

    def _mark_down(self, error: BaseException) -> None:
        self.asleep = False
        if self.health.state == "live" and not isinstance(error, asyncio.CancelledError):
            log.warning("feed is down", error=type(error).__name__)
        self.health.state, self.health.reason = "down", reason_for(error)

    def _mark_live(self) -> None:
        if self.health.state != "live":
            self.health.state, self.health.reason = "live", None
            log.info("feed is live")
            self.ready.set()

    async def _prepare(self, connection: Connection) -> None:
        await self._reader.prepare(connection)
        connection.add_termination_listener(lambda _: self._alarm.set())
        await connection.add_listener("realtime", self._heard)
        if self._window is None:
            healed = await connection.execute(query("heal_future_xids"))
            if healed != "UPDATE 0":
                log.warning("rows from another cluster's future were marked as delivered", result=healed)
            await self._begin(connection)
        else:
            await self._resume(connection)
        self.health.paced = await connection.fetchval(query("is_two_phase"), timeout=STATEMENT_SECONDS)

    async def _begin(self, connection: Connection) -> None:
        """Deliver what is committed from now on."""
        now = await connection.fetchval(query("now_snapshot"), timeout=STATEMENT_SECONDS)
        await self._trail.begin(connection, self._now(), now, STATEMENT_SECONDS)
        self._window, self._already = Window(now), frozenset()

    async def _resume(self, connection: Connection) -> None:
        """Go on where the last connection ended: something was missed."""
        try:
            since, self._already = await self._trail.resume(connection, STATEMENT_SECONDS)
            self._window = Window(since)
        except Lost as error:
            self.metrics.feed_gaps += 1
            self.health.last_gap = str(error)
            log.error(
                "cannot tell what was missed; resuming from now, and closing all connections so that clients reload",
                reason=str(error),
            )
            try:
                await self._begin(connection)
            finally:  # also where the link breaks again: the gap would be forgotten by the next session
                self._lost_track(str(error))

    # The states.

    async def _awake(self, connection: Connection) -> None:
        """Look again and again, as long as much comes."""
        while True:
            looks = finds = 0
            watched = self._now() + WATCH_SECONDS
            while self._now() < watched:
                found = await self._look_up(connection)
                looks, finds = looks + 1, finds + bool(found)
                # Also after a find, and whoever rings or nudges: what comes one at a time is read a few at a time.
                await asyncio.sleep(_pause_after(found))
            if looks > finds * LOOKS_A_FIND:
                self._patience = min(self._patience * 2, MOST_RINGS_ASLEEP)
                return
            self._patience = RINGS_ASLEEP

    async def _pace(self, connection: Connection) -> None:
        """Look again and again until something comes: soon at first, then less and less often."""
        pause = PAUSES[-1][1]
        while not (found := await self._look_up(connection)):
            await self._wait(pause)
            pause = min(pause * 1.2, PACED_SECONDS)
        await asyncio.sleep(_pause_after(found))

    async def _take_ticket(self, connection: Connection) -> None:
        self._called = 0  # whoever calls a ticket that is not taken yet has made it up
        self._rings.clear()
        self._rings_asleep = 0
        while True:
            taken = await connection.fetchrow(query("take_ticket"), timeout=STATEMENT_SECONDS)
            assert taken is not None
            self._ticket = int(taken["ticket"])
            if self._ticket > taken["rung"]:
                return

    async def _drowse(self, connection: Connection) -> bool:
        """Wait at the barrier. Return False when there is reason to be awake before it opens."""
        barrier = await connection.fetchval(query("barrier"), timeout=STATEMENT_SECONDS)
        pause = DROWSY_SECONDS
        while True:
            self._alarm.clear()
            await self._look(connection)
            assert self._window is not None
            if _xmin(self._window.since) > barrier:
                return True
            if self._is_roused():
                return False
            await self._wait(pause)
            pause = min(pause * 1.2, DROWSIEST_SECONDS)

    async def _sleep(self, connection: Connection) -> None:
        """Look when somebody rings, and now and then all the same."""
        while not self._is_roused():
            await self._wait(self._fallback)
            rung = self._alarm.is_set()
            self._alarm.clear()
            if await self._look(connection) and not rung:
                return  # somebody does not ring
            if not rung and await connection.fetchval(query("is_rung"), self._ticket, timeout=STATEMENT_SECONDS):
                return  # somebody called, and we were not told

    def _is_roused(self) -> bool:
        if self._called >= self._ticket:
            self._ring = 0  # all that heard that ring have been called
            return True
        thick = len(self._rings) == THICK_RINGS and self._now() - self._rings[0] < THICK_SECONDS
        return thick or self._rings_asleep >= self._patience

    async def _wait(self, seconds: float | None) -> None:
        """Wait for the alarm, or for this long."""
        if self._alarm.is_set():
            return
        try:
            async with asyncio.timeout(seconds):
                await self._alarm.wait()
        except TimeoutError:
            pass

    # Rings.

    def _heard(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        text = str(payload)
        number = text.removeprefix(CALL)
        if not (number.isascii() and number.isdigit() and len(number) < 19):
            number = "0"
        if text.startswith(CALL):
            self._called = max(self._called, int(number))
        else:
            self._ring = max(self._ring, int(number))
            self._rings.append(self._now())
            self._rings_asleep += 1
            self.metrics.feed_rings += 1
        self._alarm.set()

    async def _call(self, connection: Connection) -> None:
        """Wake everybody if somebody rang, and once they know it, tell writers that they need not ring."""
        if self._ring:
            ring, self._ring = self._ring, 0
            number = await connection.fetchval(query("call"), ring, timeout=STATEMENT_SECONDS)
            if number is not None:
                await connection.execute(query("answer_ring"), number, timeout=STATEMENT_SECONDS)

    # Looks.

    async def _look_up(self, connection: Connection) -> int:
        """Look as a feed that is awake, and needs no rings. Return how many rows were found."""
        await self._call(connection)
        self._alarm.clear()
        return await self._look(connection)

    async def _look(self, connection: Connection) -> int:
        """Deliver all that is new, page by page. Return how many rows that was."""
        rows = 0
        while True:
            found, complete = await self._page(connection)
            rows += found
            if complete:
                break
        if self._trail.is_due(now := self._now()):
            assert self._window is not None
            self._trail.leave(now, self._window.since, await position(connection, STATEMENT_SECONDS))
        self.health.looked_at = self._now()
        self.metrics.feed_looks += 1
        self._mark_live()
        return rows

    async def _page(self, connection: Connection) -> tuple[int, bool]:
        """Deliver one page. Return how many rows it had, and whether it was the window's last."""
        assert self._window is not None
        began = self._now()
        page = await self._reader.read(connection, self._window)
        self.metrics.pages.observe(len(page.seqs), self._now() - began)
        if page.webhooks:
            self._webhooks()
        if page.seqs:
            await self._hand_over(page)
        self._window = page.rest
        complete = page.rest.until is None
        if complete:
            self._already = frozenset()
        return len(page.seqs), complete

    async def _hand_over(self, page: Page) -> None:
        """Deliver what was not delivered before."""
        messages = list(map(Message, page.seqs, page.channels, page.events))
        if self._already:
            fresh = [key not in self._already for key in page.keys]
            self._trail.remember(list(compress(page.seqs, fresh)), list(compress(page.keys, fresh)))
            messages = list(compress(messages, fresh))
        else:
            self._trail.remember(page.seqs, page.keys)
        self.metrics.messages_read += len(messages)
        await self._deliver(messages)


def _pause_after(found: int) -> float:
    return next(seconds for rows, seconds in PAUSES if found >= rows)


def _xmin(snapshot: str) -> int:
    return int(snapshot.split(":", 1)[0])
