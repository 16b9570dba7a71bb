"""Connections that come back, and the coalescer that lets many callers share a few of them.

What lives here: that a connection is opened and opened again (one visible loop), and how requests are gathered into
batches. What does not: how it is opened (dial.py), and any statement of the application.

A pool hands a connection to each caller, so a thousand callers make a thousand round trips. Here it is the other way
round: a free connection takes all requests that are waiting (up to `BATCH`) and asks for them at once. Under load the
batches grow by themselves, and nobody waits for a timer.

Time limits. A batch gets `BATCH_SECONDS`. When one request in it is slow, PostgreSQL cancels the batch as a whole, and each
of its requests is asked again alone, with the same short limit; only those that fail alone as well are given the full
limit, and never on all connections at a time. So one slow policy costs its neighbours about a second, not its whole time.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import asyncpg
import structlog

from insforge_realtime import dsn as urls
from insforge_realtime.errors import ConfigError, InternalError, RequestError, Unavailable
from insforge_realtime.pg import outage
from insforge_realtime.pg.dial import Session, dial
from insforge_realtime.pg.queries import query

BATCH = 200
BATCH_SECONDS = 0.5
CONNECT_SECONDS = 5.0
"""For opening a connection, where its URL has no connect_timeout. Several hosts share it."""
GRACE_SECONDS = 3.0
"""How much longer than PostgreSQL's own limit we wait for its answer before we call the connection dead."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0

log = structlog.get_logger("insforge_realtime.pg")

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

Req = TypeVar("Req")
Res = TypeVar("Res")

LINK_ERRORS = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What opening a connection, or working on one that is lost or hangs, may raise."""

LOST = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a statement on a connection that is just being torn down
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
)
"""What a statement raises when its connection is gone, rather than the statement wrong."""


_noted: set[str] = set()
"""What the log has said of the URL, which all links would say."""


async def connect(
    dsn: str,
    *,
    name: str,
    pooled: bool = False,
    statement_timeout: float = 0.0,
    lock_timeout: float = 0.0,
    search_path: str | None = None,
) -> Connection:
    """Open a connection, on which no default of the role or the database holds that would be in our way.

    Args:
        dsn: where to; see ../dsn.py.
        name: shown in `pg_stat_activity`, after "insforge-realtime " or the URL's application_name.
        pooled: a pooler may hand every transaction to another session, so nothing is prepared or left behind.
        statement_timeout, lock_timeout: PostgreSQL's own limits, in seconds; 0 for none.
        search_path: None for the role's own, which policies and triggers may need.

    Raises:
        OSError, asyncpg.PostgresError, TimeoutError: it cannot be reached or lets us not in.
        ConfigError: the URL, or a file that it names, cannot be used.
    """
    parsed = urls.parse(dsn)
    for note in parsed.notes:
        if note not in _noted:
            _noted.add(note)
            log.warning("database URL", note=note)
    session = Session(name, pooled, statement_timeout, lock_timeout, search_path)
    outage.dialling(parsed.place)
    connection = await dial(parsed, session, seconds=CONNECT_SECONDS)
    try:
        await asyncio.wait_for(_learn_types(connection), CONNECT_SECONDS)
    except BaseException:
        connection.terminate()
        raise
    outage.opened()
    return connection


async def _learn_types(connection: Connection) -> None:
    """Let asyncpg ask the catalog about the arrays that we send, which it does once for each, with unqualified names: now,
    under a path of our own, where no operator that somebody has put into `public` answers it as the server."""
    # No `async with`: where the link goes silent, a rollback would wait for ever.
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(query("path_of_our_own"))
    await connection.fetchrow(query("arrays_that_we_send"))
    await transaction.rollback()  # asyncpg sets `jit` for the session, which may be somebody else's next


@asynccontextmanager
async def connected(dsn: str, *, name: str, **options: Any) -> AsyncIterator[Connection]:
    """A connection that is closed at the end, quickly where closing politely does not work. `options`: as for `connect`."""
    connection = await connect(dsn, name=name, **options)
    try:
        yield connection
    finally:
        await _close(connection)


async def _close(connection: Connection) -> None:
    try:
        await connection.close(timeout=1.0)
    except LINK_ERRORS:
        connection.terminate()
    except asyncio.CancelledError:
        connection.terminate()
        raise


async def keep(what: str, session: Callable[[], Awaitable[None]]) -> None:
    """Run `session` for ever: each time it ends in a connection error, wait a little longer and run it again.

    Args:
        what: names the link in the log.
        session: opens a connection and serves on it; a session that got somewhere must call nothing to say so: one that
            lasted longer than the longest pause starts the back-off anew.
    """
    pause = FIRST_PAUSE
    loop = asyncio.get_running_loop()
    with outage.keeping(what) as link:
        while True:
            began = loop.time()
            try:
                await session()
            except (*LINK_ERRORS, ConfigError) as error:
                link.lost(error, describe(error))
            except Exception as error:
                # A bug, not the weather. It must not stop the server, and it must not pass unseen.
                log.exception("database link failed", link=what, error=describe(error))
            if loop.time() - began > LONGEST_PAUSE:
                pause = FIRST_PAUSE
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, not a secret
            pause = min(pause * 2, LONGEST_PAUSE)


def describe(error: BaseException) -> str:
    """An error in one line, without the statement's values."""
    return f"{type(error).__name__}: {error}".splitlines()[0].rstrip(": ")


@dataclass(slots=True, eq=False)
class _Pending(Generic[Req, Res]):
    request: Req
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
    """

    name: str
    dsn: str
    ask: Callable[[Connection, Sequence[Req]], Awaitable[Sequence[Res | RequestError]]]
    links: int = 2
    limit: float = 5.0
    pooled: bool = False
    live: int = field(default=0, init=False)
    _waiting: deque[_Pending[Req, Res]] = field(default_factory=deque, init=False)
    _alone: deque[_Pending[Req, Res]] = field(default_factory=deque, init=False)
    _slow: deque[_Pending[Req, Res]] = field(default_factory=deque, init=False)
    _slow_running: int = field(default=0, init=False)
    _batched: bool = field(default=False, init=False)
    _idle: deque[asyncio.Future[None]] = field(default_factory=deque, init=False)

    async def submit(self, request: Req) -> Res:
        """The answer to one request.

        Raises:
            Unavailable: at once, when no connection is up; or when it is lost before the answer.
            InternalError: it took longer than the limit.
        """
        if not self.live:
            raise Unavailable
        pending: _Pending[Req, Res] = _Pending(request, asyncio.get_running_loop().create_future())
        self._waiting.append(pending)
        self._wake()
        return await pending.answer

    async def run(self) -> None:
        """Keep all connections up until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self.links):
                    group.create_task(keep(f"{self.name} {number + 1}", self._session))
        finally:
            self._fail_all()

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
            batch, seconds, slow = self._take()
            if not batch:
                await self._rest()
                continue
            self._slow_running += slow
            try:
                if seconds != limit and not self.pooled:
                    await _set_limit(connection, "SESSION", seconds)
                    limit = seconds
                await self._answer(connection, batch, seconds)
            except BaseException:
                _fail(batch)
                raise
            finally:
                self._slow_running -= slow
        raise ConnectionError("the server closed the connection")

    async def _answer(self, connection: Connection, batch: list[_Pending[Req, Res]], seconds: float) -> None:
        try:
            requests = [pending.request for pending in batch]
            answers = await asyncio.wait_for(self._ask(connection, requests, seconds), seconds + GRACE_SECONDS)
        except asyncpg.QueryCanceledError:
            self._ask_again(batch, InternalError("The policy took too long to decide"))
        except LOST:
            raise
        except Exception as error:
            # No traceback for PostgreSQL's errors: their DETAIL quotes the row.
            expected = isinstance(error, asyncpg.PostgresError)
            log.error("request to the database failed", link=self.name, error=describe(error), exc_info=not expected)
            self._ask_again(batch, InternalError())
        else:
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

    def _take(self) -> tuple[list[_Pending[Req, Res]], float, bool]:
        """All that wait, in turns with one that must go alone; else one slow one, unless that would occupy every link."""
        quick = min(BATCH_SECONDS, self.limit)
        if self._waiting and not (self._alone and self._batched):
            self._batched = True
            return [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))], quick, False
        if self._alone:
            self._batched = False
            return [self._alone.popleft()], quick, False
        if self._slow and self._slow_running < max(1, self.live - 1):
            return [self._slow.popleft()], self.limit, True
        return [], 0.0, False

    def _ask_again(self, batch: list[_Pending[Req, Res]], last: RequestError) -> None:
        """Move requests one queue on: from a batch to alone, from alone to slow, from slow to their `last` answer."""
        for pending in batch:
            pending.tries += 1 if len(batch) > 1 or pending.tries else 2
            if pending.tries > 2:
                _settle(pending, last)
            else:
                (self._alone if pending.tries == 1 else self._slow).append(pending)
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
            _fail(queue)
            queue.clear()


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


def _fail(batch: Sequence[_Pending[Any, Any]] | deque[_Pending[Any, Any]]) -> None:
    for pending in batch:
        _settle(pending, Unavailable())
