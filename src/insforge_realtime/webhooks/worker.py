"""The worker: keeps as many webhooks in flight as it may, and records their outcomes.

    woken by the feed, by an answer, by the clock
        → record the results that have arrived, in one statement
        → claim as many due deliveries as there are free slots, in one statement
        → send each in its own task

One connection, one loop: what arrives during a round is the next round's batch, so under load the batches grow by
themselves. While the database is away requests in flight finish, their results wait here, and are written when it is back,
or another server sends again when the lease is over: a receiver may get a message twice, but never not at all.

What this server cannot send at the moment (it lacks descriptors) it gives back; what it may not send it leaves to servers
that may (pg/deliveries.py knows whether there are any).

Shutting down: `stop` claims nothing more, `ended` waits for what is in flight (each of which has its time-out), and
when `run` is cancelled, the last results are written and the rest is given back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import structlog

from insforge_realtime import tasks
from insforge_realtime.pg.database import LINK_ERRORS, keep
from insforge_realtime.pg.deliveries import Claim, DeliveryQueue, Result, State
from insforge_realtime.webhooks.hosts import Hosts
from insforge_realtime.webhooks.request import Outcome, unreachable
from insforge_realtime.webhooks.sender import Sender

if TYPE_CHECKING:
    from insforge_realtime.pg.database import Connection

LOOK_SECONDS = 5.0
"""How often to look without being woken: for rows left by killed servers, and by operators' commands."""
GATHER_SECONDS = 0.003
"""While answers stream in, a pause this long lets a few more of them into one statement."""
BATCH = 500
LAST_WORDS_SECONDS = 3.0
REMIND_SECONDS = 60.0
"""How often the log repeats that this server cannot send."""

log = structlog.get_logger("insforge_realtime.webhooks")


class Webhooks:
    """Sends the webhooks of this server. Must be made inside a running event loop.

    Args:
        queue: where they wait.
        sender: sends one.
        hosts: how many each host may have.
        concurrency: how many may be in flight in all.
        delays: the seconds before each retry.
    """

    def __init__(
        self, queue: DeliveryQueue, sender: Sender, hosts: Hosts, *, concurrency: int, delays: Sequence[float]
    ) -> None:
        self.hosts = hosts
        self._queue = queue
        self._sender = sender
        self._concurrency = concurrency
        self._delays = delays
        self._flying: dict[asyncio.Task[None], Claim] = {}
        self._results: list[Result] = []
        self._postponed: list[Claim] = []
        self._refused: list[tuple[Claim, Result]] = []
        self._told: dict[str, float] = {}
        self._alarm = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = False
        self._now = asyncio.get_running_loop().time

    def wake(self) -> None:
        """Look now: there may be something to send."""
        self._alarm.set()

    def stop(self, *, at_once: bool = False) -> None:
        """Start nothing more; with `at_once`, wait for nothing either."""
        self._stopping = True
        if at_once:
            self._idle.set()

    async def ended(self) -> None:
        """Wait, after `stop`, until nothing is in flight any more. That takes no longer than the time-out of a request."""
        await self._idle.wait()

    async def run(self) -> None:
        """Send until cancelled; then record what is known, and give the rest back."""
        async with self._sender:
            try:
                await keep("webhooks", self._serve)
            finally:
                self._stopping = True
                await self._last_words()

    async def _serve(self) -> None:
        async with self._queue.connection() as connection:
            connection.add_termination_listener(lambda _: self.wake())
            while not connection.is_closed():
                self._alarm.clear()
                await self._write(connection)
                pause = await self._claim(connection)
                await self._rest(pause)
        raise ConnectionError("the server closed the connection")

    async def _rest(self, seconds: float) -> None:
        """Until the alarm, or for so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._alarm.wait()
        except TimeoutError:
            return
        if self._results:
            await asyncio.sleep(GATHER_SECONDS)

    # Claims.

    async def _claim(self, connection: Connection) -> float:
        """Claim what is due and start sending it; return in how many seconds to look again."""
        free = self._concurrency - len(self._flying)
        if self._stopping or free <= 0:
            return LOOK_SECONDS  # an answer is the alarm
        asked = self._now()
        limits = self.hosts.limits()
        claims, due = await self._queue.claim(connection, free, self.hosts.per_host, limits)
        if self._stopping and claims:
            await self._queue.release(connection, claims)
            return LOOK_SECONDS
        for claim in claims:
            self._begin(claim, asked + self._queue.lease)
        if claims:
            return 0.0  # there may be more
        return min(time for time in (due, self.hosts.next_probe(), LOOK_SECONDS) if time is not None)

    def _begin(self, claim: Claim, until: float) -> None:
        self.hosts.begin(claim.host)
        task = tasks.start(self._deliver(claim, until), f"webhook {claim.id}")
        self._flying[task] = claim
        self._idle.clear()
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return  # it stays, to be given back
        del self._flying[task]
        if not self._flying:
            self._idle.set()
        self._alarm.set()

    async def _deliver(self, claim: Claim, until: float) -> None:
        began = self._now()
        outcome: Outcome | None = None
        try:
            outcome = await self._sender.send(claim, until)
        except Exception:
            log.exception("webhook could not be sent", message=claim.message_id, host=claim.host)
            outcome = unreachable("internal error; the server's log has the detail")
        finally:
            self.hosts.end(claim.host, outcome.host_failed if outcome else None)
        if outcome.verdict == "postponed":
            self._postpone(claim, outcome)
            return
        result = self._result(claim, outcome, began)
        if outcome.verdict == "refused":
            self._refused.append((claim, result))
            return
        self._results.append(result)
        _tell(claim, result)

    def _postpone(self, claim: Claim, outcome: Outcome) -> None:
        """Give a delivery back without an attempt: any server that can send it may, and this one after a while."""
        self._postponed.append(claim)
        self.hosts.rest(claim.host)
        if self._is_news("postponed"):
            log.error("webhooks wait, since this server lacks resources", host=claim.host, error=outcome.error)

    def _is_news(self, what: str) -> bool:
        """Return whether this was not logged in the last minute. If so, it counts as logged now."""
        now = self._now()
        if now - self._told.get(what, -REMIND_SECONDS) < REMIND_SECONDS:
            return False
        self._told[what] = now
        return True

    def _result(self, claim: Claim, outcome: Outcome, began: float) -> Result:
        state: State = "delivered" if outcome.verdict == "delivered" else "failed"
        pause = 0.0
        if outcome.verdict in ("retry", "refused") and claim.attempts < len(self._delays):
            state, pause = "pending", max(self._delays[claim.attempts], outcome.retry_after)
        return Result(
            claim.id, claim.lease, state, pause, outcome.status_code, outcome.error, outcome.response,
            began, self._now() - began,
        )  # fmt: skip

    # Results.

    async def _write(self, connection: Connection) -> None:
        """Record all results, and give back what was postponed. They are forgotten only once that is committed."""
        while self._results:
            batch = self._results[:BATCH]
            written = await self._queue.finish(connection, batch, self._now())
            del self._results[: len(batch)]
            if written < len(batch):
                log.warning("webhook results came after their lease", results=len(batch) - written)
        if self._postponed:
            postponed = tuple(self._postponed)
            await self._queue.release(connection, postponed)
            del self._postponed[: len(postponed)]
        if self._refused:
            await self._decline(connection, self._refused[:BATCH])

    async def _decline(self, connection: Connection, refused: Sequence[tuple[Claim, Result]]) -> None:
        """Leave to other servers what this one may not send; if none of them may, it was an attempt."""
        left = await self._queue.decline(connection, refused)
        del self._refused[: len(refused)]
        for claim, result in refused:
            if left.get(claim.id):
                self.hosts.rest(claim.host)
                if self._is_news("left to others"):
                    log.info("webhooks left to other servers", host=claim.host, error=result.error)
            elif claim.id in left:
                _tell(claim, result)

    async def _last_words(self) -> None:
        """Write what is left on the way out, once, on a new connection: the old one may have been cut in mid-statement."""
        for task in self._flying:
            task.cancel()
        await asyncio.gather(*self._flying, return_exceptions=True)
        rest = [*self._flying.values(), *self._postponed, *(claim for claim, _ in self._refused)]
        self._postponed.clear()
        self._refused.clear()
        if not self._results and not rest:
            return
        try:
            async with asyncio.timeout(LAST_WORDS_SECONDS), self._queue.connection() as last:
                await self._write(last)
                if rest:
                    await self._queue.release(last, rest)
                    log.info("webhooks given back", deliveries=len(rest))
        except LINK_ERRORS:
            pass  # the leases will end


def _tell(claim: Claim, result: Result) -> None:
    """Log an attempt: never the URL, which may contain a secret, nor the payload."""
    if result.state == "delivered":
        log.debug("webhook delivered", message=claim.message_id, host=claim.host, status=result.status_code)
        return
    say, event = (log.warning, "webhook failed") if result.state == "failed" else (log.info, "webhook to be retried")
    say(event, message=claim.message_id, host=claim.host, attempt=claim.attempts + 1, error=result.error)
