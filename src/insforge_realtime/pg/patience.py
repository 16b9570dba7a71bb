"""Work that needs strong locks, beside transactions in its way: short waits, pauses, and a word about whose they are.

Whoever waits for a strong lock makes all others wait behind it. So each try waits shortly, gives the locks back, and lets
the others through. What lives here: the tries and who is told of them. What does not: the work.

A second connection watches whom the first one waits for; PostgreSQL tells it only while that lasts. Where the watcher cannot
connect, the work goes on all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import asyncpg

from insforge_realtime import tasks
from insforge_realtime.errors import MigrationError
from insforge_realtime.pg.database import LINK_ERRORS
from insforge_realtime.pg.queries import query

if TYPE_CHECKING:
    from insforge_realtime.pg.database import Connection, Database

SHORT_SECONDS = 0.5
"""How long writers may have to wait behind one try; less than PostgreSQL's deadlock_timeout, so that no writer becomes the
victim of a deadlock with us."""
VACUUM_SECONDS = 1.0
"""How much longer than deadlock_timeout to wait for an autovacuum: it gives way, to whoever has waited that long."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0
WATCH_SECONDS = 0.1

_LOCKED = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What was in the way of one try.

    Args:
        what: what was waited for.
        whose: who has it, with what everybody may know of that session.
        cure: what an administrator can do about it.
        migrator: whether all of it is another migration, which nobody else waits behind.
        vacuum: whether all of it is a process of the server's own, such as an autovacuum.
    """

    what: str = "a lock"
    whose: str = "a session that could not be seen"
    cure: str = "end the long-running transactions (pg_stat_activity)"
    migrator: bool = False
    vacuum: bool = False


class Patience:
    """Tries to do some work in a transaction until its locks can be had.

    Args:
        database: where the watcher connects to.
        limit: how long to go on trying, in seconds, counted from the first try that failed.
        tell: called with a line for each try that failed.
    """

    def __init__(self, database: Database, limit: float, tell: Callable[[str], None]) -> None:
        self._database = database
        self._limit = limit
        self._tell = tell
        self._backend = 0
        self._obstacle: Obstacle | None = None

    async def run(self, connection: Connection, work: Callable[[], Awaitable[T]]) -> T:
        """Do the work in a transaction; after a lock that could not be had, do it again from the start.

        Raises:
            MigrationError: it could not be done within the limit; says who was in the way and what to do.
        """
        watcher = tasks.start(self._watch(), "watcher of the migration's locks")
        try:
            return await self._persist(connection, work)
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)

    async def _persist(self, connection: Connection, work: Callable[[], Awaitable[T]]) -> T:
        clock = asyncio.get_running_loop().time
        first: float | None = None
        pause, patience = FIRST_PAUSE, 0.0
        while True:
            began = clock()
            try:
                return await self._try(connection, work, patience)
            except _LOCKED as error:
                obstacle = self._obstacle or Obstacle()
                first = began if first is None else first
                if clock() - first >= self._limit:
                    raise MigrationError(_gave_up(clock() - first, obstacle)) from error
            self._tell(f"waiting for {obstacle.what}, held by {obstacle.whose}")
            patience = VACUUM_SECONDS if obstacle.vacuum else 0.0
            if not obstacle.migrator:
                await asyncio.sleep(min(pause, max(0.0, first + self._limit - clock())))
                pause = min(pause * 1.5, LONGEST_PAUSE)

    async def _try(self, connection: Connection, work: Callable[[], Awaitable[T]], patience: float) -> T:
        self._obstacle = None
        async with connection.transaction():
            await set_limits(connection)
            self._backend = await connection.fetchval(query("lock_shortly"), SHORT_SECONDS, patience)
            try:
                return await work()
            finally:
                self._backend = 0

    async def _watch(self) -> None:
        await asyncio.sleep(WATCH_SECONDS)
        with suppress(*LINK_ERRORS):
            # As if pooled, always: nothing may be left behind in a session that a pooler hands on.
            async with self._database.connected("migrate's watcher", pooled=True) as connection:
                while True:
                    rows = await connection.fetch(query("lock_obstacles"), self._backend)
                    if rows and self._backend:
                        self._obstacle = _obstacle(rows)
                    await asyncio.sleep(WATCH_SECONDS)


async def set_limits(connection: Connection) -> None:
    """For this transaction, none of the time limits that the role or the database may have: they are meant for requests."""
    await connection.execute(query("migrate_limits"))


def _obstacle(rows: list[asyncpg.Record]) -> Obstacle:
    return Obstacle(
        what=rows[0]["what"],
        whose="; ".join(row["whose"] for row in rows),
        cure="; ".join(row["cure"] for row in rows),
        migrator=all(row["migrator"] for row in rows),
        vacuum=all(row["vacuum"] for row in rows),
    )


def _gave_up(seconds: float, obstacle: Obstacle) -> str:
    return (
        f"gave up after {seconds:.0f} s, and nothing was changed: {obstacle.what} is held by {obstacle.whose}. "
        f"To go on: {obstacle.cure}; then migrate again. Or let it wait longer: --lock-wait SECONDS"
    )
