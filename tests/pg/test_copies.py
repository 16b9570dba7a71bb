"""Rows of realtime.messages that are copies of messages from another life: COPY, INSERT, dumps, while the server runs."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

from insforge_realtime.pg.database import Database
from insforge_realtime.pg.migrate import migrate
from support.databases import Cluster, wait_until
from support.feeds import Listener, listening

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

PUBLISH = "SELECT realtime.publish('room:1', 'e', jsonb_build_object('n', $1::int))"
COLUMNS = "event_name, channel_name, sender_type, wh_audience_count, created_at, seq, xid"
HISTORY = """
SELECT string_agg(concat_ws('|', id, event_name, channel_id, channel_name, payload, sender_type, sender_id,
    ws_audience_count, wh_audience_count, wh_delivered_count, created_at), E'\\n' ORDER BY id) FROM realtime.messages
"""


@asynccontextmanager
async def connection_to(url: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        connection.terminate()


@pytest.fixture
async def db(database: str) -> AsyncIterator[Connection]:
    """A connection to a database with one channel pattern, which has a webhook."""
    async with connection_to(database) as connection:
        await connection.execute(
            "INSERT INTO realtime.channels (pattern, webhook_urls) VALUES ('room:%', '{http://127.0.0.1:1/}')"
        )
        yield connection


async def nothing_but(db: Connection, ear: Listener, *numbers: int) -> None:
    """Whatever was to be delivered before has been, once this message has."""
    looks = len(numbers)
    await db.execute(PUBLISH, 1000 + looks)
    await wait_until(lambda: 1000 + looks in ear.numbers)
    await db.execute(PUBLISH, 2000 + looks)
    await wait_until(lambda: 2000 + looks in ear.numbers)
    assert ear.numbers == [*numbers, 1000 + looks, 2000 + looks]
    ear.forget()


async def xids(db: Connection, soon: int = 5) -> dict[str, int]:
    """Transaction ids of every kind, as a running feed sees them. `soon` transactions on one of them is given out."""
    now = await db.fetchval("SELECT pg_current_xact_id()::text::bigint")
    return {"past": 3, "recent": now - 1, "next": now + 1, "soon": now + soon, "future": now + 10**9}


async def test_rows_that_are_copied_in_are_never_delivered_whatever_transaction_they_name(
    database: str, db: Connection
) -> None:
    async with listening(database, fallback=2.0) as [ear], connection_to(database) as writer:
        await writer.execute("BEGIN")  # holds the feed's window open: its transaction is in every snapshot to come
        inside = await writer.fetchval("SELECT pg_current_xact_id()::text::bigint")
        named = {**(await xids(db)), "inside": inside}
        rows = [
            ("copied", "room:1", "system", 1, "2001-01-01", 10_000 + n, xid) for n, xid in enumerate(named.values())
        ]
        await copy(db, "".join("\t".join(map(str, row)) + "\n" for row in rows))
        await db.execute(
            f"INSERT INTO realtime.messages ({COLUMNS}) OVERRIDING SYSTEM VALUE"
            f" VALUES ('e', 'room:1', 'user', 1, '2001-01-01', 20000, '{inside}')"
        )
        await writer.execute("COMMIT")
        await nothing_but(db, ear)
    copies = await db.fetch("SELECT xid::text, seq FROM realtime.messages WHERE seq >= 10000 ORDER BY seq")
    assert [row["xid"] for row in copies] == ["0"] * 7
    assert [row["seq"] for row in copies] == [*range(10_000, 10_006), 20_000]
    assert await db.fetchval("SELECT count(*) FROM realtime.webhook_deliveries") == 2, (
        "those of the two that were published"
    )


async def copy(db: Connection, text: str) -> None:
    """COPY in the text format, as pg_dump writes it."""

    async def source() -> AsyncIterator[bytes]:
        yield text.encode()

    await db.copy_to_table(
        "messages", schema_name="realtime", columns=COLUMNS.split(", "), source=source(), format="text"
    )


async def test_an_update_makes_no_message_a_new_one_nor_an_old_one(database: str, db: Connection) -> None:
    await db.execute(PUBLISH, 1)
    xid = await db.fetchval("SELECT xid::text FROM realtime.messages")
    async with listening(database, fallback=2.0) as [ear]:
        for other in (await xids(db, soon=50)).values():  # with 5, the feed's own transactions may make it the update's
            await db.execute(f"UPDATE realtime.messages SET xid = '{other}'")
            assert await db.fetchval("SELECT xid::text FROM realtime.messages") == xid
        await db.execute("UPDATE realtime.messages SET xid = xid, payload = payload")
        await nothing_but(db, ear)
        await db.execute("UPDATE realtime.messages SET xid = pg_current_xact_id() WHERE payload->>'n' = '1'")
        await wait_until(lambda: ear.numbers)
        await nothing_but(db, ear, 1)
    await db.execute("UPDATE realtime.messages SET xid = '0'")
    assert await db.fetchval("SELECT max(xid::text) FROM realtime.messages") == "0"


async def test_a_message_that_is_updated_before_it_was_seen_is_delivered(database: str, db: Connection) -> None:
    async with listening(database, fallback=2.0) as [ear]:
        for n in range(20):
            await db.execute(PUBLISH, n)
            await db.execute("UPDATE realtime.messages SET xid = xid, seq = DEFAULT WHERE payload->>'n' = $1", str(n))
        await wait_until(lambda: 19 in ear.numbers)
        assert set(ear.numbers) == set(range(20))


async def test_a_message_with_a_time_of_its_own_is_a_new_one(database: str, db: Connection) -> None:
    """Its number was drawn just now, which a copy's was not. Also for clients, who may not read the sequence."""
    async with listening(database, fallback=2.0) as [ear]:
        for n in range(3):
            await db.execute(
                "INSERT INTO realtime.messages (event_name, channel_name, payload, created_at, wh_audience_count)"
                " SELECT 'e', 'room:1', jsonb_build_object('n', n), '2001-01-01', 1 FROM generate_series($1::int, $1 + 1) n",
                2 * n,
            )
        await db.execute(
            "CREATE POLICY anything ON realtime.messages FOR INSERT TO authenticated WITH CHECK (true);"
            "SET ROLE authenticated; INSERT INTO realtime.messages (event_name, channel_name, payload, created_at)"
            " VALUES ('e', 'room:1', '{\"n\": 6}', '2001-01-01'); RESET ROLE"
        )
        await wait_until(lambda: 6 in ear.numbers)
        assert ear.numbers == list(range(7))
    assert await db.fetchval("SELECT count(*) FROM realtime.webhook_deliveries") == 7


async def test_a_copy_whose_transaction_is_by_chance_that_which_brings_it_is_a_copy(db: Connection) -> None:
    for drawn in (False, True):
        async with db.transaction():
            if drawn:
                await db.execute(PUBLISH, 1)
            xid = await db.fetchval("SELECT pg_current_xact_id()::text")
            await copy(db, f"e\troom:1\tsystem\t1\t2001-01-01\t{100 + drawn}\t{xid}\n")
        assert await db.fetchval("SELECT xid::text FROM realtime.messages WHERE seq = $1", 100 + drawn) == "0"


# ---- who may bring copies along ----------------------------------------------------------------------------


@pytest.fixture
async def owned(cluster: Cluster) -> AsyncIterator[str]:
    """The superuser's URL of a database that the plain role `app` has migrated; `helper` is a member of it."""
    url = await cluster.database("empty")
    await cluster.execute(
        "CREATE ROLE app LOGIN PASSWORD 'secret'; CREATE ROLE helper BYPASSRLS; GRANT app TO helper; CREATE ROLE stranger;"
        f"GRANT CREATE ON DATABASE {url.rsplit('/', 1)[1]} TO app"
    )
    for role in ("anon", "authenticated", "project_admin"):
        await cluster.execute(
            f"DO $$ BEGIN CREATE ROLE {role}; EXCEPTION WHEN duplicate_object THEN NULL; END $$; GRANT {role} TO app"
        )
    await migrate(Database(f"postgresql://app:secret@{url.rsplit('@', 1)[1]}"))
    async with connection_to(url) as connection:
        await connection.execute(
            "INSERT INTO realtime.channels (pattern, webhook_urls) VALUES ('room:%', '{http://127.0.0.1:1/}');"
            "CREATE POLICY strangers ON realtime.messages FOR INSERT TO stranger WITH CHECK (true);"
            "GRANT USAGE ON SCHEMA realtime TO stranger; GRANT INSERT ON realtime.messages TO stranger"
        )
    yield url
    await cluster.drop(url)
    await cluster.execute("DROP ROLE app, helper, stranger")


INSERT = (
    f"INSERT INTO realtime.messages ({COLUMNS}) OVERRIDING SYSTEM VALUE "
    "VALUES ('e', 'room:1', 'system', 1, '2001-01-01', 9000, '3')"
)
COPY_OF = ("0", "system", 9000)


@pytest.mark.parametrize("role", ["postgres", "app", "helper"])
async def test_whoever_could_be_the_owner_brings_copies_along_as_they_are(owned: str, role: str) -> None:
    async with connection_to(owned) as db:
        await db.execute(f"SET ROLE {role}")
        await db.execute(INSERT)
        await db.execute("RESET ROLE")
        assert tuple(await db.fetchrow("SELECT xid::text, sender_type, seq FROM realtime.messages") or ()) == COPY_OF
        assert await db.fetchval("SELECT count(*) FROM realtime.webhook_deliveries") == 0


async def test_what_anybody_else_inserts_is_a_users_new_message_whatever_it_says(owned: str) -> None:
    async with connection_to(owned) as db, listening(owned, fallback=2.0) as [ear]:
        await db.execute("SET ROLE stranger")
        await db.execute(INSERT)
        await db.execute("RESET ROLE")
        await wait_until(lambda: ear.numbers)
        row = tuple(await db.fetchrow("SELECT xid <> '0', sender_type, seq < 9000 FROM realtime.messages") or ())
        assert row == (True, "user", True)
        assert await db.fetchval("SELECT count(*) FROM realtime.webhook_deliveries") == 1


# ---- dumps -------------------------------------------------------------------------------------------------


def program(cluster: Cluster, name: str, *arguments: str, fed: bytes = b"") -> bytes:
    """What one of this PostgreSQL's own programs writes."""
    assert cluster.postgres.psql is not None
    command: list[str | Path] = [cluster.postgres.psql.with_name(name), *arguments]
    done = subprocess.run(command, input=fed, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("form", ["plain", "custom"])
async def test_a_dump_of_the_data_can_be_restored_beneath_a_running_server(
    cluster: Cluster, database: str, form: str
) -> None:
    """From a cluster that is ahead: its transactions are still to come here."""
    source = await cluster.database()
    async with connection_to(source) as theirs, connection_to(database) as db:
        await theirs.execute(
            "INSERT INTO realtime.channels (pattern, webhook_urls) VALUES ('room:%', '{http://[::1]:1}')"
        )
        for n in range(20):
            await theirs.execute(PUBLISH, n)
        await theirs.execute(
            "UPDATE realtime.messages SET ws_audience_count = 3; ALTER TABLE realtime.messages DISABLE TRIGGER USER;"
            "UPDATE realtime.messages SET xid = (pg_current_xact_id()::text::bigint + seq - 10)::text::xid8"
        )
        tables = [f"--table=realtime.{name}" for name in ("channels", "messages")]
        dump = program(cluster, "pg_dump", "--data-only", f"--format={form}", *tables, source)
        async with listening(database, fallback=2.0) as [ear]:
            if form == "plain":
                program(cluster, "psql", "--set=ON_ERROR_STOP=1", database, fed=dump)
            else:
                program(cluster, "pg_restore", "--exit-on-error", f"--dbname={database}", fed=dump)
            assert await db.fetchval(HISTORY) == await theirs.fetchval(HISTORY)
            assert await db.fetchval("SELECT count(*) FROM realtime.webhook_deliveries") == 0
            await nothing_but(db, ear)
    await cluster.drop(source)
