"""Logical replication between two clusters: what its apply workers write is published and kept like everything else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg
import pytest

from insforge_realtime.pg.database import Database
from insforge_realtime.pg.embedded import EmbeddedPostgres
from insforge_realtime.pg.migrate import migrate
from support.databases import MAJORS, running_cluster, wait_until
from support.feeds import listening

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

PUBLISH = "SELECT realtime.publish('room:1', $1, '{}')"
CHANNEL = "INSERT INTO realtime.channels (pattern, webhook_urls) VALUES ('room:%', '{http://127.0.0.1:1/}')"
ORDERS = "CREATE TABLE orders (id int PRIMARY KEY, status text)"
TELL = """
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
    $$ BEGIN PERFORM realtime.publish('room:1', NEW.status, '{}'); RETURN NEW; END $$;
CREATE TRIGGER tell AFTER INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION tell();
ALTER TABLE orders ENABLE ALWAYS TRIGGER tell;
"""
KEPT = """
SELECT id, event_name, sender_type, sender_id, channel_id, ws_audience_count, wh_audience_count FROM realtime.messages
WHERE event_name LIKE 'theirs%' ORDER BY id
"""


@pytest.fixture(scope="module", params=MAJORS, ids=[f"pg{major}" for major in MAJORS])
def clusters(request: pytest.FixtureRequest) -> Iterator[tuple[EmbeddedPostgres, EmbeddedPostgres]]:
    """A publisher and a subscriber."""
    with running_cluster(request.param, wal_level="logical") as publisher, running_cluster(request.param) as subscriber:
        yield publisher, subscriber


@asynccontextmanager
async def connection_to(url: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        connection.terminate()


@asynccontextmanager
async def two_databases(
    clusters: tuple[EmbeddedPostgres, EmbeddedPostgres], name: str
) -> AsyncIterator[tuple[Connection, Connection]]:
    """Connections to a database of this name on each side."""
    for cluster in clusters:
        async with connection_to(cluster.dsn) as admin:
            await admin.execute(f"CREATE DATABASE {name}")
    publisher, subscriber = (cluster.url(name) for cluster in clusters)
    async with connection_to(publisher) as there, connection_to(subscriber) as here:
        yield there, here
        await here.execute(f"DROP SUBSCRIPTION IF EXISTS {name}")


async def subscribe(clusters: tuple[EmbeddedPostgres, EmbeddedPostgres], name: str, here: Connection) -> None:
    """Replicate what the publication of this name has, as the superuser, and wait until what was there before is copied."""
    options = "WITH (run_as_owner = true)" if here.get_server_version().major >= 16 else ""
    await here.execute(f"CREATE SUBSCRIPTION {name} CONNECTION '{clusters[0].url(name)}' PUBLICATION {name} {options}")
    async with asyncio.timeout(30):
        while await here.fetchval("SELECT EXISTS (SELECT FROM pg_subscription_rel WHERE srsubstate <> 'r')"):
            await asyncio.sleep(0.02)


async def test_a_subscribers_trigger_publishes_and_its_messages_are_rung_for_and_sent_to_webhooks(
    clusters: tuple[EmbeddedPostgres, EmbeddedPostgres],
) -> None:
    async with two_databases(clusters, "app") as (there, here):
        await there.execute(f"{ORDERS}; CREATE PUBLICATION app FOR TABLE orders")
        await migrate(Database(clusters[1].url("app")))
        await here.execute(f"{CHANNEL}; {ORDERS}; {TELL}")
        await there.execute("INSERT INTO orders VALUES (0, 'early')")
        async with listening(clusters[1].url("app")) as [ear]:
            await subscribe(clusters, "app", here)
            await wait_until(lambda: "early" in ear.names)
            for n in range(3):
                await wait_until(lambda: ear.feed.asleep)
                await there.execute("INSERT INTO orders VALUES ($1, $2)", n + 1, f"new {n}")
                await wait_until(lambda n=n: f"new {n}" in ear.names)  # type: ignore[misc]
                await there.execute("UPDATE orders SET status = $2 WHERE id = $1", n + 1, f"paid {n}")
                await wait_until(lambda n=n: f"paid {n}" in ear.names)  # type: ignore[misc]
        assert ear.names == ["early", "new 0", "paid 0", "new 1", "paid 1", "new 2", "paid 2"]
        assert await here.fetchval("SELECT count(*) FROM realtime.webhook_deliveries") == 7
        assert await here.fetchval("SELECT count(*) FROM realtime.messages WHERE sender_type = 'system'") == 7


async def test_replicated_messages_are_kept_as_they_are_and_are_nobodys_new_messages(
    clusters: tuple[EmbeddedPostgres, EmbeddedPostgres],
) -> None:
    """The schema belongs to a plain role here, so that the apply worker is not the owner; both sides publish."""
    async with two_databases(clusters, "history") as (there, here):
        await migrate(Database(clusters[0].url("history")))
        await there.execute(f"{CHANNEL}; CREATE PUBLICATION history FOR TABLE realtime.channels, realtime.messages")
        await prepare_plain_owner(here, "history")
        await migrate(Database(clusters[1].url("history", "plain", "secret")))
        await there.execute(PUBLISH, "theirs before")
        async with listening(clusters[1].url("history")) as [ear]:
            await subscribe(clusters, "history", here)
            for n in range(20):
                await there.execute(PUBLISH, f"theirs {n}")
                await here.execute(PUBLISH, f"ours {n}")
            await there.execute("UPDATE realtime.messages SET ws_audience_count = 7")
            async with asyncio.timeout(30):
                while await here.fetch(KEPT) != await there.fetch(KEPT):
                    await asyncio.sleep(0.02)
            await here.execute(PUBLISH, "ours at last")
            await wait_until(lambda: "ours at last" in ear.names)
        assert sorted(ear.names) == sorted([*(f"ours {n}" for n in range(20)), "ours at last"])
        assert await here.fetchval("SELECT count(*) FROM realtime.messages WHERE xid = '0'") == 21
        assert await here.fetchval("SELECT count(*) FROM realtime.webhook_deliveries") == 21, "ours"
        assert await here.fetchval("SELECT count(*) FROM pg_stat_subscription WHERE pid IS NOT NULL") == 1, "it goes on"


async def prepare_plain_owner(db: Connection, name: str) -> None:
    """The role `plain`, which may migrate this database."""
    for role in ("anon", "authenticated", "project_admin"):
        await db.execute(f"DO $$ BEGIN CREATE ROLE {role}; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    await db.execute(
        "CREATE ROLE plain LOGIN PASSWORD 'secret'; GRANT anon, authenticated, project_admin TO plain;"
        f"GRANT CREATE ON DATABASE {name} TO plain"
    )
