"""What `check` finds of messages: those that could not be delivered, copies of others', and who auth.uid() says asks."""

from __future__ import annotations

import asyncpg
import pytest

from support.databases import SERVER, Cluster, running_cluster
from support.patients import as_user, run, the_trouble, troubles

# ---- undeliverable -----------------------------------------------------------------------------------------

COLUMN = "ALTER TABLE realtime.messages ADD COLUMN IF NOT EXISTS undeliverable text;"


async def test_messages_of_the_last_day_that_could_not_be_delivered_are_counted(healthy: str, admin: str) -> None:
    await run(admin, COLUMN)
    assert await troubles(healthy) == []
    publish = "SELECT realtime.publish('order:1', 'e', '{}')"
    await run(admin, "; ".join([publish] * 3))
    newest = "WHERE seq > (SELECT max(seq) - 2 FROM realtime.messages)"
    await run(admin, f"UPDATE realtime.messages SET undeliverable = 'too large:\n 2 MB' {newest}")
    found = await the_trouble(healthy)
    assert (found.verdict, found.what) == (
        "warning",
        "2 messages of the last day could not be delivered, the newest because: too large: 2 MB",
    )
    connection = await asyncpg.connect(healthy)
    assert len(await connection.fetch(str(found.advice))) == 2
    await connection.close()
    await run(
        admin, "UPDATE realtime.messages SET created_at = now() - interval '25 hours' WHERE undeliverable IS NOT NULL"
    )
    assert await troubles(healthy) == []


# ---- copies ------------------------------------------------------------------------------------------------

TRIGGERS = """
DO $$ BEGIN
    IF to_regprocedure('realtime.retire_copy()') IS NULL THEN
        CREATE FUNCTION realtime.retire_copy() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        REVOKE ALL ON FUNCTION realtime.retire_copy() FROM PUBLIC;
        CREATE TRIGGER retire_copy BEFORE INSERT ON realtime.messages FOR EACH ROW EXECUTE FUNCTION realtime.retire_copy();
        CREATE TRIGGER keep_history BEFORE UPDATE OF xid, seq ON realtime.messages FOR EACH ROW
            EXECUTE FUNCTION realtime.retire_copy();
        ALTER TABLE realtime.messages ENABLE ALWAYS TRIGGER retire_copy;
        ALTER TABLE realtime.messages ENABLE ALWAYS TRIGGER keep_history;
        ALTER TABLE realtime.messages ENABLE ALWAYS TRIGGER ring;
        ALTER TABLE realtime.messages ENABLE ALWAYS TRIGGER queue_webhooks;
    END IF;
END $$
"""
"""The triggers of a schema that knows copies."""

ALWAYS = ("ring", "queue_webhooks", "retire_copy", "keep_history")


@pytest.mark.parametrize("name", [*ALWAYS, "stamp_message"])
@pytest.mark.parametrize("state", ["DISABLE", "ENABLE REPLICA"])
async def test_a_trigger_that_does_not_fire_is_broken_until_cured_as_advised(
    healthy: str, admin: str, name: str, state: str
) -> None:
    await run(admin, TRIGGERS)
    assert await troubles(healthy) == []
    await run(admin, f"ALTER TABLE realtime.messages {state} TRIGGER {name}")
    found = await the_trouble(healthy)
    assert (found.verdict, found.what.split(":")[0]) == (
        "broken",
        f"the trigger {name} on realtime.messages is missing or disabled",
    )
    await run(admin, str(found.advice).split(";")[0])
    assert await troubles(healthy) == []


@pytest.mark.parametrize("name", [*ALWAYS, "stamp_message"])
async def test_a_trigger_that_fires_in_the_wrong_sessions_is_a_warning_until_cured_as_advised(
    healthy: str, admin: str, name: str
) -> None:
    await run(admin, TRIGGERS)
    wrong = "ENABLE" if name in ALWAYS else "ENABLE ALWAYS"
    await run(admin, f"ALTER TABLE realtime.messages {wrong} TRIGGER {name}")
    found = await the_trouble(healthy)
    not_so = "not " if name in ALWAYS else ""
    assert (found.verdict, found.what.split(",")[0]) == (
        "warning",
        f"the trigger {name} on realtime.messages is {not_so}ENABLE ALWAYS",
    )
    await run(admin, str(found.advice))
    assert await troubles(healthy) == []


async def test_a_row_from_another_clusters_future_is_named_until_cured_as_advised(healthy: str, admin: str) -> None:
    await run(
        admin,
        "ALTER TABLE realtime.messages DISABLE TRIGGER USER; UPDATE realtime.messages SET xid = '999999999999'",
    )
    await run(admin, "ALTER TABLE realtime.messages ENABLE TRIGGER USER")
    [found] = [finding for finding in await troubles(healthy) if "another cluster" in finding.what]
    assert found.verdict == "warning"
    await run(admin, str(found.advice).split("; or ")[1])
    assert not [finding for finding in await troubles(healthy) if "another cluster" in finding.what]


async def test_a_subscription_that_writes_messages_is_a_warning_and_one_for_other_tables_is_not() -> None:
    with running_cluster(wal_level="logical", synchronous_commit="on") as postgres:
        cluster = Cluster(postgres, 18)
        there, here = await cluster.database("served"), await cluster.database("served")
        await run(
            there, "CREATE PUBLICATION theirs FOR TABLE realtime.messages; CREATE PUBLICATION orders FOR TABLE orders"
        )
        slots = "; ".join(f"SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')" for slot in ("s", "t"))
        await run(there, slots)
        options = "WITH (create_slot = false, copy_data = false, slot_name = '{}')"
        await run(here, f"CREATE SUBSCRIPTION harmless CONNECTION '{there}' PUBLICATION orders {options.format('s')}")
        url = as_user(here, SERVER)
        assert await troubles(url) == []
        await run(here, f"CREATE SUBSCRIPTION copier CONNECTION '{there}' PUBLICATION theirs {options.format('t')}")
        found = await the_trouble(url)
        assert (found.verdict, found.what.split(" copies")[0]) == ("warning", "the subscription copier")
        for name in ("harmless", "copier"):
            await run(here, f"ALTER SUBSCRIPTION {name} DISABLE")
            await run(here, f"ALTER SUBSCRIPTION {name} SET (slot_name = NONE)")
            await run(here, f"DROP SUBSCRIPTION {name}")
        assert await troubles(url) == []


# ---- who asks ----------------------------------------------------------------------------------------------

UIDS = {
    "a plain cast": (
        "SELECT (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid",
        "auth.uid() raises for a token whose sub is not a uuid (Clerk's, Auth0's)",
    ),
    "a cast of the setting": (
        "SELECT (current_setting('request.jwt.claims')::jsonb ->> 'sub')::uuid",
        "auth.uid() raises for a token whose sub is not a uuid (Clerk's, Auth0's)",
    ),
    "nobody": ("SELECT NULL::uuid", "auth.uid() ignores"),
    "always the same": ("SELECT '5ab1ec70-0000-4000-8000-000000000001'::uuid", "where it must be NULL"),
}


@pytest.mark.parametrize("name", UIDS)
async def test_an_auth_uid_that_does_not_know_every_token_is_a_warning_with_what_to_do(
    healthy: str, admin: str, name: str
) -> None:
    body, what = UIDS[name]
    await run(admin, f"CREATE OR REPLACE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS $$ {body} $$")
    found = await the_trouble(healthy)
    assert found.verdict == "warning"
    assert what in found.what
    assert found.advice == "replace it with the auth.uid() of docs/database.md"
