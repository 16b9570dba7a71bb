"""What clients' roles may read of the schema realtime: everything that judges them, and no webhook URL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from insforge_realtime.pg import migrate as migration
from insforge_realtime.pg.database import Database
from insforge_realtime.pg.migrate import FUNCTIONS, migrate, plan
from insforge_realtime.pg.queries import query
from support.databases import Cluster

CLIENTS = ("anon", "authenticated")
NARROWED = (
    "let PUBLIC, anon and authenticated read every column of realtime.channels but webhook_urls "
    "(whatever they were granted there)"
)
LEFT = "leave realtime.channels.webhook_urls readable for clients: a policy of another table reads it (see `check`)"
RECORDED = "record migration 0006_grants"
EVERYTHING = (
    "INSERT INTO realtime.channels (pattern, webhook_urls) VALUES ('room:%', '{https://example.com/?secret=1}');"
    "CREATE POLICY read ON realtime.channels FOR SELECT TO anon, authenticated USING (true);"
    "CREATE POLICY write ON realtime.messages FOR INSERT TO anon, authenticated WITH CHECK (true);"
)


@asynccontextmanager
async def as_role(url: str, role: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A session that acts as `role`, as a REST server's does."""
    connection = await asyncpg.connect(url)
    await connection.execute(f"SET ROLE {role}")
    try:
        yield connection
    finally:
        await connection.close()


async def run(url: str, sql: str) -> None:
    async with as_role(url, "none") as connection:
        await connection.execute(sql)


async def sees_urls(url: str, role: str) -> bool:
    async with as_role(url, role) as connection:
        try:
            await connection.fetch("SELECT webhook_urls FROM realtime.channels")
        except asyncpg.InsufficientPrivilegeError:
            return False
    return True


async def judged(url: str, role: str) -> tuple[str, str]:
    """What the server answers to a subscribe and a publish."""
    async with as_role(url, "none") as connection:
        subscribe = await connection.fetchval(query("check_subscribe"), [role], ["{}"], ["room:1"])
        publish = await connection.fetchval(query("publish_as"), [role], ["{}"], ["room:1"], ["said"], ["{}"])
    return subscribe[0], publish[0]


async def before_grants(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database to which every migration but the one of the grants was applied."""
    every = migration.migrations()
    with monkeypatch.context() as patch:
        patch.setattr(migration, "migrations", lambda: [one for one in every if one.version != 6])
        await migrate(Database(url))


@pytest.fixture
async def old(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    url = await cluster.database("empty")
    await before_grants(url, monkeypatch)
    await run(url, EVERYTHING)
    yield url
    await cluster.drop(url)


@pytest.mark.parametrize("role", CLIENTS)
async def test_a_client_reads_the_row_that_it_may_subscribe_to_but_not_its_webhook_urls(
    database: str, role: str
) -> None:
    await run(database, EVERYTHING)
    async with as_role(database, role) as connection:
        columns = "id, pattern, description, enabled, created_at, updated_at"
        assert len(await connection.fetch(f"SELECT {columns} FROM realtime.channels")) == 1
        for secret in ("webhook_urls", "*", "c", "c::text", "to_json(c)"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetch(f"SELECT {secret} FROM realtime.channels c")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch("SELECT id FROM realtime.channels WHERE webhook_urls::text LIKE '%secret%'")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch("SELECT url FROM realtime.webhook_deliveries")


async def test_the_api_keys_role_still_reads_all_columns(database: str) -> None:
    await run(database, EVERYTHING)
    assert await sees_urls(database, "project_admin")


@pytest.mark.parametrize("role", CLIENTS)
async def test_clients_are_judged_as_before_and_their_messages_still_go_to_webhooks(database: str, role: str) -> None:
    await run(database, EVERYTHING)
    subscribe, publish = await judged(database, role)
    assert (subscribe, publish[:3]) == ("yes", "ok ")
    async with as_role(database, "none") as connection:
        assert (
            await connection.fetchval("SELECT url FROM realtime.webhook_deliveries") == "https://example.com/?secret=1"
        )


async def test_a_policy_of_the_channels_may_go_by_the_webhook_urls_of_its_own_row(database: str) -> None:
    await run(database, EVERYTHING.replace("USING (true)", "USING (webhook_urls IS NOT NULL)"))
    assert (await judged(database, "anon"))[0] == "yes"
    async with as_role(database, "anon") as connection:
        assert await connection.fetchval("SELECT pattern FROM realtime.channels") == "room:%"


async def test_the_grants_of_an_older_database_are_narrowed_and_the_dry_run_says_so(old: str) -> None:
    assert await sees_urls(old, "anon")
    assert await plan(Database(old)) == await migrate(Database(old)) == [NARROWED, RECORDED, FUNCTIONS.what]
    for role in CLIENTS:
        assert not await sees_urls(old, role)
        assert (await judged(old, role))[0] == "yes"
    assert await sees_urls(old, "project_admin")


WIDE = {
    "to PUBLIC": "GRANT SELECT ON realtime.channels TO PUBLIC",
    "of everything": "GRANT ALL ON realtime.channels TO anon, authenticated, PUBLIC",
    "of the column": "REVOKE SELECT ON realtime.channels FROM anon, authenticated;"
    "GRANT SELECT (id, webhook_urls) ON realtime.channels TO anon, authenticated, PUBLIC",
    "that was handed on": "GRANT SELECT ON realtime.channels TO authenticated WITH GRANT OPTION; SET ROLE authenticated;"
    "GRANT SELECT ON realtime.channels TO anon; RESET ROLE",
    "with grant option": "GRANT SELECT (webhook_urls) ON realtime.channels TO authenticated WITH GRANT OPTION;"
    "SET ROLE authenticated; GRANT SELECT (webhook_urls) ON realtime.channels TO anon; RESET ROLE",
}


@pytest.mark.parametrize("grant", WIDE)
async def test_a_wider_grant_is_narrowed_whomever_it_was_made_to(old: str, grant: str) -> None:
    await run(old, WIDE[grant])
    await migrate(Database(old))
    for role in CLIENTS:
        assert not await sees_urls(old, role)
        assert (await judged(old, role))[0] == "yes"


async def test_a_grant_on_fewer_columns_gets_no_wider(old: str) -> None:
    await run(
        old,
        "REVOKE SELECT ON realtime.channels FROM anon, authenticated;"
        "GRANT SELECT (id) ON realtime.channels TO anon, authenticated",
    )
    await migrate(Database(old))
    async with as_role(old, "anon") as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch("SELECT pattern FROM realtime.channels")
    assert (await judged(old, "anon"))[0] == "yes"


async def test_columns_of_somebody_elses_and_other_privileges_stay(old: str) -> None:
    await run(
        old,
        "ALTER TABLE realtime.channels ADD COLUMN team text DEFAULT 'red', ADD COLUMN gone int;"
        "ALTER TABLE realtime.channels DROP COLUMN gone; GRANT UPDATE ON realtime.channels TO authenticated;"
        "DROP POLICY write ON realtime.messages; CREATE POLICY teams ON realtime.messages FOR INSERT TO authenticated"
        " WITH CHECK (EXISTS (SELECT FROM realtime.channels c WHERE c.id = channel_id AND c.team = 'red'))",
    )
    await migrate(Database(old))
    assert (await judged(old, "authenticated"))[1][:3] == "ok "
    async with as_role(old, "none") as connection:
        assert await connection.fetchval("SELECT has_table_privilege('authenticated', 'realtime.channels', 'UPDATE')")


async def test_where_a_policy_of_another_table_reads_the_urls_nothing_is_taken_away_and_that_is_said(old: str) -> None:
    await run(
        old,
        "DROP POLICY write ON realtime.messages; CREATE POLICY known ON realtime.messages FOR INSERT TO anon, authenticated"
        " WITH CHECK (EXISTS (SELECT * FROM realtime.channels c WHERE c.id = channel_id))",
    )
    before = await judged(old, "anon")
    assert await plan(Database(old)) == await migrate(Database(old)) == [LEFT, RECORDED, FUNCTIONS.what]
    after = await judged(old, "anon")
    assert (before[0], before[1][:3]) == (after[0], after[1][:3]) == ("yes", "ok ")


async def test_an_empty_database_is_planned_as_it_is_then_migrated(cluster: Cluster) -> None:
    url = await cluster.database("empty")
    planned = await plan(Database(url))
    assert NARROWED in planned
    assert await migrate(Database(url)) == planned
    await cluster.drop(url)
