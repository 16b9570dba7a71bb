"""Bring a database to the current schema: empty, ours from an earlier version, or the incumbent's.

What lives here: reading the migration files, deciding which steps a database needs, running them. What the steps do is in
`sql/migrations/*.sql`, `sql/functions.sql` and `sql/judges.sql`, nowhere else. All of it runs in one transaction under an
advisory lock, so that servers which start together are harmless to each other, and a failure leaves the database as it was.

A migration's steps carry their own conditions, SQL expressions over the catalog. `plan` evaluates them and changes nothing:
the dry run asks the same questions as the real one, takes no lock and writes nothing.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

import asyncpg

from insforge_realtime.errors import MigrationError
from insforge_realtime.pg.pool import LINK_ERRORS, connected, describe
from insforge_realtime.pg.queries import query, sql_file

if TYPE_CHECKING:
    from insforge_realtime.pg.pool import Connection

LOCK = 0x1F_0E_9E_A1
"""The advisory lock of our migrations: any number, the same on all nodes."""
OLDEST_VERSION = 14

_STEP = re.compile(
    r"^--: (?P<what>.+)\n--\? (?P<needed>.+)\n(?:--! (?P<cure>.+)\n)?(?P<sql>(?:(?!^--: ).*\n?)*)", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Step:
    """One thing a migration does: `what` for people, `needed` as a SQL condition, `sql`; `cure` is what to grant."""

    what: str
    needed: str
    sql: str
    cure: str | None = None


FUNCTIONS = Step(
    "re-apply the functions of the schema realtime",
    "true",
    sql_file("functions.sql") + sql_file("judges.sql"),
    "ALTER FUNCTION … OWNER TO {user}, for each function of the schema realtime",
)
LOOK = Step(
    "look into the schema realtime",
    "true",
    query("migrations_applied"),
    "GRANT USAGE, CREATE ON SCHEMA realtime TO {user}; GRANT SELECT, INSERT ON realtime.schema_migrations TO {user}",
)


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of `sql/migrations`, `NNNN_name.sql`."""

    version: int
    name: str
    steps: tuple[Step, ...]


def migrations() -> list[Migration]:
    """Every migration, in order."""
    folder = files(__package__).joinpath("sql", "migrations")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [_read(name) for name in names]


def _read(name: str) -> Migration:
    steps = (Step(**match.groupdict()) for match in _STEP.finditer(sql_file(f"migrations/{name}")))
    return Migration(int(name[:4]), name.removesuffix(".sql"), tuple(steps))


async def plan(dsn: str) -> list[str]:
    """What `migrate` would do, a line each. Changes nothing.

    Raises:
        MigrationError: the database cannot be reached, or is too old.
    """
    async with _session(dsn) as connection:
        lines = []
        async with connection.transaction():
            for migration in await _pending(connection):
                lines += [step.what for step in await _needed(connection, migration)]
                lines.append(f"record migration {migration.name}")
        return [*lines, FUNCTIONS.what, *await _left_alone(connection)]


async def migrate(dsn: str) -> list[str]:
    """Bring the database up to date, and say what was done, a line each.

    Raises:
        MigrationError: it cannot be reached, is too old, or refused a step; nothing was changed.
    """
    async with _session(dsn) as connection:
        try:
            async with connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
                lines = []
                for migration in await _pending(connection):
                    lines += await _apply(connection, migration)
                await _run(connection, FUNCTIONS)
        except asyncpg.PostgresError as error:
            raise MigrationError(f"the database refused: {describe(error)}") from error
        return [*lines, FUNCTIONS.what, *await _left_alone(connection)]


async def is_current(connection: Connection) -> bool:
    """Whether every migration that this version knows has been applied."""
    return not await _pending(connection)


@asynccontextmanager
async def _session(dsn: str) -> AsyncIterator[Connection]:
    try:
        # As if pooled, always: nothing may be left behind in a session that a pooler hands on.
        async with connected(dsn, name="migrate", pooled=True, search_path="pg_catalog, pg_temp") as connection:
            if connection.get_server_version().major < OLDEST_VERSION:
                raise MigrationError(f"PostgreSQL {OLDEST_VERSION} or newer is needed")
            try:
                yield connection
            except _NotAllowedError as error:
                raise await _in_full(connection, error) from error
    except LINK_ERRORS as error:
        raise MigrationError(f"cannot reach the database: {describe(error)}") from error


async def _pending(connection: Connection) -> list[Migration]:
    with _naming(LOOK):
        exists = await connection.fetchval("SELECT to_regclass('realtime.schema_migrations') IS NOT NULL")
        applied = {row["version"] for row in await connection.fetch(LOOK.sql)} if exists else set()
    return [migration for migration in migrations() if migration.version not in applied]


async def _needed(connection: Connection, migration: Migration) -> list[Step]:
    """The steps that this database needs. Asked before any of them runs, so that the dry run cannot differ."""
    steps = []
    for step in migration.steps:
        with _naming(step):
            if await connection.fetchval(f"SELECT {step.needed}"):
                steps.append(step)
    return steps


async def _apply(connection: Connection, migration: Migration) -> list[str]:
    needed = await _needed(connection, migration)
    for step in needed:
        await _run(connection, step)
    await connection.execute(query("create_schema_migrations"))
    await connection.execute(query("record_migration"), migration.version, migration.name)
    return [*(step.what for step in needed), f"record migration {migration.name}"]


async def _run(connection: Connection, step: Step) -> None:
    with _naming(step):
        await connection.execute(step.sql)


class _NotAllowedError(Exception):
    """A step was refused. Told in full only once the transaction is over, since the cure has to be asked for."""

    def __init__(self, step: Step) -> None:
        self.step = step


@contextmanager
def _naming(step: Step) -> Iterator[None]:
    try:
        yield
    except asyncpg.InsufficientPrivilegeError as error:
        raise _NotAllowedError(step) from error


async def _in_full(connection: Connection, error: _NotAllowedError) -> MigrationError:
    me = await connection.fetchrow(query("migrator"))
    assert me is not None
    assert error.__cause__ is not None
    cure = f"An administrator can: {error.step.cure.format(**me)}. " if error.step.cure else ""
    return MigrationError(
        f"not allowed to {error.step.what}: {describe(error.__cause__)}. {cure}"
        "Or run `migrate` as a role that may; docs/database.md lists what is needed"
    )


async def _left_alone(connection: Connection) -> list[str]:
    """What an adopted database keeps as it was, where that may surprise."""
    rows = await connection.fetch(query("tables_without_rls"))
    return [
        f"leave row-level security OFF on {row['name']}: everybody may "
        f"{'subscribe to every channel' if row['name'].endswith('channels') else 'publish to every channel'} "
        "(see `check`)"
        for row in rows
    ]
