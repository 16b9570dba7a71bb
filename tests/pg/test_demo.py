"""The demo in a database: loaded as often as one likes, and never into what an application has made under its names."""

from __future__ import annotations

import asyncpg
import pytest

from insforge_realtime.errors import DatabaseError
from insforge_realtime.pg.database import Database
from insforge_realtime.pg.demo import OBJECTS, load_demo
from insforge_realtime.pg.queries import query
from support.databases import Cluster
from support.patients import run

ORDERS = "SELECT count(*) FROM orders"
UNMARKED = """
DO $$ DECLARE d record; BEGIN
    FOR d IN SELECT * FROM pg_description WHERE description LIKE 'Made by the demo%' LOOP
        DELETE FROM pg_description WHERE objoid = d.objoid AND classoid = d.classoid;
    END LOOP;
END $$;
UPDATE realtime.channels SET description = 'Global order events';
"""
"""As the demo of an earlier version left it."""


async def ask(url: str, statement: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def objects(url: str) -> list[tuple[str, bool]]:
    connection = await asyncpg.connect(url)
    try:
        return sorted((row["what"], row["ours"]) for row in await connection.fetch(query("demo_objects")))
    finally:
        await connection.close()


async def test_the_demo_marks_everything_that_it_makes_and_is_loaded_again(database: str) -> None:
    for _ in range(2):
        assert await load_demo(Database(database)) == []
        found = await objects(database)
        assert len(found) == OBJECTS
        assert all(ours for _, ours in found), found
    await run(database, "UPDATE orders SET status = 'lost'; ALTER TABLE orders ADD COLUMN mine text")
    assert await load_demo(Database(database)) == []
    assert await ask(database, "SELECT count(*) FROM orders WHERE status = 'lost'") == 3


IN_THE_WAY = {
    "a table": ("CREATE TABLE admins (id int)", "the table admins"),
    "a view": ("CREATE VIEW chat_members AS SELECT 1 AS one", "the table chat_members"),
    "a table of another schema of the path": (
        "CREATE SCHEMA shop; CREATE TABLE shop.orders (id int);"
        "ALTER ROLE postgres IN DATABASE {name} SET search_path = public, shop",
        "the table orders",
    ),
    "a type": ("CREATE TYPE orders AS ENUM ('one')", "the type orders"),
    "a function": (
        "CREATE FUNCTION notify_order_changes() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "the function notify_order_changes()",
    ),
    "a policy": (
        "CREATE POLICY members_subscribe_chat ON realtime.channels FOR SELECT TO authenticated USING (false)",
        "the policy members_subscribe_chat on realtime.channels",
    ),
    "a channel": ("INSERT INTO realtime.channels (pattern) VALUES ('chat:%')", "the channel chat:%"),
}  # fmt: skip


@pytest.mark.parametrize("name", IN_THE_WAY)
async def test_what_the_demo_did_not_make_keeps_all_of_it_out(database: str, name: str) -> None:
    cause, what = IN_THE_WAY[name]
    await run(database, cause.format(name=database.rpartition("/")[2]))
    before = await objects(database)
    for unmarked in (False, True):
        assert [found.replace("public.", "") for found in await load_demo(Database(database), unmarked=unmarked)] == [
            what
        ]
        assert await objects(database) == before


async def test_a_table_that_took_the_place_of_the_demos_is_the_applications(database: str) -> None:
    await load_demo(Database(database))
    await run(database, "DROP TABLE admins CASCADE; CREATE TABLE admins (name text); INSERT INTO admins VALUES ('me')")
    assert await load_demo(Database(database), unmarked=True) == ["the table admins"]
    assert await ask(database, "SELECT name FROM admins") == "me"


async def test_the_demo_of_an_earlier_version_is_known_in_devs_own_database_only(database: str) -> None:
    await load_demo(Database(database))
    await run(database, UNMARKED)
    assert len(await load_demo(Database(database))) == OBJECTS
    assert await load_demo(Database(database), unmarked=True) == []
    assert await load_demo(Database(database)) == []


async def test_a_database_that_refuses_is_one_line(cluster: Cluster, database: str) -> None:
    await cluster.execute(f"ALTER DATABASE {database.rpartition('/')[2]} SET default_transaction_read_only = on")
    with pytest.raises(DatabaseError, match=r"^the demo cannot be loaded: ReadOnly"):
        await load_demo(Database(database))
