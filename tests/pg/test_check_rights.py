"""What `check` finds of rights: the server's, the clients', and those of strangers where names are looked up."""

from __future__ import annotations

import asyncpg
import pytest

from insforge_realtime.pg.database import Database
from insforge_realtime.pg.migrate import migrate
from insforge_realtime.pg.queries import query
from support.databases import SERVER, Cluster
from support.patients import name_of, run, the_trouble, troubles

STRANGER = "DO $$ BEGIN CREATE ROLE a_stranger; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;"
SAFE_COLUMNS = "(id, pattern, description, enabled, created_at, updated_at)"

AILMENTS = {
    "all columns for a client": (
        "GRANT SELECT ON realtime.channels TO anon",
        "warning", "the role anon may read the webhook_urls",
        f"REVOKE SELECT ON realtime.channels FROM anon; GRANT SELECT {SAFE_COLUMNS} ON realtime.channels TO anon",
    ),
    "the column for a client": (
        "GRANT SELECT (webhook_urls) ON realtime.channels TO authenticated",
        "warning", "the role authenticated may read the webhook_urls",
        f"FROM authenticated; GRANT SELECT {SAFE_COLUMNS} ON realtime.channels TO authenticated",
    ),
    "all columns by a role that a client is a member of": (
        STRANGER + "GRANT a_stranger TO anon; GRANT SELECT ON realtime.channels TO a_stranger",
        "warning", "the role anon may read the webhook_urls", "REVOKE SELECT ON realtime.channels FROM a_stranger; G",
    ),
    "all data for a client": (
        "GRANT pg_read_all_data TO anon",
        "warning", "the role anon may read the webhook_urls", "REVOKE pg_read_all_data FROM anon",
    ),
    "a policy that reads webhook URLs": (
        "CREATE POLICY looks ON realtime.messages FOR INSERT TO authenticated WITH CHECK ("
        "EXISTS (SELECT * FROM realtime.channels c WHERE c.id = channel_id))",
        "broken", "authenticated lacks SELECT (webhook_urls) ON realtime.channels, which the policy looks on",
        "name the columns in the policy",
    ),
    "a table that a policy reads": (
        "REVOKE SELECT ON chat_members FROM authenticated; GRANT SELECT (user_id) ON chat_members TO authenticated;"
        "DROP POLICY members_publish_chat ON realtime.messages",
        "broken", "authenticated lacks SELECT (room_id) ON chat_members, which the policy members_subscribe_chat",
        "GRANT SELECT (room_id) ON chat_members TO authenticated",
    ),
    "a function that a policy calls": (
        "CREATE FUNCTION vip() RETURNS bool LANGUAGE sql STABLE AS 'SELECT true'; REVOKE ALL ON FUNCTION vip() FROM PUBLIC;"
        "CREATE POLICY vips ON realtime.channels FOR SELECT TO anon USING (vip())",
        "broken", "anon lacks EXECUTE ON FUNCTION vip(), which the policy vips", "GRANT EXECUTE ON FUNCTION vip() TO anon",
    ),
    "an overload of publish": (
        f"CREATE FUNCTION realtime.publish(text, text) RETURNS uuid LANGUAGE sql SECURITY DEFINER AS 'SELECT NULL::uuid';"
        f"ALTER FUNCTION realtime.publish(text, text) OWNER TO {SERVER}; REVOKE ALL ON FUNCTION realtime.publish(text, text)"
        " FROM PUBLIC; GRANT EXECUTE ON FUNCTION realtime.publish(text, text) TO authenticated",
        "warning", "authenticated has EXECUTE ON FUNCTION realtime.publish(text,text)",
        "REVOKE EXECUTE ON FUNCTION realtime.publish(text,text) FROM PUBLIC, authenticated",
    ),
    "a function of the server's own": (
        "GRANT EXECUTE ON FUNCTION realtime.publish_lists(int[], text[], text[], text[]) TO anon",
        "warning", "anon has EXECUTE ON FUNCTION realtime.publish_lists(",
        "REVOKE EXECUTE ON FUNCTION realtime.publish_lists(",
    ),
    "a sequence": (
        "GRANT UPDATE ON SEQUENCE realtime.messages_seq_seq TO anon",
        "warning", "anon has USAGE, UPDATE ON SEQUENCE realtime.messages_seq_seq", "REVOKE USAGE, UPDATE ON SEQUENCE",
    ),
    "the book of migrations": (
        "GRANT DELETE ON realtime.schema_migrations TO authenticated",
        "warning", "authenticated has INSERT, UPDATE, DELETE ON realtime.schema_migrations", "REVOKE INSERT, UPDATE, DELETE",
    ),
    "everybody may create in public": (
        "GRANT CREATE ON SCHEMA public TO PUBLIC",
        "warning", "PUBLIC may create objects in the schema public", "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
    ),
    "a client and a stranger may create beside the functions": (
        STRANGER + "GRANT CREATE ON SCHEMA realtime TO anon, a_stranger",
        "warning", "may create objects in the schema realtime", "REVOKE CREATE ON SCHEMA realtime FROM ",
    ),
    "a stranger may create where names without a schema are looked up first": (
        STRANGER + "CREATE SCHEMA authenticated; GRANT CREATE ON SCHEMA authenticated TO a_stranger",
        "warning", "a_stranger may create objects in the schema authenticated", "REVOKE CREATE ON SCHEMA authenticated",
    ),
    "tables of the application": (
        f"ALTER TABLE orders OWNER TO {SERVER}; ALTER TABLE admins OWNER TO {SERVER}",
        "warning", f"the server's role {SERVER} can do more than it needs (the owner of 2 tables of other schemas)",
        "a role that has no other rights",
    ),
}  # fmt: skip

UNDO = (
    "REVOKE pg_read_all_data FROM anon; ALTER ROLE anon NOBYPASSRLS; DO $$ BEGIN REVOKE a_stranger FROM anon; "
    f"EXCEPTION WHEN undefined_object THEN NULL; END $$; ALTER ROLE {SERVER} NOCREATEROLE NOBYPASSRLS NOSUPERUSER;"
    f"REVOKE pg_execute_server_program FROM {SERVER}"
)
"""Roles belong to all databases of the cluster."""


@pytest.mark.parametrize("name", AILMENTS)
async def test_a_right_that_is_too_much_or_too_little_is_found_alone_and_with_its_cure(
    healthy: str, admin: str, name: str
) -> None:
    cause, verdict, what, advice = AILMENTS[name]
    await run(admin, cause)
    try:
        found = await the_trouble(healthy)
        assert found.verdict == verdict
        assert what in found.what.replace("public.", "")  # names are as long as the search_path wants them
        assert advice in str(found.advice).replace("public.", "")
        if not str(found.advice).startswith(("name", "let")):
            await run(admin, str(found.advice))
            assert await troubles(healthy) == []
    finally:
        await run(admin, UNDO)


HARMLESS = {
    "a function of the schema that a policy calls": "CREATE FUNCTION realtime.is_vip() RETURNS bool LANGUAGE sql STABLE"
    " SECURITY DEFINER AS 'SELECT true'; CREATE POLICY vips ON realtime.channels FOR SELECT USING (realtime.is_vip())",
    "a trigger function of somebody else's": "CREATE FUNCTION realtime.touch() RETURNS trigger LANGUAGE plpgsql AS"
    " 'BEGIN RETURN NEW; END'",
    "its owner and superusers may create": f"GRANT CREATE ON SCHEMA public TO {SERVER}, postgres",
    "a stranger may create where nobody looks": "CREATE SCHEMA elsewhere; GRANT CREATE ON SCHEMA elsewhere TO PUBLIC",
    "a policy for another command": "CREATE TABLE private (id int); CREATE POLICY later ON realtime.messages FOR SELECT"
    " TO authenticated USING (EXISTS (SELECT FROM private)); CREATE POLICY later ON realtime.channels FOR UPDATE"
    " TO authenticated USING (EXISTS (SELECT FROM private))",
    "webhook URLs for the API key's role": "GRANT ALL ON realtime.channels TO project_admin",
    "some columns": "GRANT SELECT (pattern) ON realtime.channels TO PUBLIC",
}  # fmt: skip


@pytest.mark.parametrize("name", HARMLESS)
async def test_a_right_that_is_as_it_should_be_is_not_reported(healthy: str, admin: str, name: str) -> None:
    await run(admin, HARMLESS[name])
    assert await troubles(healthy) == []


@pytest.mark.parametrize(
    ("power", "named"),
    [
        (f"ALTER ROLE {SERVER} SUPERUSER", "it is a superuser"),
        (f"ALTER ROLE {SERVER} BYPASSRLS CREATEROLE", "BYPASSRLS, CREATEROLE"),
        (f"GRANT pg_execute_server_program TO {SERVER}", "a member of pg_execute_server_program"),
    ],
)
async def test_a_servers_role_that_can_do_more_than_it_needs_is_a_warning(
    healthy: str, admin: str, power: str, named: str
) -> None:
    await run(admin, power)
    try:
        found = await the_trouble(healthy)
    finally:
        await run(admin, UNDO)
    assert (found.verdict, found.what) == (
        "warning",
        f"the server's role {SERVER} can do more than it needs ({named}), and a function that a policy calls can become it "
        "(RESET ROLE)",
    )
    assert await troubles(healthy) == []


async def test_a_function_that_a_policy_calls_can_indeed_become_the_server(healthy: str, admin: str) -> None:
    """Why the finding is one: as the client it may not write into `admins`, as the superuser that the server is it may."""
    await run(
        admin,
        "CREATE FUNCTION climb() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('role', 'none', true);"
        "INSERT INTO admins VALUES (gen_random_uuid()); RETURN true; END $$; CREATE POLICY climber ON realtime.channels"
        " FOR SELECT TO anon USING (climb()); INSERT INTO realtime.channels (pattern) VALUES ('peak')",
    )
    verdicts = {}
    for url in (healthy, admin):
        connection = await asyncpg.connect(url)
        [verdict] = await connection.fetchval(query("check_subscribe"), ["anon"], ["{}"], ["peak"])
        verdicts[url] = verdict
        await connection.close()
    assert verdicts[healthy].startswith("42501 permission denied for table admins")
    assert verdicts[admin] == "yes"


@pytest.mark.parametrize(
    ("power", "named", "cure"),
    [
        ("ALTER ROLE anon BYPASSRLS", "bypasses row-level security", "ALTER ROLE anon NOBYPASSRLS"),
        ("ALTER ROLE anon SUPERUSER", "is a superuser", "ALTER ROLE anon NOSUPERUSER"),
        (
            "GRANT postgres TO anon",
            "is a member of postgres, the owner of realtime.messages",
            "REVOKE postgres FROM anon",
        ),
    ],
)
async def test_a_client_that_no_policy_restrains_is_a_warning(
    cluster: Cluster, power: str, named: str, cure: str
) -> None:
    url = await cluster.database("demo")
    await run(url, power)
    try:
        found = [
            finding
            for finding in await troubles(url)
            if finding.what == f"the role anon {named}: no policy restrains it"
        ]
    finally:
        await run(url, "ALTER ROLE anon NOBYPASSRLS NOSUPERUSER; REVOKE postgres FROM anon")
    assert [(finding.verdict, finding.advice) for finding in found] == [("warning", cure)]
    assert not [finding for finding in await troubles(url) if finding.what.startswith("the role anon")]
    await cluster.drop(url)


async def test_a_wide_grant_that_a_policy_needs_is_said_to_be_needed(
    cluster: Cluster, healthy: str, admin: str
) -> None:
    await run(
        admin,
        "GRANT SELECT ON realtime.channels TO authenticated; CREATE POLICY looks ON realtime.messages FOR INSERT"
        " TO authenticated WITH CHECK (EXISTS (SELECT * FROM realtime.channels c WHERE c.id = channel_id))",
    )
    found = await the_trouble(healthy)
    assert found.verdict == "warning"
    assert "; the policy looks on realtime.messages needs that" in found.what


async def test_the_embedded_databases_superuser_is_the_one_thing_said_of_a_database_of_make_dev(
    cluster: Cluster,
) -> None:
    url = await cluster.database("demo")
    await cluster.execute(f"ALTER DATABASE {name_of(url)} SET synchronous_commit = on")
    await migrate(Database(url))
    assert (await the_trouble(url)).what.startswith("the server's role postgres can do more than it needs")
    await cluster.drop(url)
