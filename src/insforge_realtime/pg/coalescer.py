"""Many callers share a few connections: requests are gathered into batches, and nobody's wait at others' expense.

A pool hands a connection to each caller, so a thousand callers make a thousand round trips. Here it is the other way
round: a free connection takes all requests that are waiting (up to `BATCH`) and asks for them at once. Under load the
batches grow by themselves, and nobody waits for a timer.

Time limits. A batch gets `BATCH_SECONDS`. When one request in it is slow, PostgreSQL cancels the batch as a whole, and each
of its requests is asked again by itself: first for `SLOW_SECONDS`, which shows who was slow; then for `BATCH_SECONDS`; and
only those that fail then as well are given the full limit. After a cancelled batch the next ones are smaller.

Fairness. What always holds, where there are two connections or more:

    owners take turns in every queue (turns.py): a request waits for at most one of each other owner's
    what is asked apart, by itself, leaves one connection to the batches; except that one at a time is asked there, for
    `BATCH_SECONDS` at most, while nothing else waits and slow ones have all the others
    an owner who was slow is asked apart from then on, as is a kind of channel that was slow for two, and so are those of
    their requests that wait already: a request that is not suspected waits for two slow ones to be found out, not for all
    one owner has at most so many requests waiting; what is more is refused
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import asyncpg
import structlog

from insforge_realtime.errors import InternalError, RateLimited, RequestError, Unavailable
from insforge_realtime.metrics import RoundTrips
from insforge_realtime.model import Owner
from insforge_realtime.pg.database import LOST, describe, keep
from insforge_realtime.pg.queries import written_out
from insforge_realtime.pg.turns import Suspects, Turns

if TYPE_CHECKING:
    from insforge_realtime.pg.database import Connection, Database

BATCH = 200
BATCH_SECONDS = 0.5
GRACE_SECONDS = 3.0
"""How much longer than PostgreSQL's own limit we wait for its answer before we call the connection dead."""
SLOW_SECONDS = BATCH_SECONDS / 4
"""An owner whose question takes this long alone has no place in a batch."""
SECONDS = {"batch": BATCH_SECONDS, "probe": SLOW_SECONDS, "alone": BATCH_SECONDS}
"""How long each may take; a slow one as long as is configured."""
NOBODY = Owner("", 0)
"""The owner of the system's own questions; not limited."""

log = structlog.get_logger("insforge_realtime.pg")

Mode = Literal["batch", "probe", "alone", "slow"]
"""How something is asked: with others; or by itself, to find out whether it was the slow one, with the limit of a batch, or
with the full limit."""
Req = TypeVar("Req")
Res = TypeVar("Res")
Ask = Callable[["Connection", Sequence[Req]], Awaitable[Sequence[Res | RequestError]]]
"""Sends one batch and returns as many answers."""


@dataclass(slots=True, eq=False)
class _Pending(Generic[Req, Res]):
    request: Req
    owner: str
    kind: str
    answer: asyncio.Future[Res]


class Coalescer(Generic[Req, Res]):
    """Many callers, few connections, one round trip for all that wait.

    Args:
        name: names the connections.
        database: where they lead.
        ask: sends one batch and returns as many answers; an answer may be an exception, raised in its caller.
        links: how many connections.
        limit: the longest one request may take, in seconds.
        most: how many requests one owner may have waiting, times the owner's `share`; 0 for no limit.
        too_long: tells a caller what took longer than the limit.
        round_trips: where batches are counted.
    """

    def __init__(
        self,
        name: str,
        database: Database,
        ask: Ask[Req, Res],
        *,
        links: int = 2,
        limit: float = 5.0,
        most: int = 0,
        too_long: str = "It took too long",
        round_trips: RoundTrips | None = None,
    ) -> None:
        self.name = name
        self.links = links
        self.live = 0
        self._database = database
        self._send = ask
        self._limit = limit
        self._most = most
        self._too_long = too_long
        self._round_trips = round_trips or RoundTrips()
        self._waiting: Turns[_Pending[Req, Res]] = Turns()
        self._spoiled: Turns[_Pending[Req, Res]] = Turns()
        """What was in a batch that was cancelled."""
        self._alone: Turns[_Pending[Req, Res]] = Turns()
        self._slow: Turns[_Pending[Req, Res]] = Turns()
        self._suspects = Suspects()
        self._pending: dict[str, int] = {}
        """How many requests each owner has in here."""
        self._size = BATCH
        """Of the next batch, at most."""
        self._running: Counter[Mode] = Counter()
        """How many connections are asked something in this way now."""
        self._batched = False
        self._slow_due = 0.0
        """When the next slow one may keep others waiting."""
        self._idle: deque[asyncio.Future[None]] = deque()

    async def submit(self, request: Req, owner: Owner = NOBODY, kind: str = "") -> Res:
        """The answer to one request.

        Args:
            owner: whose it is.
            kind: what is slow together, if it is: a kind of channel.

        Raises:
            Unavailable: at once, when no connection is up; or when it is lost before the answer.
            RateLimited: the owner has too many waiting.
            InternalError: it took longer than the limit.
        """
        if not self.live:
            raise Unavailable
        waiting = self._pending.get(owner.id, 0)
        if 0 < self._most * owner.share <= waiting:
            raise RateLimited("Too many requests are waiting; slow down")
        self._pending[owner.id] = waiting + 1
        try:
            return await self._enqueued(_Pending(request, owner.id, kind, asyncio.get_running_loop().create_future()))
        finally:
            self._forget(owner.id)

    async def run(self) -> None:
        """Keep all connections up until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self.links):
                    group.create_task(keep(f"{self.name} {number + 1}", self._serve))
        finally:
            self._fail_all()

    def _enqueued(self, pending: _Pending[Req, Res]) -> asyncio.Future[Res]:
        (self._alone if self._is_suspect(pending) else self._waiting).push(pending.owner, pending)
        self._wake()
        return pending.answer

    def _is_suspect(self, pending: _Pending[Req, Res]) -> bool:
        return self._suspects.includes(pending.owner, pending.kind, _now())

    def _forget(self, owner: str) -> None:
        self._pending[owner] -= 1
        if not self._pending[owner]:
            del self._pending[owner]

    # The connections.

    async def _serve(self) -> None:
        async with self._database.connected(self.name) as connection:
            # A connection that dies while nobody asks anything must be noticed too, or the next caller would pay for it.
            connection.add_termination_listener(lambda _: self._wake(everybody=True))
            self.live += 1
            try:
                await self._work(connection)
            finally:
                self.live -= 1
                if not self.live:
                    self._fail_all()

    async def _work(self, connection: Connection) -> None:
        limit = 0.0
        while not connection.is_closed():
            mode, batch = self._take()
            if not batch:
                await self._rest()
                continue
            seconds = min(SECONDS.get(mode, self._limit), self._limit)
            self._running[mode] += 1
            try:
                if seconds != limit and not self._database.pooled:
                    await _set_limit(connection, "limit_statements", seconds)
                    limit = seconds
                await self._answer(connection, mode, batch, seconds)
            except BaseException:
                _fail(batch)
                raise
            finally:
                self._running[mode] -= 1
                if mode != "batch":
                    self._wake()  # another one may have been waiting for this to be over
        raise ConnectionError("the server closed the connection")

    async def _answer(
        self, connection: Connection, mode: Mode, batch: list[_Pending[Req, Res]], seconds: float
    ) -> None:
        began = _now()
        try:
            requests = [pending.request for pending in batch]
            async with asyncio.timeout(seconds + GRACE_SECONDS):  # wait_for of Python 3.11 can lose a cancellation
                answers = await self._ask(connection, requests, seconds)
        except asyncpg.QueryCanceledError:
            if mode == "batch":
                self._size = max(1, len(batch) // 4)
            self._round_trips.observe(len(batch), seconds)
            self._judge(batch, seconds)
            self._ask_again(mode, batch, InternalError(self._too_long))
        except LOST:
            raise
        except Exception as error:
            # No traceback for PostgreSQL's errors: their DETAIL quotes the row.
            expected = isinstance(error, asyncpg.PostgresError)
            log.error("request to the database failed", link=self.name, error=describe(error), exc_info=not expected)
            self._ask_again("alone" if mode == "probe" else mode, batch, InternalError())
        else:
            if mode == "batch":
                self._size = min(BATCH, self._size * 2)
            took = _now() - began
            self._round_trips.observe(len(batch), took)
            self._judge(batch, took)
            for pending, answer in zip(batch, answers, strict=True):
                _settle(pending, answer)

    async def _ask(
        self, connection: Connection, requests: Sequence[Req], seconds: float
    ) -> Sequence[Res | RequestError]:
        if not self._database.pooled:
            return await self._send(connection, requests)
        # Behind a transaction pooler a session's settings would be somebody else's next.
        async with connection.transaction():
            await _set_limit(connection, "limit_statements_here", seconds)
            return await self._send(connection, requests)

    # The order.

    def _take(self) -> tuple[Mode, list[_Pending[Req, Res]]]:
        """What to ask next, and how: on each connection in turns all that wait, and one that is asked apart."""
        apart = self._next_apart()
        if self._waiting and not (apart and self._batched):
            self._batched = True
            return "batch", self._next_batch()
        self._batched = False
        if apart is None:
            return "batch", []
        if apart == "slow":
            self._slow_due = _now() + self._limit
        return apart, [{"probe": self._spoiled, "alone": self._alone, "slow": self._slow}[apart].pop()]

    def _next_apart(self) -> Mode | None:
        """Which of the three is next; None if none may, or nothing is there. A slow one is last, unless it waits long."""
        brief = self._running["probe"] + self._running["alone"]
        free = brief + self._running["slow"] < max(1, self.live - 1)
        if self._slow and free and (not (self._spoiled or self._alone or self._waiting) or _now() >= self._slow_due):
            return "slow"
        if free or (not brief and not self._waiting):
            return "probe" if self._spoiled else "alone" if self._alone else None
        return None

    def _next_batch(self) -> list[_Pending[Req, Res]]:
        batch: list[_Pending[Req, Res]] = []
        while self._waiting and len(batch) < self._size:
            batch.append(self._waiting.pop())
        return batch

    def _judge(self, batch: list[_Pending[Req, Res]], seconds: float) -> None:
        """Remember who was slow, where that can be told; what is suspected with it waits apart from now on."""
        if len(batch) > 1 or batch[0].owner == NOBODY.id or seconds < min(SLOW_SECONDS, self._limit):
            return
        if self._suspects.suspect(batch[0].owner, batch[0].kind, _now()):
            self._waiting, self._spoiled = self._unsuspected(self._waiting), self._unsuspected(self._spoiled)

    def _unsuspected(self, queue: Turns[_Pending[Req, Res]]) -> Turns[_Pending[Req, Res]]:
        rest: Turns[_Pending[Req, Res]] = Turns()
        while queue:
            pending = queue.pop()
            (self._alone if self._is_suspect(pending) else rest).push(pending.owner, pending)
        return rest

    def _ask_again(self, mode: Mode, batch: list[_Pending[Req, Res]], last: RequestError) -> None:
        """Move requests one queue on, or from the last one to their `last` answer. A batch of one needs no probe."""
        if mode == "slow":
            _settle(batch[0], last)
            return
        if mode == "batch":
            queue = self._spoiled if len(batch) > 1 else self._slow
        else:
            queue = self._alone if mode == "probe" else self._slow
        if queue is self._slow and not queue:
            self._slow_due = _now() + self._limit
        for pending in batch:
            queue.push(pending.owner, pending)
            self._wake()

    async def _rest(self) -> None:
        woken = asyncio.get_running_loop().create_future()
        self._idle.append(woken)
        await woken

    def _wake(self, *, everybody: bool = False) -> None:
        while self._idle:
            woken = self._idle.popleft()
            if not woken.done():
                woken.set_result(None)
                if not everybody:
                    return

    def _fail_all(self) -> None:
        for queue in (self._waiting, self._spoiled, self._alone, self._slow):
            while queue:
                _settle(queue.pop(), Unavailable())


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _set_limit(connection: Connection, statement: str, seconds: float) -> None:
    await connection.execute(written_out(statement, str(int(seconds * 1000))), timeout=GRACE_SECONDS)


def _settle(pending: _Pending[Any, Any], answer: object) -> None:
    """Give a caller its answer, unless it has gone away meanwhile."""
    if pending.answer.done():
        return
    if isinstance(answer, Exception):
        pending.answer.set_exception(answer)
    else:
        pending.answer.set_result(answer)


def _fail(batch: Sequence[_Pending[Any, Any]]) -> None:
    for pending in batch:
        _settle(pending, Unavailable())
