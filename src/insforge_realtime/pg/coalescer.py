"""Many callers share a few connections: requests are gathered into batches, and nobody's wait at others' expense.

A pool hands a connection to each caller, so a thousand callers make a thousand round trips. Here it is the other way
round: a free connection takes all requests that are waiting (up to `BATCH`) and asks for them at once. Under load the
batches grow by themselves, and nobody waits for a timer.

Time limits. A batch gets `BATCH_SECONDS`. When one request in it is slow, PostgreSQL cancels the batch as a whole, and each
of its requests is asked again alone, with the same short limit; only those that fail alone as well are given the full
limit. After a cancelled batch the next ones are smaller.

Fairness. What always holds, where there are two connections or more:

    owners take turns in every queue (turns.py): a request waits for at most one of each other owner's
    what is asked apart, alone or with the full limit, leaves one connection to the batches; except that one at a time is
    asked alone there, for `BATCH_SECONDS` at most, while nothing else waits and slow ones have all the others
    an owner who was slow is asked apart from then on, as is a kind of channel that was slow for two: one batch is spoiled
    one owner has at most so many requests waiting; what is more is refused
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import asyncpg
import structlog

from insforge_realtime.errors import InternalError, RateLimited, RequestError, Unavailable
from insforge_realtime.model import Owner
from insforge_realtime.pg.pool import LOST, connected, describe, keep
from insforge_realtime.pg.turns import Suspects, Turns

if TYPE_CHECKING:
    from insforge_realtime.pg.pool import Connection

BATCH = 200
BATCH_SECONDS = 0.5
GRACE_SECONDS = 3.0
"""How much longer than PostgreSQL's own limit we wait for its answer before we call the connection dead."""
SLOW_SECONDS = BATCH_SECONDS / 4
"""Who needs so long alone has no place in a batch."""
NOBODY = Owner("", 0)
"""Who asks for the system itself; not bounded."""

log = structlog.get_logger("insforge_realtime.pg")

Mode = Literal["batch", "alone", "slow"]
"""How something is asked: with others; alone, with the same short limit; alone, with the full limit."""
Req = TypeVar("Req")
Res = TypeVar("Res")


@dataclass(slots=True, eq=False)
class _Pending(Generic[Req, Res]):
    request: Req
    owner: str
    kind: str
    answer: asyncio.Future[Res]
    tries: int = 0


@dataclass(slots=True, eq=False)
class Coalescer(Generic[Req, Res]):
    """Many callers, few connections, one round trip for all that wait.

    Args:
        name: names the connections.
        dsn: where to.
        ask: sends one batch and returns as many answers; an answer may be an exception, raised in its caller.
        links: how many connections.
        limit: the longest one request may take, in seconds.
        pooled: see `connect`.
        most: how many requests one owner may have waiting, times the owner's `share`; 0 for no limit.
    """

    name: str
    dsn: str
    ask: Callable[[Connection, Sequence[Req]], Awaitable[Sequence[Res | RequestError]]]
    links: int = 2
    limit: float = 5.0
    pooled: bool = False
    most: int = 0
    live: int = field(default=0, init=False)
    _waiting: Turns[_Pending[Req, Res]] = field(default_factory=Turns, init=False)
    _alone: Turns[_Pending[Req, Res]] = field(default_factory=Turns, init=False)
    _slow: Turns[_Pending[Req, Res]] = field(default_factory=Turns, init=False)
    _suspects: Suspects = field(default_factory=Suspects, init=False)
    _pending: dict[str, int] = field(default_factory=dict, init=False)
    """How many requests each owner has in here."""
    _size: int = field(default=BATCH, init=False)
    """Of the next batch, at most."""
    _running: dict[Mode, int] = field(default_factory=lambda: {"batch": 0, "alone": 0, "slow": 0}, init=False)
    """How many connections are asked something in this way now."""
    _batched: bool = field(default=False, init=False)
    _slow_due: float = field(default=0.0, init=False)
    """When the next slow one may keep others waiting."""
    _idle: deque[asyncio.Future[None]] = field(default_factory=deque, init=False)

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
        if 0 < self.most * owner.share <= waiting:
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
                    group.create_task(keep(f"{self.name} {number + 1}", self._session))
        finally:
            self._fail_all()

    def _enqueued(self, pending: _Pending[Req, Res]) -> asyncio.Future[Res]:
        if self._suspects.includes(pending.owner, pending.kind, _now()):
            pending.tries = 1
            self._alone.push(pending.owner, pending)
        else:
            self._waiting.push(pending.owner, pending)
        self._wake()
        return pending.answer

    def _forget(self, owner: str) -> None:
        self._pending[owner] -= 1
        if not self._pending[owner]:
            del self._pending[owner]

    # The connections.

    async def _session(self) -> None:
        async with connected(self.dsn, name=self.name, pooled=self.pooled) as connection:
            # A connection that dies while nobody asks anything must be noticed too, or the next caller would pay for it.
            connection.add_termination_listener(lambda _: self._wake(everybody=True))
            self.live += 1
            try:
                await self._serve(connection)
            finally:
                self.live -= 1
                if not self.live:
                    self._fail_all()

    async def _serve(self, connection: Connection) -> None:
        limit = 0.0
        while not connection.is_closed():
            mode, batch = self._take()
            if not batch:
                await self._rest()
                continue
            seconds = self.limit if mode == "slow" else min(BATCH_SECONDS, self.limit)
            self._running[mode] += 1
            try:
                if seconds != limit and not self.pooled:
                    await _set_limit(connection, "SESSION", seconds)
                    limit = seconds
                await self._answer(connection, batch, seconds)
            except BaseException:
                _fail(batch)
                raise
            finally:
                self._running[mode] -= 1
                if mode != "batch":
                    self._wake()  # another one may have been waiting for this to be over
        raise ConnectionError("the server closed the connection")

    async def _answer(self, connection: Connection, batch: list[_Pending[Req, Res]], seconds: float) -> None:
        began = _now()
        try:
            requests = [pending.request for pending in batch]
            answers = await asyncio.wait_for(self._ask(connection, requests, seconds), seconds + GRACE_SECONDS)
        except asyncpg.QueryCanceledError:
            self._size = max(1, len(batch) // 4)
            self._judge(batch, seconds)
            self._ask_again(batch, InternalError("The policy took too long to decide"))
        except LOST:
            raise
        except Exception as error:
            # No traceback for PostgreSQL's errors: their DETAIL quotes the row.
            expected = isinstance(error, asyncpg.PostgresError)
            log.error("request to the database failed", link=self.name, error=describe(error), exc_info=not expected)
            self._ask_again(batch, InternalError())
        else:
            self._size = min(BATCH, self._size * 2)
            self._judge(batch, _now() - began)
            for pending, answer in zip(batch, answers, strict=True):
                _settle(pending, answer)

    async def _ask(
        self, connection: Connection, requests: Sequence[Req], seconds: float
    ) -> Sequence[Res | RequestError]:
        if not self.pooled:
            return await self.ask(connection, requests)
        # Behind a transaction pooler a session's settings would be somebody else's next.
        async with connection.transaction():
            await _set_limit(connection, "LOCAL", seconds)
            return await self.ask(connection, requests)

    # The order.

    def _take(self) -> tuple[Mode, list[_Pending[Req, Res]]]:
        """What to ask next, and how: on each connection in turns all that wait, and one that is asked apart."""
        apart = self._next_apart()
        if self._waiting and not (apart and self._batched):
            self._batched = True
            return "batch", self._next_batch()
        self._batched = False
        if apart == "slow":
            self._slow_due = _now() + self.limit
            return apart, [self._slow.pop()]
        return "alone", [self._alone.pop()] if apart else []

    def _next_apart(self) -> Mode | None:
        """Which of the two is next; None if neither may, or nothing is there. A slow one is last, unless it waits long."""
        alone, slow = self._running["alone"], self._running["slow"]
        free = alone + slow < max(1, self.live - 1)
        if self._slow and free and (not (self._alone or self._waiting) or _now() >= self._slow_due):
            return "slow"
        if self._alone and (free or (not alone and not self._waiting)):
            return "alone"
        return None

    def _next_batch(self) -> list[_Pending[Req, Res]]:
        batch: list[_Pending[Req, Res]] = []
        while self._waiting and len(batch) < self._size:
            batch.append(self._waiting.pop())
        return batch

    def _judge(self, batch: list[_Pending[Req, Res]], seconds: float) -> None:
        """Remember who was slow, where that can be told."""
        if len(batch) == 1 and batch[0].owner != NOBODY.id and seconds >= min(SLOW_SECONDS, self.limit):
            self._suspects.suspect(batch[0].owner, batch[0].kind, _now())

    def _ask_again(self, batch: list[_Pending[Req, Res]], last: RequestError) -> None:
        """Move requests one queue on: from a batch to alone, from alone to slow, from slow to their `last` answer."""
        for pending in batch:
            pending.tries += 1 if len(batch) > 1 or pending.tries else 2
            if pending.tries > 2:
                _settle(pending, last)
            else:
                if pending.tries == 2 and not self._slow:
                    self._slow_due = _now() + self.limit
                (self._alone if pending.tries == 1 else self._slow).push(pending.owner, pending)
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
        for queue in (self._waiting, self._alone, self._slow):
            while queue:
                _settle(queue.pop(), Unavailable())


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _set_limit(connection: Connection, scope: str, seconds: float) -> None:
    await connection.execute(f"SET {scope} statement_timeout = {int(seconds * 1000)}", timeout=GRACE_SECONDS)


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
