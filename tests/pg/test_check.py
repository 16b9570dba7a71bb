"""`check`, question by question: a healthy database, and each way to make it ill."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from insforge_realtime.config import Config
from insforge_realtime.pg.check import asking, examine, listening, server
from insforge_realtime.pg.check.configuration import credentials
from insforge_realtime.pg.check.finding import Finding
from insforge_realtime.pg.database import Database
from insforge_realtime.pg.migrate import migrate
from insforge_realtime.pg.queries import query
from support.databases import Cluster, running_cluster
from support.patients import Plain, as_user, configuration, name_of, run, the_trouble, troubles
from support.servers import SECRET


def at_port(url: str, port: int) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{parts.netloc.rpartition(':')[0]}:{port}"))


# ---- the whole ---------------------------------------------------------------------------------------------


async def test_a_healthy_database_is_ok_in_every_respect(healthy: str) -> None:
    findings = await examine(configuration(healthy))
    assert [finding for finding in findings if finding.verdict != "ok" or finding.advice] == []
    assert len(findings) == 33
    assert len({finding.what for finding in findings}) == 33


async def test_a_check_changes_nothing(healthy: str) -> None:
    counts = "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_user_tables"
    connection = await asyncpg.connect(healthy)
    before = await connection.fetchval(counts)
    await examine(configuration(healthy))
    await connection.execute("SELECT pg_stat_force_next_flush()")
    assert await connection.fetchval(counts) == before
    await connection.close()


async def test_a_plain_owner_of_the_tables_is_fine(plain: Plain) -> None:
    found = await troubles(plain.url)
    assert {finding.verdict for finding in found} == {"warning"}  # there are no policies and no channels yet
    assert [finding.what.split(":")[0] for finding in found] == [
        "no policy on realtime.channels lets anon or authenticated subscribe",
        "no policy on realtime.messages lets anon or authenticated publish",
        "no channel is enabled",
    ]


async def test_a_question_that_fails_is_a_finding_and_stops_no_other(healthy: str, admin: str) -> None:
    await run(admin, "DROP FUNCTION auth.uid() CASCADE")
    await run(admin, "ALTER FUNCTION realtime.publish(text, text, jsonb) RENAME TO published")
    found = await troubles(healthy)
    assert [finding.what.split(":")[0] for finding in found if finding.what.startswith("could not find out")]
    assert {finding.verdict for finding in found} >= {"broken"}
    later = [finding.what for finding in await examine(configuration(healthy))]
    assert "no other server's trigger notifies for every row" in later


async def test_a_check_does_not_wait_for_locks(healthy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "query", lambda name: query(name).replace("'5s'", "'50ms'"))
    connection = await asyncpg.connect(healthy)
    async with connection.transaction():
        await connection.execute("LOCK TABLE realtime.channels")
        found = await troubles(healthy)
    await connection.close()
    assert {finding.verdict for finding in found} == {"broken"}
    assert all("timeout" in finding.what for finding in found)


# ---- reaching it -------------------------------------------------------------------------------------------


async def test_no_database_configured_is_broken_and_the_rest_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    found = await the_trouble(None)
    assert (found.verdict, found.what) == ("broken", "no database is configured")
    assert "DATABASE_URL" in str(found.advice)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hush%21hush@127.0.0.1:1/x",
        "postgresql://me:hush%21hush@127.0.0.1:notaport/x",
        "postgresql://me:hush!hush@[::1/x",
        "postgresql://127.0.0.1:1/x?user=me&password=hush%21hush",
        "postgresql://me:hush!hush@no-such-host.invalid/x",
        "postgresql://me:hush!hush@127.0.0.1:1/x?sslmode=hush!hush",
    ],
)
async def test_a_database_that_cannot_be_reached_is_one_broken_line_without_the_password(url: str) -> None:
    found = await the_trouble_of_text(url)
    assert found.verdict == "broken"
    assert "cannot be reached" in found.what
    assert "hush" not in found.what


async def the_trouble_of_text(url: str) -> Finding:
    """As `the_trouble`; some of these addresses are so wrong that only the driver says so."""
    config = Config.model_construct(**{**configuration(None).__dict__, "database_url": url})
    [finding] = [finding for finding in await examine(config) if finding.verdict != "ok"]
    return finding


async def test_a_wrong_password_is_not_printed(plain: Plain) -> None:
    found = await the_trouble(plain.url.replace(":secret@", ":guessed@"))
    assert "password authentication failed" in found.what
    assert "guessed" not in found.what


@pytest.mark.parametrize("name", ["jwt_secret", "jwks_url", "anon_key", "api_key", "allow_anonymous"])
async def test_any_way_to_let_clients_in_is_ok(name: str) -> None:
    value = {"jwks_url": "https://example.com/jwks", "allow_anonymous": True}.get(name, "x" * 40)
    finding = credentials(configuration(None, **{"jwt_secret": None, name: value}))
    assert finding == Finding("ok", f"clients are let in by REALTIME_{name.upper()}")


async def test_no_way_to_verify_tokens_is_broken_since_serve_refuses_to_start(healthy: str) -> None:
    found = await the_trouble(healthy, jwt_secret=None)
    assert found.verdict == "broken"
    assert "REALTIME_JWT_SECRET" in str(found.advice)


async def test_a_typo_in_a_variables_name_is_a_warning_and_the_nearest_name_is_advised(
    healthy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REALTIME_CORS_ORIGIN", "https://app.example.com")
    found = await the_trouble(healthy)
    assert (found.verdict, found.advice) == ("warning", "did you mean REALTIME_CORS_ORIGINS?")
    assert found.what.startswith("REALTIME_CORS_ORIGIN is set")


async def test_an_old_postgresql_is_broken(healthy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "OLDEST_VERSION", 99)
    found = await the_trouble(healthy)
    assert (found.verdict, found.advice) == ("broken", "upgrade to 99 or newer")


@pytest.mark.parametrize("ahead", [60, -60])
async def test_clocks_that_disagree_are_a_warning(healthy: str, ahead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_wall_clock", lambda: time.time() - ahead)
    found = await the_trouble(healthy)
    assert found.verdict == "warning"
    assert f"60 s {'ahead of' if ahead > 0 else 'behind'}" in found.what


async def test_an_unmigrated_database_is_broken_and_only_that(cluster: Cluster) -> None:
    url = await cluster.database("empty")
    await cluster.execute(f"ALTER DATABASE {name_of(url)} SET synchronous_commit = on")
    found = await the_trouble(url)
    assert found.verdict == "broken"
    assert "insforge-realtime migrate" in str(found.advice)
    await cluster.drop(url)


async def test_a_schema_from_before_is_broken(healthy: str, admin: str) -> None:
    await run(admin, "DELETE FROM realtime.schema_migrations")
    assert (await the_trouble(healthy)).what.startswith("the schema is not current")


# ---- ailments that one statement causes --------------------------------------------------------------------

EVERY_POLICY = "SELECT polname, polrelid::regclass AS tab FROM pg_policy WHERE polname <> 'project_admin_policy'"
DROP_POLICIES = (
    f"DO $$ DECLARE p record; BEGIN FOR p IN {EVERY_POLICY} LOOP "
    "EXECUTE format('DROP POLICY %I ON %s', p.polname, p.tab); END LOOP; END $$;"
)
RLS_OFF = "ALTER TABLE realtime.{} DISABLE ROW LEVEL SECURITY;"
READ_ALL = "CREATE POLICY read_all ON realtime.channels FOR SELECT TO authenticated USING ({});"

PAST_THE_TRIGGERS = (
    "DO $$ DECLARE states json; t record; BEGIN "
    "SELECT json_object_agg(tgname, CASE tgenabled WHEN 'A' THEN 'ENABLE ALWAYS' ELSE 'ENABLE' END) INTO states"
    " FROM pg_trigger WHERE tgrelid = 'realtime.messages'::regclass AND NOT tgisinternal;"
    "ALTER TABLE realtime.messages DISABLE TRIGGER USER; {};"
    "FOR t IN SELECT * FROM json_each_text(states) LOOP "
    "EXECUTE format('ALTER TABLE realtime.messages %s TRIGGER %I', t.value, t.key); END LOOP; END $$"
)
"""What a restore does that disables the triggers while it writes."""

AILMENTS = {
    "stamp disabled": (
        "ALTER TABLE realtime.messages DISABLE TRIGGER stamp_message",
        "broken", "stamp_message on realtime.messages is missing or disabled", "ENABLE TRIGGER stamp_message",
    ),
    "no ring": (
        "DROP TRIGGER ring ON realtime.messages",
        "broken", "ring on realtime.messages is missing", "insforge-realtime migrate",
    ),
    "publish as the caller": (
        "ALTER FUNCTION realtime.publish(text, text, jsonb) SECURITY INVOKER",
        "broken", "realtime.publish(text,text,jsonb) is not SECURITY DEFINER", "insforge-realtime migrate",
    ),
    "no schema usage": (
        "REVOKE USAGE ON SCHEMA realtime FROM anon",
        "broken", "anon lacks USAGE ON SCHEMA realtime", "GRANT USAGE ON SCHEMA realtime TO anon",
    ),
    "no select": (
        "REVOKE SELECT ON realtime.channels FROM authenticated",
        "broken", "authenticated lacks SELECT (id, pattern, description, enabled, created_at, updated_at) ON realtime.",
        "updated_at) ON realtime.channels TO authenticated",
    ),
    "no insert": (
        "REVOKE INSERT ON realtime.messages FROM project_admin",
        "broken", "project_admin lacks INSERT ON realtime.messages", "GRANT INSERT ON realtime.messages TO project_admin",
    ),
    "no auth": (
        "REVOKE USAGE ON SCHEMA auth FROM anon",
        "warning", "anon lacks USAGE ON SCHEMA auth", "GRANT USAGE ON SCHEMA auth TO anon",
    ),
    "may truncate": (
        "GRANT TRUNCATE ON realtime.messages TO authenticated",
        "warning", "authenticated has TRUNCATE ON realtime.messages", "REVOKE TRUNCATE ON realtime.messages FROM",
    ),
    "may speak as the system": (
        "GRANT EXECUTE ON FUNCTION realtime.publish(text, text, jsonb) TO anon",
        "warning", "anon has EXECUTE ON FUNCTION realtime.publish(text,text,jsonb)", "REVOKE EXECUTE ON FUNCTION",
    ),
    "subscribe open": (
        RLS_OFF.format("channels"),
        "warning", "OFF on realtime.channels: everybody may subscribe to every channel",
        "ALTER TABLE realtime.channels ENABLE ROW LEVEL SECURITY; then the 3 policies",
    ),
    "publish open": (
        RLS_OFF.format("messages"),
        "warning", "OFF on realtime.messages: everybody may publish to every channel",
        "ALTER TABLE realtime.messages ENABLE ROW LEVEL SECURITY; then the 2 policies",
    ),
    "publish open without policies": (
        DROP_POLICIES + RLS_OFF.format("messages") + READ_ALL.format("true"),
        "warning", "OFF on realtime.messages", "then nobody may until policies allow it, e.g. CREATE POLICY",
    ),
    "nobody may subscribe": (
        "DROP POLICY public_subscribe_orders ON realtime.channels; DROP POLICY users_subscribe_own_orders ON "
        "realtime.channels; DROP POLICY members_subscribe_chat ON realtime.channels;"
        "CREATE POLICY update_only ON realtime.channels FOR UPDATE USING (true);"
        "CREATE POLICY narrow ON realtime.channels AS RESTRICTIVE FOR SELECT USING (true)",
        "warning", "no policy on realtime.channels lets anon or authenticated subscribe", "CREATE POLICY",
    ),
    "nobody may publish": (
        "DROP POLICY admins_publish_orders ON realtime.messages; DROP POLICY members_publish_chat ON realtime.messages",
        "warning", "no policy on realtime.messages lets anon or authenticated publish", "CREATE POLICY",
    ),
    "no admin policy": (
        "DROP POLICY project_admin_policy ON realtime.messages",
        "warning", "no policy project_admin_policy on realtime.messages", "CREATE POLICY project_admin_policy ON",
    ),
    "no channel": (
        "UPDATE realtime.channels SET enabled = false",
        "warning", "no channel is enabled", "INSERT INTO realtime.channels",
    ),
    "a backslash": (
        "ALTER TABLE realtime.channels DROP CONSTRAINT channels_pattern_check;"
        r"INSERT INTO realtime.channels (pattern) VALUES ('odd:\')",
        "broken", r"the channel pattern E'odd:\\' is not a LIKE pattern", "UPDATE realtime.channels SET pattern",
    ),
    "a backslash, disabled": (
        "ALTER TABLE realtime.channels DROP CONSTRAINT channels_pattern_check;"
        r"INSERT INTO realtime.channels (pattern, enabled) VALUES ('odd:\', false)",
        "warning", "is not a LIKE pattern", "UPDATE realtime.channels SET pattern",
    ),
    "no queue": (
        "ALTER TABLE realtime.messages DISABLE TRIGGER queue_webhooks",
        "broken", "queue_webhooks on realtime.messages is missing or disabled: no webhook is sent",
        "ENABLE ALWAYS TRIGGER queue_webhooks",
    ),
    "a queue of somebody else's": (
        "DO $$ BEGIN CREATE ROLE a_stranger; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;"
        "ALTER TABLE realtime.webhook_deliveries OWNER TO a_stranger",
        "broken", "realtime.webhook_deliveries belongs to a_stranger, but realtime.messages to realtime_server",
        "ALTER TABLE realtime.webhook_deliveries OWNER TO realtime_server",
    ),
    "a malformed webhook": (
        "UPDATE realtime.channels SET webhook_urls = '{https://a.example/x,b.example/x}' WHERE pattern = 'orders'",
        "warning", "a webhook URL of the channel 'orders' is not an http:// or https:// URL", "SET webhook_urls",
    ),
    "may truncate the queue": (
        "GRANT TRUNCATE ON realtime.webhook_deliveries TO anon",
        "warning", "anon has TRUNCATE ON realtime.webhook_deliveries", "REVOKE TRUNCATE",
    ),
    "immutable auth": (
        "ALTER FUNCTION auth.uid() IMMUTABLE",
        "broken", "auth.uid() is marked IMMUTABLE", "ALTER FUNCTION auth.uid() STABLE",
    ),
    "immutable helper": (
        "CREATE FUNCTION is_admin() RETURNS boolean LANGUAGE sql IMMUTABLE AS "
        "$$ SELECT auth.uid() = '00000000-0000-4000-8000-000000000000' $$;" + READ_ALL.format("is_admin()"),
        "broken", "is_admin() is marked IMMUTABLE", "ALTER FUNCTION public.is_admin() STABLE",
    ),
    "immutable lookup": (
        "CREATE FUNCTION any_admin() RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS "
        "$$ BEGIN RETURN EXISTS (SELECT 1\nFROM public.admins); END $$;" + READ_ALL.format("any_admin()"),
        "broken", "any_admin() is marked IMMUTABLE", "ALTER FUNCTION public.any_admin() STABLE",
    ),
    "immutable below": (
        "CREATE FUNCTION inner_one() RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT realtime.channel_name() $$;"
        "CREATE FUNCTION middle() RETURNS text LANGUAGE sql STABLE BEGIN ATOMIC SELECT inner_one(); END;"
        "CREATE FUNCTION outer_one() RETURNS text LANGUAGE sql STABLE AS $$ SELECT public.middle() $$;"
        + READ_ALL.format("outer_one() = 'x'"),
        "broken", "inner_one() is marked IMMUTABLE", "ALTER FUNCTION public.inner_one() STABLE",
    ),
    "rows of the future": (
        PAST_THE_TRIGGERS.format("UPDATE realtime.messages SET xid = '999999999'"),
        "warning", "rows of realtime.messages carry transaction ids of another cluster", "restart the server",
    ),
    "another server's trigger": (
        "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_notify('realtime_message', NEW.id::text); RETURN NEW; END $$;"
        "CREATE TRIGGER trg_message_notify AFTER INSERT ON realtime.messages FOR EACH ROW EXECUTE FUNCTION tell()",
        "warning", "trg_message_notify on realtime.messages notifies for every row", "DROP TRIGGER trg_message_notify",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", AILMENTS)
async def test_an_ailment_is_found_alone_and_with_its_cure(healthy: str, admin: str, name: str) -> None:
    cause, verdict, what, advice = AILMENTS[name]
    await run(admin, cause)
    found = await the_trouble(healthy)
    assert found.verdict == verdict
    assert what in found.what
    assert advice in str(found.advice)


HARMLESS = {
    "column grants": "REVOKE INSERT ON realtime.messages FROM anon; REVOKE SELECT ON realtime.channels FROM anon;"
    "GRANT INSERT (channel_name, event_name, payload) ON realtime.messages TO anon;"
    "GRANT SELECT (id) ON realtime.channels TO anon",
    "an admin that bypasses": "DROP POLICY project_admin_policy ON realtime.channels; ALTER ROLE project_admin BYPASSRLS",
    "a truly immutable helper": "CREATE FUNCTION part(text) RETURNS text LANGUAGE sql IMMUTABLE AS "
    "$$ SELECT split_part(trim(both ' ' from $1), ':', 2) || extract(year from date '2020-01-01') $$;"
    + READ_ALL.format("part(realtime.channel_name()) = 'x'"),
    "an immutable function that no policy calls": "CREATE FUNCTION unused() RETURNS uuid LANGUAGE sql IMMUTABLE AS "
    "$$ SELECT auth.uid() $$",
    "policies for everybody": DROP_POLICIES + "CREATE POLICY r ON realtime.channels USING (true);"
    "CREATE POLICY w ON realtime.messages WITH CHECK (true)",
    "webhooks that can be read": "UPDATE realtime.channels SET webhook_urls = ARRAY[NULL, '', 'http://a', "
    "'HTTPS://u:p@b:8080', 'https://[::1]:3000/x?y=1#z', ' http://10.0.0.1/ ', 'http://u@h?x']"
    " WHERE pattern = 'orders'",
    "another trigger": "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;"
    "CREATE TRIGGER more AFTER INSERT ON realtime.messages FOR EACH ROW EXECUTE FUNCTION nothing()",
}


@pytest.mark.parametrize("name", HARMLESS)
async def test_what_is_harmless_is_not_reported(healthy: str, admin: str, name: str) -> None:
    await run(admin, HARMLESS[name])
    try:
        assert await troubles(healthy) == []
    finally:
        await run(admin, "ALTER ROLE project_admin NOBYPASSRLS")


# ---- who the server is -------------------------------------------------------------------------------------


async def test_a_stranger_to_the_tables_is_told_so(healthy: str, admin: str, plain: Plain) -> None:
    await run(
        healthy,
        f"GRANT USAGE ON SCHEMA realtime TO {plain.role}; GRANT SELECT ON ALL TABLES IN SCHEMA realtime TO {plain.role}",
    )
    found = await troubles(as_user(healthy, plain.role))
    await run(admin, f"DROP OWNED BY {plain.role}")
    assert [finding.what.split(",")[0] for finding in found] == [
        "realtime.channels belongs to realtime_server",
        "realtime.messages belongs to realtime_server",
    ]
    assert {finding.verdict for finding in found} == {"broken"}
    assert "connect as realtime_server" in str(found[0].advice)


async def test_a_new_owner_of_the_table_has_to_get_the_functions_and_migrate(plain: Plain) -> None:
    connection = await asyncpg.connect(plain.admin_url)
    await connection.execute(
        "ALTER TABLE realtime.messages OWNER TO postgres; ALTER TABLE realtime.channels OWNER TO postgres"
    )
    found = [finding for finding in await troubles(plain.admin_url) if finding.verdict == "broken"]
    assert len(found) == 8
    assert all("does not name the present owner postgres" in finding.what for finding in found[:2])
    for finding in found[2:]:
        assert finding.advice is not None
        await connection.execute(finding.advice.split(", then")[0])
    await connection.close()
    await migrate(Database(plain.admin_url))
    assert not [finding for finding in await troubles(plain.admin_url) if finding.verdict == "broken"]


async def test_forced_row_level_security_is_broken_for_a_plain_owner(plain: Plain) -> None:
    await run(plain.url, "ALTER TABLE realtime.messages FORCE ROW LEVEL SECURITY")
    [found] = [finding for finding in await troubles(plain.url) if finding.verdict == "broken"]
    assert "FORCE ROW LEVEL SECURITY is set on realtime.messages" in found.what
    assert found.advice == "ALTER TABLE realtime.messages NO FORCE ROW LEVEL SECURITY"
    await run(plain.url, found.advice)
    assert not [finding for finding in await troubles(plain.url) if finding.verdict == "broken"]


async def test_a_role_that_the_server_may_not_take_is_broken_until_granted_as_advised(plain: Plain) -> None:
    await run(plain.admin_url, f"REVOKE authenticated FROM {plain.role}")
    [found] = [finding for finding in await troubles(plain.url) if finding.verdict == "broken"]
    assert found.what == "the server may not act as authenticated"
    assert found.advice is not None
    await run(plain.admin_url, found.advice)
    assert not [finding for finding in await troubles(plain.url) if finding.verdict == "broken"]


async def test_a_role_that_does_not_exist_is_broken() -> None:
    with running_cluster() as postgres:
        url = await Cluster(postgres, 18).database("demo")
        await run(url, "ALTER ROLE anon RENAME TO somebody")
        assert "the role anon does not exist" in [finding.what for finding in await troubles(url)]


# ---- LISTEN, and what stands in its way --------------------------------------------------------------------


Backend = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Middle:
    """A proxy that does to PostgreSQL's messages what a transaction pooler does, as far as asked for.

    Args:
        deaf: drops NotificationResponse.
        shared: after its handshake, a server connection serves whichever client has a transaction to run.
        frozen: how many messages of the server get through before nothing does.
    """

    def __init__(self, url: str, *, deaf: bool = False, shared: bool = False, frozen: int | None = None) -> None:
        self._url, self._deaf, self._shared, self._left = url, deaf, shared, frozen
        self._free: list[Backend] = []
        self._writers: list[asyncio.StreamWriter] = []
        self._served: list[asyncio.Task[None] | None] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield at_port(self._url, server.sockets[0].getsockname()[1])
        finally:
            server.close()
            for writer in self._writers:
                writer.transport.abort()
            await asyncio.gather(*filter(None, self._served))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._served.append(asyncio.current_task())
        backend = await asyncio.open_connection("127.0.0.1", urlsplit(self._url).port)
        self._writers += writer, backend[1]
        try:
            await self._greet(reader, writer, backend)
            await (self._lend if self._shared else self._join)(reader, writer, backend)
        except (OSError, asyncio.IncompleteReadError):
            pass
        writer.close()
        if not self._shared:
            backend[1].close()

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, backend: Backend) -> None:
        """The start-up, up to the first ReadyForQuery. A request for TLS or GSS is answered like a server without."""
        while True:
            size = await reader.readexactly(4)
            body = await reader.readexactly(int.from_bytes(size) - 4)
            if body[:2] != b"\x04\xd2":
                break
            writer.write(b"N")
        backend[1].write(size + body)
        message = b""
        while message[:1] != b"Z":
            message = await _message(backend[0])
            self._pass_on(message, writer)
            if message[:1] == b"R" and int.from_bytes(message[5:9]) in (
                3,
                5,
                10,
                11,
            ):  # it asks for a password, or more
                backend[1].write(await _message(reader))

    def _pass_on(self, message: bytes, writer: asyncio.StreamWriter) -> None:
        if self._left is not None:
            self._left -= 1
        if not (self._deaf and message[:1] == b"A") and (self._left is None or self._left >= 0):
            writer.write(message)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, backend: Backend) -> None:
        async def up() -> None:
            with suppress(OSError, asyncio.IncompleteReadError):
                while True:
                    backend[1].write(await _message(reader))
            backend[1].close()

        async def down() -> None:
            with suppress(OSError, asyncio.IncompleteReadError):
                while True:
                    self._pass_on(await _message(backend[0]), writer)
            writer.close()

        await asyncio.gather(up(), down())

    async def _lend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, backend: Backend) -> None:
        """A server connection for the length of each transaction; the one that was used last comes first."""
        self._free.insert(0, backend)
        while True:
            batch = await _batch(reader)
            lent = self._free.pop()
            while await self._answer(batch, lent, writer) != b"I":
                batch = await _batch(reader)
            self._free.append(lent)

    async def _answer(self, batch: bytes, lent: Backend, writer: asyncio.StreamWriter) -> bytes:
        """Have a batch answered; the last byte of the answer is I where no transaction is open any more."""
        lent[1].write(batch)
        # asyncpg flushes after Parse and Describe, and then there is no ReadyForQuery.
        last = b"TnE" if batch.endswith(b"H\0\0\0\4") else b"Z"
        message = b"?"
        while message[:1] not in last:
            message = await _message(lent[0])
            self._pass_on(message, writer)
        return message[5:6] if last == b"Z" else b"T"


async def _batch(reader: asyncio.StreamReader) -> bytes:
    """What a client says at a time: a query, or messages up to a Sync or Flush. Its goodbye is not for the server."""
    batch = last = await _message(reader)
    while last[:1] not in b"QSHX":
        last = await _message(reader)
        batch += last
    if last[:1] == b"X":
        raise ConnectionError
    return batch


async def _message(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(5)
    return head + await reader.readexactly(int.from_bytes(head[1:]) - 4)


async def test_a_link_that_passes_everything_on_is_fine(healthy: str) -> None:
    async with Middle(healthy).running() as url:
        assert await troubles(url) == []


@pytest.mark.parametrize("how", ["deaf", "shared"])
async def test_a_pooler_in_the_way_of_listen_is_broken_and_a_direct_address_heals_it(
    healthy: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "RING_SECONDS", 0.3)
    async with Middle(healthy, deaf=how == "deaf", shared=how == "shared").running() as url:
        found = await the_trouble(url)
        assert found.verdict == "broken"
        assert "DATABASE_URL cannot be used to LISTEN (a pooler?)" in found.what
        assert "REALTIME_LISTEN_URL" in str(found.advice)
        assert await troubles(url, listen_url=healthy) == []
        found = await the_trouble(healthy, listen_url=url)
        assert found.what.startswith("REALTIME_LISTEN_URL (127.0.0.1:")
        assert found.verdict == "broken"


async def test_sessions_that_are_shared_are_noticed_even_where_notifications_arrive(
    healthy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def arrived(*_: object) -> bool:
        return True

    monkeypatch.setattr(listening, "_rings", arrived)
    async with Middle(healthy, shared=True).running() as url:
        assert (await the_trouble(url)).verdict == "broken"


async def test_a_listen_url_of_another_database_is_broken(
    healthy: str, plain: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "RING_SECONDS", 0.3)
    found = await the_trouble(healthy, listen_url=plain.url)
    assert found.verdict == "broken"
    assert "the same database as DATABASE_URL" in str(found.advice)
    assert "secret" not in found.what


async def test_a_listen_url_that_leads_nowhere_is_broken(healthy: str) -> None:
    found = await the_trouble(healthy, listen_url="postgresql://me:hush@127.0.0.1:1/x")
    assert found.what.startswith("REALTIME_LISTEN_URL (127.0.0.1:1/x) cannot be used to LISTEN")


@pytest.mark.parametrize("messages", [25, 45, 200])
async def test_a_link_that_goes_silent_does_not_hang_the_check(
    healthy: str, messages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "QUESTION_SECONDS", 0.3)
    monkeypatch.setattr(listening, "RING_SECONDS", 0.1)
    monkeypatch.setattr("insforge_realtime.pg.database.CONNECT_SECONDS", 0.3)
    async with Middle(healthy, frozen=messages).running() as url:
        found = await troubles(url, listen_url=healthy)
    assert {finding.verdict for finding in found} == {"broken"}
    assert "cannot be reached" in found[-1].what or "does not answer" in found[-1].what


# ---- the command -------------------------------------------------------------------------------------------


def check(url: str, **settings: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("REALTIME_")}
    return subprocess.run(
        [sys.executable, "-m", "insforge_realtime", "check"],
        env={**clean, "DATABASE_URL": url, **settings},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
    )


async def test_the_command_prints_a_line_each_and_fails_only_for_what_is_broken(healthy: str, admin: str) -> None:
    fine = await asyncio.to_thread(check, healthy, REALTIME_JWT_SECRET=SECRET)
    assert (fine.returncode, fine.stderr) == (0, "")
    assert {line.split()[0] for line in fine.stdout.splitlines()} == {"ok"}
    await run(admin, "ALTER TABLE realtime.messages DISABLE ROW LEVEL SECURITY")
    loud = await asyncio.to_thread(check, healthy, REALTIME_JWT_SECRET=SECRET)
    assert loud.returncode == 0
    assert (
        "warning row-level security is OFF on realtime.messages: everybody may publish to every channel" in loud.stdout
    )
    assert "        → ALTER TABLE realtime.messages ENABLE ROW LEVEL SECURITY" in loud.stdout
    await run(admin, "REVOKE INSERT ON realtime.messages FROM anon")
    broken = await asyncio.to_thread(check, healthy)
    assert (broken.returncode, broken.stderr) == (1, "")
    assert "broken  the role anon lacks INSERT ON realtime.messages" in broken.stdout
    assert str(urlsplit(healthy).password) not in broken.stdout


def serve(url: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """A server that is to end by itself."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("REALTIME_")}
    return subprocess.run(
        [sys.executable, "-m", "insforge_realtime", "serve", "--port", "0"],
        env={**clean, "DATABASE_URL": url, **settings}, cwd="/", capture_output=True, text=True, timeout=60,
    )  # fmt: skip


PUBLIC_KEY = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----\n"
WHY_SERVE_ENDS: dict[str, dict[str, str]] = {
    "no way to verify tokens": {"REALTIME_JWT_SECRET": ""},
    "a key file without a certificate": {"REALTIME_SSL_KEYFILE": "/dev/null"},
    "a certificate that is not there": {"REALTIME_SSL_CERTFILE": "/none.pem"},
    "a public key for a secret": {"REALTIME_JWT_SECRET": PUBLIC_KEY},
    "an address of another machine": {"REALTIME_HOST": "192.0.2.1"},
    "a name that nobody has": {"REALTIME_HOST": "no-such-host.invalid"},
    "a setting that is wrong": {"REALTIME_PING_INTERVAL": "soon"},
    "a URL that is wrong": {"DATABASE_URL": "mysql://h/d"},
    "no database": {"DATABASE_URL": ""},
}  # fmt: skip


@pytest.mark.parametrize("why", WHY_SERVE_ENDS)
async def test_whatever_makes_serve_end_makes_check_fail(healthy: str, why: str) -> None:
    settings = {"DATABASE_URL": healthy, "REALTIME_JWT_SECRET": SECRET, **WHY_SERVE_ENDS[why]}
    if settings["REALTIME_JWT_SECRET"] == "":
        del settings["REALTIME_JWT_SECRET"]
    url = settings.pop("DATABASE_URL")
    served, checked = await asyncio.gather(
        asyncio.to_thread(serve, url, **settings), asyncio.to_thread(check, url, **settings)
    )
    assert served.returncode == 2, served.stderr
    assert checked.returncode in (1, 2)
    if checked.returncode == 1:
        assert "broken" in checked.stdout


async def test_an_address_that_is_taken_may_be_the_servers_own(healthy: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = await asyncio.to_thread(check, healthy, REALTIME_JWT_SECRET=SECRET, REALTIME_PORT=port)
    assert (done.returncode, done.stderr) == (0, "")
