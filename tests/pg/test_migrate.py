"""The way to the current schema: from nothing, from an incumbent's database, by many at once, by a plain role."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from insforge_realtime.errors import MigrationError, Unauthorized
from insforge_realtime.model import Identity, Publication, Role
from insforge_realtime.pg import migrate as migration
from insforge_realtime.pg.authorizer import Authorizer
from insforge_realtime.pg.database import Database
from insforge_realtime.pg.migrate import FUNCTIONS, migrate, plan
from insforge_realtime.pg.publishers import ClientPublisher
from support.databases import Cluster, running_cluster, wait_until
from support.feeds import listening
from support.incumbent import INCUMBENT

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

ALICE = "a11ce000-0000-4000-8000-000000000001"
ROLES = ("anon", "authenticated", "project_admin")

CHECKSUM = """
SELECT md5(string_agg(concat_ws('|', id, event_name, channel_id, channel_name, payload, sender_type, sender_id,
    ws_audience_count, wh_audience_count, wh_delivered_count, created_at), E'\\n' ORDER BY id)) || count(*)
FROM realtime.messages
UNION ALL
SELECT md5(string_agg(
    concat_ws('|', id, pattern, description, webhook_urls, enabled, created_at, updated_at), E'\\n' ORDER BY id))
FROM realtime.channels
"""

# Everything of a database that a migration could touch, one line each.
LISTING = """
SELECT 'table ' || c.oid::regclass || ' ' || c.relkind::text || ' ' || c.relrowsecurity || ' ' || c.relfilenode
       || coalesce(c.reloptions::text, '') || coalesce(c.relacl::text, '') FROM pg_class c
WHERE c.relnamespace::regnamespace::text IN ('realtime', 'auth', 'public')
UNION ALL SELECT 'column ' || attrelid::regclass || '.' || attname || ' ' || format_type(atttypid, atttypmod) || attnotnull
       || attidentity::text || coalesce(pg_get_expr(d.adbin, d.adrelid), '')
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid LEFT JOIN pg_attrdef d ON d.adrelid = attrelid AND d.adnum = attnum
WHERE c.relnamespace::regnamespace::text IN ('realtime', 'auth', 'public') AND attnum > 0
UNION ALL SELECT 'function ' || p.oid::regprocedure || md5(pg_get_functiondef(p.oid))
       || coalesce(p.proacl::text, '') FROM pg_proc p
WHERE p.pronamespace::regnamespace::text IN ('realtime', 'auth', 'public')
UNION ALL SELECT 'trigger ' || pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT 'policy ' || policyname || tablename || roles::text || cmd
       || coalesce(qual, '') || coalesce(with_check, '') FROM pg_policies
UNION ALL SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname = 'realtime'
UNION ALL SELECT 'constraint ' || conname || pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = to_regnamespace('realtime')
UNION ALL SELECT 'schema ' || nspname || coalesce(nspacl::text, '') FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp'
UNION ALL SELECT 'role ' || rolname FROM pg_roles WHERE rolname IN ('anon', 'authenticated', 'project_admin')
UNION ALL SELECT 'member ' || m.roleid::regrole || ' ' || m.member::regrole FROM pg_auth_members m
ORDER BY 1
"""


@asynccontextmanager
async def connection_to(url: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def listing(url: str) -> list[str]:
    async with connection_to(url) as connection:
        return [row[0] for row in await connection.fetch(LISTING)]


async def run(url: str, sql: str) -> None:
    async with connection_to(url) as connection:
        await connection.execute(sql)


async def ask(url: str, sql: str) -> object:
    async with connection_to(url) as connection:
        return await connection.fetchval(sql)


def as_user(url: str, user: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{user}:secret@{parts.hostname}:{parts.port}"))


@pytest.fixture
async def empty(cluster: Cluster) -> AsyncIterator[str]:
    url = await cluster.database("empty")
    yield url
    await cluster.drop(url)


@pytest.fixture
async def incumbent(cluster: Cluster) -> AsyncIterator[str]:
    url = await cluster.database("empty")
    await run(url, INCUMBENT)
    yield url
    await cluster.drop(url)


@pytest.fixture(params=[15, 18], ids=["pg15", "pg18"])
async def bare(request: pytest.FixtureRequest) -> AsyncIterator[Cluster]:
    """A server of the test's own, whose roles nobody else's tests need."""
    with running_cluster(request.param) as postgres:
        yield Cluster(postgres, request.param)


# ---- from nothing, and again -------------------------------------------------------------------------------


async def test_an_empty_database_becomes_a_working_one_and_stays_as_it_is(empty: str) -> None:
    first = await migrate(Database(empty))
    assert "create the schema realtime" in first
    before = await listing(empty)
    assert await plan(Database(empty)) == await migrate(Database(empty)) == [FUNCTIONS.what]
    assert await listing(empty) == before
    async with connection_to(empty) as connection:
        assert await migration.is_current(connection)
        await connection.execute("INSERT INTO realtime.channels (pattern) VALUES ('a:%')")
        assert await connection.fetchval("SELECT realtime.publish('a:1', 'e', '{}')") is not None


async def test_the_dry_run_says_what_is_then_done_and_does_nothing(bare: Cluster) -> None:
    for prepare in ("SELECT 1", "CREATE SCHEMA auth", INCUMBENT):
        url = await bare.database("empty")
        await run(url, prepare)
        before = await listing(url)
        planned = await plan(Database(url))
        assert await listing(url) == before
        assert await migrate(Database(url)) == planned
        assert await listing(url) != before


async def test_racing_migrators_of_one_database_all_succeed(empty: str) -> None:
    done = await asyncio.gather(*(migrate(Database(empty)) for _ in range(8)))
    assert sorted(map(len, done))[:7] == [1] * 7
    assert await ask(empty, "SELECT count(*) FROM realtime.schema_migrations") == len(migration.migrations())


@pytest.mark.parametrize("plain", [False, True], ids=["superuser", "createrole"])
async def test_racing_migrators_of_many_databases_of_one_cluster_all_succeed(bare: Cluster, plain: bool) -> None:
    urls = [await bare.database("empty") for _ in range(4)]
    if plain:
        await bare.execute("CREATE ROLE app LOGIN CREATEROLE PASSWORD 'secret'")
        for url in urls:
            await bare.execute(f"GRANT CREATE ON DATABASE {url.rsplit('/', 1)[1]} TO app")
        urls = [as_user(url, "app") for url in urls]
    await asyncio.gather(*(migrate(Database(url)) for url in urls for _ in range(8)))
    for url in urls:
        assert await plan(Database(url)) == [FUNCTIONS.what]
        async with connection_to(url) as connection:
            for role in ROLES:
                await connection.execute(f"SET ROLE {role}; RESET ROLE")


# ---- an incumbent's database -------------------------------------------------------------------------------


async def test_an_incumbents_rows_are_adopted_and_not_one_is_lost_or_changed(incumbent: str) -> None:
    async with connection_to(incumbent) as connection:
        before = await connection.fetch(CHECKSUM)
        await migrate(Database(incumbent))
        assert await connection.fetch(CHECKSUM) == before
        assert await connection.fetchval("SELECT count(DISTINCT seq) FROM realtime.messages WHERE xid = '0'") == 5000


async def test_what_is_not_ours_is_left_alone_and_the_dry_run_tells_what_changes(incumbent: str) -> None:
    before = await listing(incumbent)
    planned = await plan(Database(incumbent))
    assert await migrate(Database(incumbent)) == planned
    after = await listing(incumbent)
    gone = {line.split("(")[0] for line in set(before) - set(after)}
    kept = ("policy ", "index ", "schema auth", "role ", "function auth.", "constraint ")
    assert not [line for line in gone if line.startswith(kept)]
    assert not [line for line in set(before) - set(after) if line.startswith("column ")]
    assert [line for line in gone if line.startswith("trigger ")] == [
        "trigger CREATE TRIGGER trg_message_notify AFTER INSERT ON realtime.messages "
        "FOR EACH ROW EXECUTE FUNCTION realtime.notify_on_message_insert"
    ]
    assert any("drop the trigger trg_message_notify" in line for line in planned)
    assert any("add the columns seq and xid" in line for line in planned)
    assert [line for line in planned if "row-level security OFF" in line] == planned[-2:]
    assert [line[:56] for line in planned if "create the table" in line or "auth.uid" in line] == [
        "create the table realtime.webhook_deliveries, with row-l",
        "create the table realtime.limits, of one row",
        "leave auth.uid() as it is, though auth.uid() raises for ",
    ]
    assert "create the function auth.jwt(): the claims of whoever asks" in planned
    assert (
        await ask(incumbent, "SELECT bool_or(relrowsecurity) FROM pg_class WHERE relname IN ('channels', 'messages')")
        is False
    )


async def test_an_incumbents_grant_to_publish_as_the_system_is_taken_back(incumbent: str) -> None:
    await migrate(Database(incumbent))
    allowed = "SELECT has_function_privilege('authenticated', 'realtime.publish(text, text, jsonb)', 'EXECUTE')"
    assert await ask(incumbent, allowed) is False


async def test_after_the_adoption_only_new_messages_are_delivered(incumbent: str) -> None:
    await migrate(Database(incumbent))
    await run(incumbent, "UPDATE realtime.channels SET enabled = false, pattern = 'fine' WHERE pattern LIKE 'odd%'")
    async with listening(incumbent, fallback=2.0) as [ear]:
        await run(incumbent, "SELECT realtime.publish('room:1', 'new', '{\"n\": 1}')")
        await wait_until(lambda: ear.messages)
    assert ear.names == ["new"]
    assert ear.messages[0].seq == 5001


LATER = [
    "create the function realtime.literal_prefix(), by which patterns are indexed",
    "create the index channels_prefix_idx, by which the patterns for a name are found among thousands",
    "leave half of each new page of realtime.messages free, so that every counter is updated in place",
    "record migration 0003_patterns_and_room",
    "add the column undeliverable to realtime.messages: why a row is passed over, NULL for all others",
    "record migration 0004_undeliverable",
    "create the table realtime.limits, of one row",
    "make realtime.literal_prefix() independent of standard_conforming_strings",
    "record migration 0005_limits",
    "let PUBLIC, anon and authenticated read every column of realtime.channels but webhook_urls "
    "(whatever they were granted there)",
    "record migration 0006_grants",
]
"""What the migrations after the second do to a database that has only our own tables."""


async def test_a_database_of_the_second_version_gets_its_index_and_room_for_counters(
    empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = migration.migrations()
    monkeypatch.setattr(migration, "migrations", lambda: every[:2])
    await migrate(Database(empty))
    await run(empty, "INSERT INTO realtime.channels (pattern) VALUES ('room:%'), ('room:a\\_b:%'), ('lobby')")
    monkeypatch.setattr(migration, "migrations", lambda: every)
    assert await migrate(Database(empty)) == [*LATER, FUNCTIONS.what]
    assert await ask(empty, "SELECT reloptions FROM pg_class WHERE oid = 'realtime.messages'::regclass") == [
        "fillfactor=50"
    ]
    prefixes = 'SELECT array_agg(realtime.literal_prefix(pattern) ORDER BY pattern COLLATE "C") FROM realtime.channels'
    assert await ask(empty, prefixes) == ["lobby", "room:", "room:a"]
    assert await ask(empty, "SELECT (realtime.find_pattern('room:1')).id = realtime.match_channel('room:1')")


async def test_a_fillfactor_of_the_owners_choice_stays(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    every = migration.migrations()
    monkeypatch.setattr(migration, "migrations", lambda: every[:2])
    await migrate(Database(empty))
    await run(empty, "ALTER TABLE realtime.messages SET (fillfactor = 70)")
    monkeypatch.setattr(migration, "migrations", lambda: every)
    assert await migrate(Database(empty)) == [*LATER[:2], *LATER[3:], FUNCTIONS.what]
    assert await ask(empty, "SELECT reloptions FROM pg_class WHERE oid = 'realtime.messages'::regclass") == [
        "fillfactor=70"
    ]


async def test_a_database_of_the_first_version_gets_the_queue_and_sends_nothing_of_the_past(
    empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = migration.migrations()
    monkeypatch.setattr(migration, "migrations", lambda: every[:1])
    await migrate(Database(empty))
    hooks = "INSERT INTO realtime.channels (pattern, webhook_urls) VALUES ('room:%', '{http://127.0.0.1:1}')"
    old = "INSERT INTO realtime.messages (event_name, channel_name) VALUES ('old', 'room:1')"
    await run(empty, f"{hooks}; {old}")
    monkeypatch.setattr(migration, "migrations", lambda: every)
    assert await migrate(Database(empty)) == [
        "create the table realtime.webhook_deliveries, with row-level security",
        "create the index webhook_deliveries_due_idx, by which the next deliveries of each host are found",
        "create the index webhook_deliveries_message_id_idx",
        "record migration 0002_webhooks",
        *LATER,
        FUNCTIONS.what,
    ]
    assert await ask(empty, "SELECT count(*) FROM realtime.webhook_deliveries") == 0
    await run(empty, "SELECT realtime.publish('room:1', 'new', '{}')")
    assert await ask(empty, "SELECT url FROM realtime.webhook_deliveries") == "http://127.0.0.1:1"


async def test_a_foreign_table_in_the_place_of_the_queue_is_an_error_and_stays_as_it_was(incumbent: str) -> None:
    await run(incumbent, "CREATE TABLE realtime.webhook_deliveries (id int, url text)")
    before = await listing(incumbent)
    with pytest.raises(MigrationError, match=r"webhook_deliveries lacks columns .*rename or drop it"):
        await migrate(Database(incumbent))
    assert await listing(incumbent) == before


async def test_grants_by_default_privileges_do_not_open_the_queue(incumbent: str) -> None:
    await run(incumbent, "ALTER DEFAULT PRIVILEGES IN SCHEMA realtime GRANT ALL ON TABLES TO anon, authenticated")
    await migrate(Database(incumbent))
    for role in ("anon", "authenticated"):
        for privilege in ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE"):
            allowed = f"SELECT has_table_privilege('{role}', 'realtime.webhook_deliveries', '{privilege}')"
            assert await ask(incumbent, allowed) is False


async def test_what_an_earlier_migration_of_the_same_run_does_changes_nothing_of_what_was_planned(
    empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All conditions are asked before the first step, also where a later migration's concerns what an earlier one makes."""
    first = migration.Step("make it", "true", "CREATE TABLE realtime.it (id int)")
    then = migration.Step("mend it", "to_regclass('realtime.it') IS NOT NULL", "DROP TABLE realtime.it")
    every = [*migration.migrations(), migration.Migration(98, "one", (first,)), migration.Migration(99, "two", (then,))]
    monkeypatch.setattr(migration, "migrations", lambda: every)
    planned = await plan(Database(empty))
    assert (first.what in planned, then.what in planned) == (True, False)
    assert await migrate(Database(empty)) == planned


# ---- auth.uid() --------------------------------------------------------------------------------------------


WORKS = """
CREATE SCHEMA auth; CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS
    $$ SELECT substring(nullif(current_setting('request.jwt.claims', true), '')::json ->> 'sub' FROM '^[^_]{36}$')::uuid $$
"""
SEARCHES = """
CREATE SCHEMA auth; CREATE FUNCTION me() RETURNS text LANGUAGE sql STABLE AS
    $$ SELECT nullif(current_setting('request.jwt.claims', true), '')::json ->> 'sub' $$;
CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE plpgsql STABLE AS
    $$ BEGIN RETURN substring(me() FROM '^[^_]{36}$')::uuid; END $$
"""
RAISES = """
CREATE SCHEMA IF NOT EXISTS auth; CREATE OR REPLACE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS
    $$ SELECT (nullif(current_setting('request.jwt.claims', true), '')::json ->> 'sub')::uuid $$
"""


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        (WORKS, "leave auth.uid() as it is: it works"),
        (SEARCHES, "leave auth.uid() as it is: it works"),
        (RAISES, "raises for a token whose sub is not a uuid"),
    ],
    ids=["works", "works by its search_path", "raises"],
)
async def test_an_auth_uid_that_was_there_before_is_tried(empty: str, theirs: str, said: str) -> None:
    await run(empty, theirs)
    before = await ask(empty, "SELECT pg_get_functiondef('auth.uid()'::regprocedure)")
    planned = await plan(Database(empty))
    assert said in planned[-1]
    assert await migrate(Database(empty)) == planned
    assert await ask(empty, "SELECT pg_get_functiondef('auth.uid()'::regprocedure)") == before


async def test_an_auth_uid_that_was_spoilt_later_is_told_of_by_every_migrate(empty: str) -> None:
    assert not [line for line in await migrate(Database(empty)) if "leave auth.uid()" in line]
    await run(empty, RAISES)
    for line in (await plan(Database(empty)), await migrate(Database(empty)), await migrate(Database(empty))):
        assert line[0] == FUNCTIONS.what
        assert "raises for a token whose sub is not a uuid" in line[1]


# ---- refusals ----------------------------------------------------------------------------------------------


async def test_a_migration_that_fails_leaves_nothing_behind(bare: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    url = await bare.database("empty")
    before = await listing(url)
    broken = migration.Step(FUNCTIONS.what, "true", FUNCTIONS.sql + "; SELECT 1 / 0")
    monkeypatch.setattr(migration, "FUNCTIONS", broken)
    with pytest.raises(MigrationError, match="division by zero"):
        await migrate(Database(url))
    assert await listing(url) == before
    assert not [line for line in before if line.startswith("role ")]


async def test_a_table_that_cannot_be_adopted_is_an_error_and_stays_as_it_was(incumbent: str) -> None:
    await run(incumbent, "ALTER TABLE realtime.messages DROP COLUMN sender_type CASCADE")
    before = await listing(incumbent)
    with pytest.raises(MigrationError, match="lacks columns"):
        await migrate(Database(incumbent))
    assert await listing(incumbent) == before


async def test_a_database_that_cannot_be_reached_is_a_migration_error(cluster: Cluster) -> None:
    for run_it in (plan, migrate):
        with pytest.raises(MigrationError, match="does not exist"):
            await run_it(Database(cluster.postgres.url("nowhere")))


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
async def test_a_database_of_another_encoding_is_refused_by_name(cluster: Cluster, encoding: str) -> None:
    name = f"app_{encoding.lower()}"
    await cluster.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    url = cluster.postgres.url(name)
    before = await listing(url)
    for run_it in (plan, migrate):
        with pytest.raises(MigrationError, match=rf"^the database {name} is {encoding}.*ENCODING 'UTF8'"):
            await run_it(Database(url))
    assert await listing(url) == before
    await cluster.drop(url)


async def test_a_postgresql_that_is_too_old_is_refused(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migration, "OLDEST_VERSION", 99)
    with pytest.raises(MigrationError, match="99 or newer"):
        await migrate(Database(empty))


# ---- a plain role ------------------------------------------------------------------------------------------


async def _end(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def serve_something(url: str) -> None:
    """What a server does all day, on its own connections: judge, publish as a client, deliver."""
    await run(
        url,
        "INSERT INTO realtime.channels (pattern) VALUES ('chat:%'), ('private');"
        "CREATE POLICY chat_read ON realtime.channels FOR SELECT TO authenticated"
        "  USING (pattern = 'chat:%' AND auth.uid() IS NOT NULL);"
        "CREATE POLICY chat_write ON realtime.messages FOR INSERT TO authenticated WITH CHECK (channel_name LIKE 'chat:%')",
    )
    alice = Identity(Role.AUTHENTICATED, json.dumps({"sub": ALICE, "role": "authenticated"}), ALICE)
    authorizer, store = Authorizer(Database(url, connections=1)), ClientPublisher(Database(url, connections=1))
    tasks = [asyncio.create_task(part.coalescer.run()) for part in (authorizer, store)]
    try:
        async with listening(url, fallback=2.0) as [ear]:
            await wait_until(lambda: authorizer.coalescer.live and store.coalescer.live)
            await authorizer.check_subscribe(alice, "chat:1")
            await authorizer.check_subscribe(Identity(Role.PROJECT_ADMIN, "{}"), "private")
            for identity, channel in ((alice, "private"), (Identity(Role.ANON, "{}"), "chat:1")):
                with pytest.raises(Unauthorized):
                    await authorizer.check_subscribe(identity, channel)
            message_id = await store.publish(Publication(alice, "chat:1", "hi", '{"a":1}'))
            await run(url, "SELECT realtime.publish('private', 'system_says', '{}')")
            await wait_until(lambda: len(ear.messages) == 2)
    finally:
        await _end(*tasks)
    first, second = (json.loads(message.event) for message in ear.messages)
    assert (first[0], first[1]["meta"]["messageId"], first[1]["meta"]["senderId"]) == ("hi", message_id, ALICE)
    assert (second[0], second[1]["meta"]["senderType"]) == ("system_says", "system")


async def plain_database(bare: Cluster, *statements: str) -> str:
    """The URL of an empty database for the role `the server`, which is no superuser."""
    url = await bare.database("empty")
    await bare.execute("CREATE ROLE \"the server\" LOGIN PASSWORD 'secret'")
    for statement in statements:
        await bare.execute(statement.format(user='"the server"', database=url.rsplit("/", 1)[1]))
    return as_user(url, "the%20server")


CREATE_ROLES = "CREATE ROLE anon NOLOGIN; CREATE ROLE authenticated NOLOGIN; CREATE ROLE project_admin NOLOGIN"


async def test_a_role_that_may_create_roles_can_migrate_and_serve(bare: Cluster) -> None:
    url = await plain_database(bare, "ALTER ROLE {user} CREATEROLE", "GRANT CREATE ON DATABASE {database} TO {user}")
    assert await plan(Database(url)) == await migrate(Database(url))
    assert await migrate(Database(url)) == [FUNCTIONS.what]
    await serve_something(url)


async def test_a_role_that_is_a_member_of_the_three_can_migrate_and_serve(bare: Cluster) -> None:
    url = await plain_database(
        bare,
        CREATE_ROLES,
        "GRANT anon, authenticated, project_admin TO {user}",
        "GRANT CREATE ON DATABASE {database} TO {user}",
    )
    done = await migrate(Database(url))
    assert not [line for line in done if "role a" in line or "member" in line]
    await serve_something(url)


THREE = "anon, authenticated, project_admin"


@pytest.mark.parametrize(
    ("granted", "missing"),
    [
        (
            [],
            [
                *(f"CREATE ROLE {role} NOLOGIN" for role in ROLES),
                f"GRANT {THREE} TO {{user}}",
                "GRANT CREATE ON DATABASE {database} TO {user}",
            ],
        ),
        ([CREATE_ROLES], [f"GRANT {THREE} TO {{user}}", "GRANT CREATE ON DATABASE {database} TO {user}"]),
        (
            [
                "CREATE ROLE authenticated NOLOGIN; GRANT authenticated TO {user}",
                "GRANT CREATE ON DATABASE {database} TO {user}",
            ],
            ["CREATE ROLE anon NOLOGIN", "CREATE ROLE project_admin NOLOGIN", "GRANT anon, project_admin TO {user}"],
        ),
        (["ALTER ROLE {user} CREATEROLE"], ["GRANT CREATE ON DATABASE {database} TO {user}"]),
        (
            [CREATE_ROLES, f"GRANT {THREE} TO {{user}}"],
            ["GRANT CREATE ON DATABASE {database} TO {user}"],
        ),
    ],
    ids=["nothing", "the roles", "one role", "creating roles", "membership"],
)  # fmt: skip
async def test_all_that_a_role_lacks_is_named_at_once_and_is_enough(
    bare: Cluster, granted: list[str], missing: list[str]
) -> None:
    url = await plain_database(bare, *granted)
    before = await listing(url)
    refusals = set()
    for run_it in (plan, migrate):
        with pytest.raises(MigrationError, match=r"not allowed to .*docs/database\.md") as refused:
            await run_it(Database(url))
        refusals.add(str(refused.value))
    [refusal] = refusals
    cure = "; ".join(missing).format(user='"the server"', database=url.rsplit("/", 1)[1])
    assert f"An administrator can: {cure}. Or run" in refusal
    assert "\n" not in refusal
    assert await listing(url) == before
    await run(as_admin(bare, url), cure)
    assert await plan(Database(url)) == await migrate(Database(url))
    await serve_something(url)


def as_admin(bare: Cluster, url: str) -> str:
    return bare.postgres.url(url.rsplit("/", 1)[1])


def cure_of(refused: pytest.ExceptionInfo[MigrationError]) -> str:
    return str(refused.value).partition("An administrator can: ")[2].partition(". Or run")[0]


@pytest.mark.parametrize("granted", ["SELECT 1", "GRANT USAGE, CREATE ON SCHEMA realtime TO app"])
async def test_an_incumbent_of_another_owner_says_so(bare: Cluster, granted: str) -> None:
    """And becomes ours once it was handed over, as the one error says."""
    url = await bare.database("empty")
    await run(url, INCUMBENT)
    await bare.execute("CREATE ROLE app LOGIN PASSWORD 'secret'")
    await run(url, granted)
    mine = as_user(url, "app")
    before = await listing(url)
    with pytest.raises(MigrationError) as planned:
        await plan(Database(mine))
    with pytest.raises(MigrationError) as refused:
        await migrate(Database(mine))
    assert await listing(url) == before
    assert cure_of(planned) == cure_of(refused)
    for cure in (f"GRANT {THREE} TO app", "GRANT USAGE, CREATE ON SCHEMA auth TO app",
                 "ALTER TABLE realtime.channels OWNER TO app", "ALTER TABLE realtime.messages OWNER TO app",
                 "ALTER FUNCTION realtime.publish(text, text, jsonb) OWNER TO app"):  # fmt: skip
        assert cure in cure_of(refused)
    await run(url, cure_of(refused))
    await migrate(Database(mine))
    await run(url, "UPDATE realtime.channels SET pattern = 'odd' WHERE pattern LIKE 'odd%'")
    await run(url, "ALTER TABLE realtime.channels ENABLE ROW LEVEL SECURITY")
    async with Database(mine).connected("test") as connection:
        assert await connection.fetchval("SELECT count(*) FROM realtime.messages") == 5000


async def test_another_role_that_migrates_what_was_migrated_is_told_all_that_it_lacks(bare: Cluster) -> None:
    url = await bare.database("empty")
    await migrate(Database(url))
    await run(url, "CREATE FUNCTION realtime.theirs() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    await bare.execute("CREATE ROLE app LOGIN PASSWORD 'secret'; GRANT anon, authenticated, project_admin TO app")
    mine = as_user(url, "app")
    with pytest.raises(MigrationError) as refused:
        await migrate(Database(mine))
    assert "theirs" not in cure_of(refused)
    await run(url, cure_of(refused))
    assert (await migrate(Database(mine)))[0] == FUNCTIONS.what


async def test_a_migration_with_nothing_to_do_needs_no_tables_of_its_own(bare: Cluster) -> None:
    """Only the functions are put in place each time."""
    url = await plain_database(
        bare, CREATE_ROLES, f"GRANT {THREE} TO {{user}}", "GRANT CREATE ON DATABASE {database} TO {user}"
    )
    await migrate(Database(url))
    await run(
        as_admin(bare, url),
        'ALTER TABLE realtime.limits OWNER TO postgres; GRANT SELECT ON realtime.limits TO "the server"',
    )
    assert await migrate(Database(url)) == [FUNCTIONS.what]


HAND_OVER = """
ALTER SCHEMA realtime OWNER TO app;
ALTER TABLE realtime.channels OWNER TO app;
ALTER TABLE realtime.messages OWNER TO app;
DO $$
DECLARE f regprocedure;
BEGIN
    FOR f IN SELECT oid FROM pg_proc WHERE pronamespace = 'realtime'::regnamespace LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO app', f);
    END LOOP;
END $$
"""


# ---- what docs/database.md says ----------------------------------------------------------------------------

DOCS = Path(__file__).parents[2] / "docs" / "database.md"


def documented(word: str) -> str:
    """The SQL of the example that has this word in it."""
    blocks = re.findall(r"^```sql\n(.*?)^```", DOCS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    [block] = [block for block in blocks if word in block]
    return str(block)


async def test_the_documented_grants_are_enough_to_migrate_and_serve(bare: Cluster) -> None:
    url = await bare.database("empty")
    grants = documented("CREATE ROLE realtime_server").replace("'…'", "'secret'")
    await run(url, grants.replace("DATABASE app", f"DATABASE {url.rsplit('/', 1)[1]}"))
    mine = as_user(url, "realtime_server")
    await migrate(Database(mine))
    await serve_something(mine)


async def test_the_documented_hand_over_is_enough_to_adopt(bare: Cluster) -> None:
    url = await bare.database("empty")
    await run(url, INCUMBENT)
    grants = documented("CREATE ROLE realtime_server").replace("'…'", "'secret'")
    await run(
        url, "".join(line for line in grants.splitlines(True) if "NOLOGIN" not in line and "DATABASE" not in line)
    )
    await run(url, "GRANT USAGE, CREATE ON SCHEMA auth TO realtime_server")
    await run(url, documented("ALTER SCHEMA realtime OWNER"))
    await run(url, HAND_OVER.replace("TO app", "TO realtime_server"))
    mine = as_user(url, "realtime_server")
    await migrate(Database(mine))
    await run(mine, documented("ENABLE ROW LEVEL SECURITY"))
    await run(mine, "SELECT realtime.publish('off', 'e', '{}')")


async def test_the_documented_policies_and_trigger_work(database: str) -> None:
    await run(
        database,
        "CREATE TABLE orders (id uuid PRIMARY KEY, user_id uuid, status text);"
        "CREATE TABLE team_members (team_id uuid, user_id uuid);"
        f"INSERT INTO team_members VALUES ('{ALICE}', '{ALICE}');"
        "GRANT SELECT ON orders, team_members TO authenticated",
    )
    for word in ("lobby", "lobby_is_open", "own_orders", "members_write", "tell_about_order"):
        await run(database, documented(word if word != "lobby" else "'One channel'"))
    await run(database, f"INSERT INTO orders VALUES ('{ALICE}', '{ALICE}', 'new')")
    asked = [f"order:{ALICE}", "order:abc", "lobby", "team:x"]
    claims = json.dumps({"sub": ALICE})
    async with connection_to(database) as connection:
        verdicts = await connection.fetchval(
            "SELECT realtime.check_subscribe($1, $2, $3)", ["authenticated"] * 4, [claims] * 4, asked
        )
        assert [verdict.split()[0] for verdict in verdicts] == ["yes", "no", "yes", "no"]
        teams = [f"team:{ALICE}", "team:x"]
        published = await connection.fetchval(
            "SELECT realtime.publish_as($1, $2, $3, $4, $5)",
            ["authenticated"] * 2, [claims] * 2, teams, ["e"] * 2, ["{}"] * 2,
        )  # fmt: skip
        assert [verdict[:2] for verdict in published] == ["ok", "no"]
        events = await connection.fetch("SELECT event_name FROM realtime.messages ORDER BY seq")
    assert [row[0] for row in events] == ["INSERT_order", "e"]
