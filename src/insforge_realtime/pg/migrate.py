"""Bring a database to the current schema: empty, ours from an earlier version, or the incumbent's.

What lives here: reading the migration files, deciding which steps a database needs, running them. What the steps do is in
`sql/migrations/*.sql`, `sql/functions.sql`, `sql/judges.sql` and `sql/triggers.sql`, nowhere else. All of it runs in one
transaction under an advisory lock, so that servers which start together are harmless to each other, and a failure leaves the
database as it was.

Steps carry their own conditions, SQL expressions over the catalog. All of them are asked before the first step runs, so that
`plan`, which asks them and changes nothing, cannot tell of anything but what `migrate` does.

Nothing stops for a `migrate` with nothing to do: migrations are applied once, triggers replaced only where they differ, and
the functions, which are always re-applied, lock no table. How the locks that are needed are taken: pg/patience.py.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING

import asyncpg
import structlog

from insforge_realtime.errors import ConfigError, MigrationError, NotMigratedError
from insforge_realtime.pg.database import LINK_ERRORS, describe
from insforge_realtime.pg.patience import Patience, set_limits
from insforge_realtime.pg.probes import probe_auth_uid
from insforge_realtime.pg.queries import query, sql_file, written_out

if TYPE_CHECKING:
    from insforge_realtime.pg.database import Connection, Database

LOCK = 0x1F_0E_9E_A1
"""The advisory lock of our migrations: any number, the same on all nodes."""
OLDEST_VERSION = 14
LOCK_WAIT_SECONDS = 60.0
"""How long to go on trying for locks that others hold, unless told otherwise."""

log = structlog.get_logger("insforge_realtime.pg.migrate")

_STEP = re.compile(
    r"^--: (?P<what>.+)\n--\? (?P<needed>.+)\n(?:--@ (?P<locks>.+)\n)?(?:--! (?P<cure>.+)\n)?(?P<sql>(?:(?!^--: ).*\n?)*)",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that is done to a database.

    Args:
        what: for people.
        needed: a SQL condition.
        sql: statements.
        cure: what to grant to a role that may not do it.
        locks: a table that it has to have for itself.
    """

    what: str
    needed: str
    sql: str
    cure: str | None = None
    locks: str | None = None


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
    """Return every migration, in order."""
    folder = files(__package__).joinpath("sql", "migrations")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [Migration(int(name[:4]), name.removesuffix(".sql"), _steps(f"migrations/{name}")) for name in names]


def _steps(file: str) -> tuple[Step, ...]:
    return tuple(Step(**match.groupdict()) for match in _STEP.finditer(sql_file(file)))


def triggers() -> tuple[Step, ...]:
    """Return every trigger, as a step that puts it in place."""
    return _steps("triggers.sql")


@dataclass(slots=True)
class Work:
    """What a database needs, and what there is to say about it."""

    migrations: list[tuple[Migration, list[Step]]] = field(default_factory=list)
    triggers: list[Step] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return what is done, a line each, for people and in order."""
        lines = []
        for migration, steps in self.migrations:
            lines += [*(step.what for step in steps), f"record migration {migration.name}"]
        return [*lines, FUNCTIONS.what, *(step.what for step in self.triggers), *self.remarks]


async def plan(database: Database) -> list[str]:
    """Return what `migrate` would do, a line each. Change nothing.

    Raises:
        MigrationError: the database cannot be reached, is too old, has another encoding than UTF8, or would refuse.
    """
    async with _connected(database) as connection, connection.transaction(readonly=True):
        await set_limits(connection)
        await _refuse_what_lacks_rights(connection)
        return (await _find_work(connection)).lines()


def _log_wait(line: str) -> None:
    log.warning("the migration waits", why=line)


async def migrate(
    database: Database, *, lock_wait: float = LOCK_WAIT_SECONDS, tell: Callable[[str], None] = _log_wait
) -> list[str]:
    """Bring the database up to date, and return what was done, a line each.

    Args:
        database: which one.
        lock_wait: how long to go on trying for locks that other transactions hold, in seconds.
        tell: called with a line, again and again, while one is in the way.

    Raises:
        MigrationError: it cannot be reached, is too old, has another encoding than UTF8, refused a step, or locks could not
            be had in time; nothing was changed.
    """
    async with _connected(database) as connection:
        return await Patience(database, lock_wait, tell).run(connection, lambda: _do(connection))


async def _do(connection: Connection) -> list[str]:
    await connection.execute(query("lock_migrations"), LOCK)
    await _refuse_what_lacks_rights(connection)
    work = await _find_work(connection)
    await _lock(connection, {step.locks for _, steps in work.migrations for step in steps if step.locks})
    for migration, steps in work.migrations:
        await _apply(connection, migration, steps)
    for step in (FUNCTIONS, *work.triggers):
        await _run(connection, step)
    return work.lines()


async def is_adoption(database: Database) -> bool:
    """Return whether `migrate` would take over the tables of another realtime server.

    Raises:
        MigrationError: the database cannot be reached, is too old, or has another encoding than UTF8.
    """
    async with _connected(database) as connection:
        return bool(await connection.fetchval(query("is_adoption")))


async def is_current(connection: Connection) -> bool:
    """Return whether every migration that this version knows has been applied.

    Raises:
        InsufficientPrivilegeError: this role may not look.
    """
    try:
        return not await _pending(connection)
    except _NotAllowedError as error:
        raise asyncpg.InsufficientPrivilegeError(str(error.__cause__)) from error


async def require_current(database: Database) -> None:
    """Return where a server can start on this database, and where that cannot be asked: it may be starting, too.

    Raises:
        NotMigratedError: it was never migrated, or is older than this version.
    """
    try:
        async with database.connected("start", pooled=True, search_path="pg_catalog, pg_temp") as connection:
            pending = await _pending(connection)
    except (*LINK_ERRORS, ConfigError, _NotAllowedError):
        return
    if pending:
        state = "was never migrated" if pending[0].version == 1 else f"is older than this server ({pending[0].name})"
        raise NotMigratedError(
            f"the database {state}: run `insforge-realtime migrate` (with --dry-run first, to see what it would do)"
        )


@asynccontextmanager
async def _connected(database: Database) -> AsyncIterator[Connection]:
    try:
        # As if pooled, always: nothing may be left behind in a session that a pooler hands on.
        async with database.connected("migrate", pooled=True, search_path="pg_catalog, pg_temp") as connection:
            await _refuse_unfit(connection)
            try:
                yield connection
            except _NotAllowedError as error:
                raise await _in_full(connection, error) from error
            except asyncpg.PostgresError as error:
                raise MigrationError(f"the database refused: {describe(error)}") from error
    except LINK_ERRORS as error:
        raise MigrationError(f"cannot reach the database: {describe(error)}") from error


async def _refuse_unfit(connection: Connection) -> None:
    if connection.get_server_version().major < OLDEST_VERSION:
        raise MigrationError(f"PostgreSQL {OLDEST_VERSION} or newer is needed")
    found = await connection.fetchrow(query("database_encoding"))
    assert found is not None
    if found["encoding"] != "UTF8":
        raise MigrationError(
            f"the database {found['name']} is {found['encoding']}, so it cannot hold every message (JSON is Unicode): "
            f"recreate it with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0, and move its tables there (pg_dump)"
        )


# ---- finding out what to do --------------------------------------------------------------------------------


async def _find_work(connection: Connection) -> Work:
    """Ask for everything before anything is done."""
    pending = await _pending(connection)
    work = Work([(migration, await _needed(connection, migration.steps)) for migration in pending])
    work.triggers = await _needed(connection, triggers())
    adopts = any(migration.version == 1 for migration in pending)
    work.remarks = [*await _about_auth_uid(connection, adopts), *await _left_alone(connection)]
    return work


async def _pending(connection: Connection) -> list[Migration]:
    with _naming(LOOK):
        exists = await connection.fetchval(query("was_migrated"))
        applied = {row["version"] for row in await connection.fetch(LOOK.sql)} if exists else set()
    return [migration for migration in migrations() if migration.version not in applied]


async def _needed(connection: Connection, steps: tuple[Step, ...]) -> list[Step]:
    needed = []
    for step in steps:
        with _naming(step):
            if await connection.fetchval(written_out("is_needed", step.needed)):
                needed.append(step)
    return needed


async def _about_auth_uid(connection: Connection, adopts: bool) -> list[str]:
    """Tell of an auth.uid() that was there before us: it may be of any kind."""
    if not await connection.fetchval(query("auth_uid_exists")):
        return []
    wrong = await probe_auth_uid(connection)
    found = f", though {wrong}" if wrong else ": it works"
    return [f"leave auth.uid() as it is{found}"] if wrong or adopts else []


async def _left_alone(connection: Connection) -> list[str]:
    """Tell what an adopted database keeps as it was, where that may surprise."""
    rows = await connection.fetch(query("tables_without_rls"))
    return [
        f"leave row-level security OFF on {row['name']}: everybody may "
        f"{'subscribe to every channel' if row['name'].endswith('channels') else 'publish to every channel'} "
        "(see `check`)"
        for row in rows
    ]


# ---- doing it ----------------------------------------------------------------------------------------------


async def _lock(connection: Connection, tables: set[str]) -> None:
    """Lock all tables that steps need for themselves, before anything that takes long: no step is undone because the lock of
    a later one could not be had. In the order of their names, which is the order in which publishing uses them.
    A table that is not there yet needs no lock; where we may not lock, the step itself fails with a better message."""
    for table in sorted(tables):
        if await connection.fetchval(query("may_lock"), table):
            await connection.execute(written_out("lock_table", table))


async def _apply(connection: Connection, migration: Migration, steps: list[Step]) -> None:
    for step in steps:
        await _run(connection, step)
    await connection.execute(query("create_schema_migrations"))
    await connection.execute(query("record_migration"), migration.version, migration.name)


async def _run(connection: Connection, step: Step) -> None:
    with _naming(step):
        await connection.execute(step.sql)


# ---- refusals, before anything is done --------------------------------------------------------------------

_REPLACED = re.compile(r"CREATE OR REPLACE FUNCTION realtime\.(\w+)\(([^)]*)\)")


async def _refuse_what_lacks_rights(connection: Connection) -> None:
    """Refuse for everything that this role lacks at once: otherwise each grant leads to the next refusal. What is not
    foreseen here is refused by the step that needs it.

    Raises:
        MigrationError: with the statements that give it.
    """
    pending = await _pending_as_far_as_known(connection)
    functions = [f"{name}/{_inputs(arguments)}" for name, arguments in _REPLACED.findall(FUNCTIONS.sql)]
    never = any(migration.version == 1 for migration in pending)
    rows = await connection.fetch(query("migrate_lacks"), functions, bool(pending), never)
    if rows:
        me = await connection.fetchrow(query("migrator"))
        assert me is not None
        raise MigrationError(
            f"the role {me['user']} is not allowed to migrate this database, and nothing was changed. An administrator can: "
            f"{'; '.join(row['cure'] for row in rows)}. "
            "Or run `migrate` as a role that may; docs/database.md lists what is needed"
        )


def _inputs(arguments: str) -> int:
    return sum(not argument.lstrip().startswith("OUT ") for argument in arguments.split(",") if argument.strip())


async def _pending_as_far_as_known(connection: Connection) -> list[Migration]:
    """Return those that are pending; where we may not even look, all of them."""
    try:
        async with connection.transaction():
            return await _pending(connection)
    except _NotAllowedError:
        return migrations()


# ---- refusals ----------------------------------------------------------------------------------------------


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
