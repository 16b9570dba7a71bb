"""Migrations beside applications that work: whom a migration makes wait, for how long, and what it says while it waits."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from insforge_realtime.errors import MigrationError
from insforge_realtime.pg import migrate as migration
from insforge_realtime.pg import patience
from insforge_realtime.pg.database import Database
from insforge_realtime.pg.migrate import FUNCTIONS, Migration, Step, plan
from support.databases import MAJORS, Cluster, running_cluster, wait_until
from support.incumbent import INCUMBENT

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

PUBLISH = "SELECT realtime.publish('room:1', 'e', '{\"password\": \"hunter2\"}')"
ADD_COLUMN = Step("add a column", "true", "ALTER TABLE realtime.messages ADD COLUMN extra integer")


@asynccontextmanager
async def connection_to(url: str, **settings: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(url, server_settings=settings)
    try:
        yield connection
    finally:
        connection.terminate()


async def migrate(url: str, **options: Any) -> list[str]:
    """What the command does, for no longer than a test has patience."""
    async with asyncio.timeout(60):
        return await migration.migrate(Database(url), **options)


async def run(url: str, *statements: str) -> None:
    async with connection_to(url) as connection:
        for statement in statements:
            await connection.execute(statement)


async def ask(url: str, sql: str) -> object:
    async with connection_to(url) as connection:
        return await connection.fetchval(sql)


@pytest.fixture
async def empty(cluster: Cluster) -> AsyncIterator[str]:
    """A database with nothing in it."""
    url = await cluster.database("empty")
    yield url
    await cluster.drop(url)


@pytest.fixture
async def channels(database: str) -> str:
    """A migrated database with one channel pattern."""
    await run(database, "INSERT INTO realtime.channels (pattern) VALUES ('room:%')")
    return database


def has_to_change_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on there is a migration to come, which changes the table that everybody writes to."""
    every = [*migration.migrations(), Migration(9999, "9999_later", (ADD_COLUMN,))]
    monkeypatch.setattr(migration, "migrations", lambda: every)


@pytest.fixture
def outdated(channels: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database with one channel pattern and a migration to come."""
    has_to_change_the_table(monkeypatch)
    return channels


@asynccontextmanager
async def open_transaction(url: str, *statements: str) -> AsyncIterator[Connection]:
    """An application that has published, and now waits for something else."""
    async with connection_to(url, application_name="an application") as connection:
        await connection.execute("BEGIN")
        for statement in statements or (PUBLISH,):
            await connection.execute(statement)
        yield connection


@asynccontextmanager
async def writing(url: str) -> AsyncIterator[list[float]]:
    """Somebody who publishes all the time: how long each publish took, in seconds."""
    took: list[float] = []

    async def write() -> None:
        async with connection_to(url) as connection:
            while True:
                began = time.monotonic()
                await connection.execute(PUBLISH)
                took.append(time.monotonic() - began)
                await asyncio.sleep(0.01)

    writer = asyncio.create_task(write())
    try:
        yield took
        assert not writer.done(), "an application's write failed"
    finally:
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What migrations say while they wait; they try again soon."""
    monkeypatch.setattr(patience, "FIRST_PAUSE", 0.2)
    monkeypatch.setattr(patience, "LONGEST_PAUSE", 0.3)
    return []


# ---- nothing to do -----------------------------------------------------------------------------------------


async def test_a_migrate_with_nothing_to_do_waits_for_nobody_and_nobody_for_it(channels: str) -> None:
    async with open_transaction(channels), writing(channels) as took:
        async with asyncio.timeout(20):
            assert await migrate(channels) == [FUNCTIONS.what]
        await wait_until(lambda: took)
    assert max(took) < patience.SHORT_SECONDS


async def test_a_migrate_with_nothing_to_do_takes_no_lock_that_anybody_could_notice(
    channels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run(channels, "CREATE TABLE taken (name text, mode text)")
    watched = FUNCTIONS.sql + (
        "; INSERT INTO public.taken SELECT relation::regclass, mode FROM pg_locks WHERE pid = pg_backend_pid()"
        " AND relation IN (SELECT oid FROM pg_class WHERE relnamespace = 'realtime'::regnamespace)"
    )
    monkeypatch.setattr(migration, "FUNCTIONS", Step(FUNCTIONS.what, "true", watched))
    assert await migrate(channels) == [FUNCTIONS.what]
    assert await ask(channels, "SELECT count(*) FROM taken") != 0
    assert await ask(channels, "SELECT array_agg(DISTINCT mode) FROM taken") == ["AccessShareLock"]


@pytest.mark.parametrize(
    ("spoilt", "mended"),
    [
        ("ALTER TABLE realtime.messages DISABLE TRIGGER ring", ["ring"]),
        ("ALTER TABLE realtime.messages ENABLE TRIGGER queue_webhooks", ["queue_webhooks"]),
        ("ALTER TABLE realtime.messages ENABLE ALWAYS TRIGGER stamp_message", ["stamp_message"]),
        ("DROP TRIGGER stamp_message ON realtime.messages; DROP TRIGGER retire_copy ON realtime.messages",
         ["retire_copy", "stamp_message"]),
        ("CREATE OR REPLACE TRIGGER ring AFTER INSERT ON realtime.messages FOR EACH ROW EXECUTE FUNCTION realtime.ring()",
         ["ring"]),
        ("CREATE OR REPLACE TRIGGER stamp_message BEFORE INSERT ON realtime.messages FOR EACH ROW"
         " WHEN (current_user <> 'gone') EXECUTE FUNCTION realtime.stamp_message()", ["stamp_message"]),
        ("CREATE FUNCTION theirs() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
         "CREATE OR REPLACE TRIGGER keep_history BEFORE UPDATE OF xid, seq ON realtime.messages FOR EACH ROW"
         " WHEN (NEW.xid <> OLD.xid OR NEW.seq <> OLD.seq) EXECUTE FUNCTION theirs()", ["keep_history"]),
    ],
)  # fmt: skip
async def test_only_the_triggers_that_differ_are_replaced(database: str, spoilt: str, mended: list[str]) -> None:
    before = await ask(database, TRIGGERS)
    await run(database, spoilt)
    assert await ask(database, TRIGGERS) != before
    planned = await plan(Database(database))
    assert [line.split()[3] for line in planned[1:]] == mended
    assert await migrate(database) == planned
    assert await ask(database, TRIGGERS) == before
    assert await migrate(database) == [FUNCTIONS.what]


TRIGGERS = """
SELECT string_agg(pg_get_triggerdef(oid) || tgenabled::text, E'\\n' ORDER BY tgname) FROM pg_trigger
WHERE tgrelid = 'realtime.messages'::regclass AND NOT tgisinternal
"""


async def test_triggers_are_recognised_whatever_the_roles_search_path_is(newest: Cluster) -> None:
    url = await newest.database()
    await run(url, f"ALTER DATABASE {url.rsplit('/', 1)[1]} SET search_path = realtime, auth, public")
    assert await plan(Database(url)) == await migrate(url) == [FUNCTIONS.what]
    await newest.drop(url)


# ---- something to do ---------------------------------------------------------------------------------------


async def test_writers_pass_while_a_migration_waits_and_it_tells_for_whom(outdated: str, impatient: list[str]) -> None:
    async with writing(outdated) as took, open_transaction(outdated) as idle:
        pid = await idle.fetchval("SELECT pg_backend_pid()")
        migrating = asyncio.create_task(migrate(outdated, tell=impatient.append))
        await wait_until(lambda: len(impatient) > 3)
        during = len(took)
        await wait_until(lambda: len(took) > during + 20)
        assert not migrating.done()
        await idle.execute("ROLLBACK")
        assert ADD_COLUMN.what in await migrating
    # Two cores, shared: what a publish itself may take is added to what it may wait.
    assert max(took) < 2 * patience.SHORT_SECONDS
    for line in impatient[1:]:
        assert line.startswith(
            f"waiting for realtime.messages, held by pid {pid} (an application, user postgres, idle in"
        )
        assert "in a transaction since 20" in line
        assert "last statement: SELECT)" in line
        assert "hunter2" not in line


async def test_a_migration_gives_up_in_time_names_who_is_in_its_way_and_changes_nothing(
    outdated: str, impatient: list[str]
) -> None:
    lock = "INSERT INTO realtime.channels (pattern) VALUES ('secret'); LOCK TABLE realtime.messages IN SHARE MODE"
    async with open_transaction(outdated, f"/* a 'comment' */ -- another\n {lock}") as idle:
        pid = await idle.fetchval("SELECT pg_backend_pid()")
        began = time.monotonic()
        with pytest.raises(MigrationError) as gave_up:
            await migrate(outdated, lock_wait=1.5, tell=impatient.append)
        assert 1.5 <= time.monotonic() - began < 10
    for part in ("nothing was changed", f"pid {pid} (an application", f"pg_terminate_backend({pid})", "--lock-wait"):
        assert part in str(gave_up.value)
    assert impatient
    assert ADD_COLUMN.what in await plan(Database(outdated)), "it is still to be done"


async def test_what_a_plain_role_may_not_see_of_a_session_is_left_out(
    newest: Cluster, impatient: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    await newest.execute("CREATE ROLE \"plain owner\" LOGIN PASSWORD 'secret'")
    url = await newest.database()
    await run(
        url,
        "INSERT INTO realtime.channels (pattern) VALUES ('room:%')",
        OWNED_BY_A_PLAIN_ROLE,
    )
    mine = f"postgresql://plain%20owner:secret@{url.rsplit('@', 1)[1]}"
    has_to_change_the_table(monkeypatch)
    async with open_transaction(url):
        with pytest.raises(MigrationError, match=r"an application, user postgres\)"):
            await migrate(mine, lock_wait=0, tell=impatient.append)
    assert ADD_COLUMN.what in await migrate(mine)
    await newest.drop(url)
    await newest.execute('DROP ROLE "plain owner"')


OWNED_BY_A_PLAIN_ROLE = """
ALTER SCHEMA realtime OWNER TO "plain owner"; GRANT anon, authenticated, project_admin TO "plain owner";
GRANT USAGE ON SCHEMA auth TO "plain owner";
DO $$
DECLARE f record;
BEGIN
    FOR f IN SELECT oid::regclass AS name FROM pg_class WHERE relnamespace = 'realtime'::regnamespace AND relkind = 'r' LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO "plain owner"', f.name);
    END LOOP;
    FOR f IN SELECT oid::regclass AS name FROM pg_class WHERE relnamespace = 'realtime'::regnamespace AND relkind = 'S'
             AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = pg_class.oid AND d.deptype = 'i') LOOP
        EXECUTE format('ALTER SEQUENCE %s OWNER TO "plain owner"', f.name);
    END LOOP;
    FOR f IN SELECT oid::regprocedure AS name FROM pg_proc WHERE pronamespace = 'realtime'::regnamespace LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO "plain owner"', f.name);
    END LOOP;
END $$
"""


async def test_a_second_migration_waits_for_the_first_and_says_so(channels: str, impatient: list[str]) -> None:
    async with connection_to(channels, application_name="insforge-realtime migrate") as first:
        await first.execute(f"BEGIN; SELECT pg_advisory_xact_lock({migration.LOCK})")
        second = asyncio.create_task(migrate(channels, tell=impatient.append))
        await wait_until(lambda: len(impatient) > 1)
        assert not second.done()
        await first.execute("COMMIT")
        assert await second == [FUNCTIONS.what]
    assert "the lock of migrations, held by pid" in impatient[-1]
    assert "(insforge-realtime migrate, " in impatient[-1]


@pytest.mark.parametrize("major", MAJORS)
async def test_a_prepared_transaction_in_the_way_is_named_with_its_cure(major: int, impatient: list[str]) -> None:
    with running_cluster(major, max_prepared_transactions="5") as postgres:
        await migrate(postgres.dsn)
        await run(postgres.dsn, "ALTER TABLE realtime.messages DISABLE TRIGGER ring")
        async with connection_to(postgres.dsn) as connection:
            await connection.execute("INSERT INTO realtime.channels (pattern) VALUES ('room:%')")
            for gid, statement in (("it's mine", PUBLISH), ("another's", "SELECT 1")):
                await connection.execute("BEGIN")
                await connection.execute(statement)
                await connection.execute(f"PREPARE TRANSACTION '{gid.replace(chr(39), chr(39) * 2)}'")
        with pytest.raises(MigrationError) as gave_up:
            await migrate(postgres.dsn, lock_wait=0.5, tell=impatient.append)
        assert "the prepared transaction 'it''s mine' (user postgres, since 20" in str(gave_up.value)
        assert "COMMIT PREPARED 'it''s mine' or ROLLBACK PREPARED 'it''s mine'" in str(gave_up.value)
        assert "another" not in str(gave_up.value)
        await run(postgres.dsn, "COMMIT PREPARED 'it''s mine'")
        assert len(await migrate(postgres.dsn)) == 2


@pytest.mark.parametrize("major", MAJORS)
async def test_an_autovacuum_gives_way_to_a_migration(major: int, impatient: list[str]) -> None:
    slow = "autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 100"
    with running_cluster(major, autovacuum_naptime="1s") as postgres:
        await migrate(postgres.dsn)
        await run(
            postgres.dsn,
            f"ALTER TABLE realtime.messages SET ({slow}, autovacuum_vacuum_cost_limit = 1)",
            "INSERT INTO realtime.messages (event_name, channel_name) SELECT 'e', 'room:1' FROM generate_series(1, 30000)",
            "DELETE FROM realtime.messages",
            "ALTER TABLE realtime.messages DISABLE TRIGGER ring",
        )
        async with connection_to(postgres.dsn) as watcher, asyncio.timeout(60):
            while not await watcher.fetchval("SELECT EXISTS (SELECT FROM pg_stat_progress_vacuum)"):
                await asyncio.sleep(0.05)
        assert len(await migrate(postgres.dsn, lock_wait=20, tell=impatient.append)) == 2
        assert "held by pid" in impatient[-1]
        assert "autovacuum" in impatient[-1]


async def test_tables_in_use_are_adopted_beneath_their_writers(empty: str) -> None:
    """Two tables have to be locked, which writers use in one order: nobody is the victim of a deadlock."""
    await run(empty, INCUMBENT)
    async with contextlib.AsyncExitStack() as stack:
        writers = [await stack.enter_async_context(writing(empty)) for _ in range(4)]
        await wait_until(lambda: all(writers))
        assert len(await migrate(empty, lock_wait=30)) > 15
        before = list(map(len, writers))
        await wait_until(lambda: all(len(took) > n + 5 for took, n in zip(writers, before, strict=True)))


async def test_a_rewrite_is_not_undone_because_another_table_is_locked(empty: str, impatient: list[str]) -> None:
    """All locks are taken first: what takes long is not begun before it can be finished."""
    await run(
        empty,
        INCUMBENT,
        "CREATE SEQUENCE rewrites",
        "CREATE FUNCTION count_rewrite() RETURNS event_trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM nextval('public.rewrites'); END $$",
        "CREATE EVENT TRIGGER count_rewrite ON table_rewrite EXECUTE FUNCTION count_rewrite()",
    )
    async with open_transaction(empty, "SELECT FROM realtime.channels") as idle:
        migrating = asyncio.create_task(migrate(empty, tell=impatient.append))
        await wait_until(lambda: len(impatient) > 2)
        await idle.execute("ROLLBACK")
        await migrating
    assert "realtime.channels" in impatient[-1]
    assert await ask(empty, "SELECT last_value FROM rewrites") == 1


async def test_time_limits_of_the_role_are_not_those_of_a_migration(newest: Cluster) -> None:
    url = await newest.database("empty")
    name = url.rsplit("/", 1)[1]
    await run(
        url,
        "CREATE FUNCTION dawdle() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.2); END $$",
        "CREATE EVENT TRIGGER dawdle ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION dawdle()",
        *(f"ALTER DATABASE {name} SET {limit} = '150ms'" for limit in
          ("statement_timeout", "transaction_timeout", "idle_in_transaction_session_timeout")),
        f"ALTER DATABASE {name} SET lock_timeout = '1ms'",
    )  # fmt: skip
    async with asyncio.timeout(30):
        assert len(await migrate(url)) > 20
    await newest.drop(url)
