"""The database, and connections to it that come back.

What lives here: where the database is and how the server uses it, as one value that every part takes; and that a connection
is opened and opened again, in one visible loop. What does not: how it is opened (dial.py), how many callers share a few
connections (coalescer.py), and any statement of the application.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import asyncpg
import structlog

from insforge_realtime import dsn as urls
from insforge_realtime.errors import ConfigError
from insforge_realtime.pg import outage
from insforge_realtime.pg.dial import SessionSettings, dial
from insforge_realtime.pg.queries import query

CONNECT_SECONDS = 5.0
"""For opening a connection, where its URL has no connect_timeout. Several hosts share it."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0

log = structlog.get_logger("insforge_realtime.pg")

if TYPE_CHECKING:
    from insforge_realtime.pg.dial import Connection as Connection

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


@dataclass(frozen=True, slots=True)
class Database:
    """Where the database is, and how the server uses it. The server makes one, in app.py; a command, one of its URL.

    Args:
        url: see ../dsn.py.
        listen_url: a way around the pooler that `url` leads to; None where it leads to PostgreSQL itself.
        connections: how many clients' subscribing may use, and as many their publishing.
        policy_timeout: the longest one request's policies may take, in seconds.
        max_pending_per_user: how many requests of one user may wait, times that user's share; 0 for no limit.
    """

    url: str = field(repr=False)
    listen_url: str | None = field(default=None, repr=False)
    connections: int = 2
    policy_timeout: float = 5.0
    max_pending_per_user: int = 0

    @property
    def pooled(self) -> bool:
        """Whether a pooler may hand every transaction to another session, so nothing is prepared or left behind."""
        return self.listen_url is not None

    @property
    def direct(self) -> Database:
        """The same database without the pooler: a connection to it keeps its session."""
        return replace(self, url=self.listen_url or self.url, listen_url=None)

    async def connect(
        self,
        name: str,
        *,
        pooled: bool = False,
        statement_timeout: float = 0.0,
        lock_timeout: float = 0.0,
        search_path: str | None = None,
    ) -> Connection:
        """Open a connection, on which no default of the role or the database holds that would be in our way.

        Args:
            name: shown in `pg_stat_activity`, after "insforge-realtime " or the URL's application_name.
            pooled: whether to behave as behind a pooler where none is configured, too: there may be one.
            statement_timeout, lock_timeout: PostgreSQL's own limits, in seconds; 0 for none.
            search_path: None for the role's own, which policies and triggers may need.

        Raises:
            OSError, asyncpg.PostgresError, TimeoutError: it cannot be reached or does not let us in.
            ConfigError: the URL, or a file that it names, cannot be used.
        """
        dsn = urls.parse(self.url)
        _log_notes(dsn)
        settings = SessionSettings(name, pooled or self.pooled, statement_timeout, lock_timeout, search_path)
        outage.dialling(dsn.place)
        connection = await dial(dsn, settings, seconds=CONNECT_SECONDS)
        try:
            await asyncio.wait_for(_learn_types(connection), CONNECT_SECONDS)
        except BaseException:
            connection.terminate()
            raise
        outage.opened()
        return connection

    @asynccontextmanager
    async def connected(self, name: str, **options: Any) -> AsyncIterator[Connection]:
        """Open a connection, and close it at the end: quickly where closing politely does not work.

        Args:
            name, options: as for `connect`.
        """
        connection = await self.connect(name, **options)
        try:
            yield connection
        finally:
            await _close(connection)


def _log_notes(dsn: urls.Dsn) -> None:
    for note in dsn.notes:
        if note not in _noted:
            _noted.add(note)
            log.warning("database URL", note=note)


async def _learn_types(connection: Connection) -> None:
    """Let asyncpg ask the catalog about the arrays that we send, which it does once for each, with unqualified names: now,
    under a path of our own, where no operator that somebody has put into `public` answers it as the server."""
    # No `async with`: where the link goes silent, a rollback would wait for ever.
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(query("path_of_our_own"))
    await connection.fetchrow(query("arrays_that_we_send"))
    await transaction.rollback()  # asyncpg sets `jit` for the session, which may be somebody else's next


async def _close(connection: Connection) -> None:
    try:
        await connection.close(timeout=1.0)
    except LINK_ERRORS:
        connection.terminate()
    except asyncio.CancelledError:
        connection.terminate()
        raise


async def keep(name: str, serve: Callable[[], Awaitable[None]]) -> None:
    """Run `serve` for ever: each time it ends in a connection error, wait a little longer and run it again.

    Args:
        name: of the link, in the log.
        serve: opens a connection and works on it. One that lasted longer than the longest pause starts the back-off anew.
    """
    pause = FIRST_PAUSE
    loop = asyncio.get_running_loop()
    with outage.keeping(name) as link:
        while True:
            began = loop.time()
            try:
                await serve()
            except (*LINK_ERRORS, ConfigError) as error:
                link.lost(error, describe(error))
            except Exception as error:
                # A bug, not the weather. It must not stop the server, and it must not pass unseen.
                log.exception("database link failed", link=name, error=describe(error))
            if loop.time() - began > LONGEST_PAUSE:
                pause = FIRST_PAUSE
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, not a secret
            pause = min(pause * 2, LONGEST_PAUSE)


def describe(error: BaseException) -> str:
    """Return an error as one line, without the statement's values."""
    return f"{type(error).__name__}: {error}".splitlines()[0].rstrip(": ")
