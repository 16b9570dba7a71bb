"""Connections that come back.

What lives here: that a connection is opened and opened again, in one visible loop. What does not: how it is opened
(dial.py), how many callers share a few of them (coalescer.py), and any statement of the application.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import structlog

from insforge_realtime import dsn as urls
from insforge_realtime.errors import ConfigError
from insforge_realtime.pg import outage
from insforge_realtime.pg.dial import Session, dial
from insforge_realtime.pg.queries import query

CONNECT_SECONDS = 5.0
"""For opening a connection, where its URL has no connect_timeout. Several hosts share it."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0

log = structlog.get_logger("insforge_realtime.pg")

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

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
        async with asyncio.timeout(CONNECT_SECONDS):  # wait_for of Python 3.11 can lose a cancellation
            await _learn_types(connection)
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
