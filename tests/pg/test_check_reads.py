"""What policies read, through views, other tables' policies and functions: what of it is not granted, or shows nothing, is
found; and the finding is true, since PostgreSQL judges just so."""

from __future__ import annotations

import json

import asyncpg
import pytest

from insforge_realtime.pg.demo import ALICE
from insforge_realtime.pg.queries import query
from support.patients import run, the_trouble, troubles

STRANGER = "DO $$ BEGIN CREATE ROLE a_stranger; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;"
LISTS = f"CREATE TABLE lists (id int, owner uuid); INSERT INTO lists VALUES (1, '{ALICE}');"
GRANTED = LISTS + "GRANT SELECT ON lists TO authenticated;"
CLOSED = GRANTED + "ALTER TABLE lists ENABLE ROW LEVEL SECURITY;"
MINE = "CREATE VIEW mine AS SELECT id FROM lists; GRANT SELECT ON mine TO authenticated;"
SHOWS_NOTHING = "the policy seen on realtime.channels reads lists, whose row-level security shows nothing to "


def seen(expression: str, role: str = "authenticated") -> str:
    """A policy by which a client hears of `news`, if what it reads may be read."""
    return f"CREATE POLICY seen ON realtime.channels FOR SELECT TO {role} USING (pattern = 'news' AND {expression});"


ROW = seen("EXISTS (SELECT FROM lists WHERE owner = auth.uid())")
IN_A_VIEW = seen("EXISTS (SELECT id FROM mine)")

BROKEN = {
    "a table that is not granted": (
        LISTS + ROW,
        "the role authenticated lacks SELECT (owner) ON lists, which the policy seen on realtime.channels needs: it raises",
        "GRANT SELECT (owner) ON lists TO authenticated",
    ),
    "a table that is counted": (
        LISTS + seen("(SELECT count(*) FROM lists) > 0"),
        "the role authenticated lacks SELECT ON lists",
        "GRANT SELECT ON lists TO authenticated",
    ),
    "a table whose row-level security shows nothing": (
        CLOSED + ROW, SHOWS_NOTHING + "authenticated", "CREATE POLICY own ON lists FOR SELECT TO authenticated USING (true)"
    ),
    "a table whose policies are for others, or for writing": (
        CLOSED + "CREATE POLICY a ON lists FOR SELECT TO anon USING (true);"
        "CREATE POLICY b ON lists FOR INSERT WITH CHECK (true);"
        "CREATE POLICY c ON lists AS RESTRICTIVE FOR SELECT USING (true);" + ROW,
        SHOWS_NOTHING + "authenticated",
        "CREATE POLICY own ON lists FOR SELECT TO authenticated USING (true)",
    ),
    "a view that is not granted": (
        LISTS + MINE + "REVOKE SELECT ON mine FROM authenticated;" + IN_A_VIEW,
        "the role authenticated lacks SELECT (id) ON mine",
        "GRANT SELECT (id) ON mine TO authenticated",
    ),
    "a view whose owner may not read": (
        STRANGER + LISTS + MINE + "ALTER VIEW mine OWNER TO a_stranger;" + IN_A_VIEW,
        "the role a_stranger lacks SELECT (id) ON lists",
        "GRANT SELECT (id) ON lists TO a_stranger",
    ),
    "a view that asks as the client": (
        LISTS + MINE + "ALTER VIEW mine SET (security_invoker = true);" + IN_A_VIEW,
        "the role authenticated lacks SELECT (id) ON lists",
        "GRANT SELECT (id) ON lists TO authenticated",
    ),
    "a view of a view": (
        STRANGER + LISTS + MINE + "CREATE VIEW ours AS SELECT id FROM mine; GRANT SELECT ON ours TO authenticated;"
        "ALTER VIEW ours OWNER TO a_stranger;" + seen("EXISTS (SELECT id FROM ours)"),
        "the role a_stranger lacks SELECT (id) ON mine",
        "GRANT SELECT (id) ON mine TO a_stranger",
    ),
    "a view over a table that shows its owner nothing": (
        STRANGER + CLOSED + MINE + "GRANT SELECT ON lists TO a_stranger; ALTER VIEW mine OWNER TO a_stranger;" + IN_A_VIEW,
        SHOWS_NOTHING + "a_stranger",
        "CREATE POLICY own ON lists FOR SELECT TO a_stranger USING (true)",
    ),
    "what the policy of a table reads": (
        CLOSED + f"CREATE TABLE owners (owner uuid); INSERT INTO owners VALUES ('{ALICE}');"
        "CREATE POLICY own ON lists FOR SELECT TO authenticated USING (owner IN (SELECT o.owner FROM owners o));" + ROW,
        "the role authenticated lacks SELECT (owner) ON owners, which the policy seen",
        "GRANT SELECT (owner) ON owners TO authenticated",
    ),
    "a function with a body in SQL": (
        LISTS + "CREATE FUNCTION any_list() RETURNS bool STABLE BEGIN ATOMIC SELECT EXISTS (SELECT id FROM lists); END;"
        + seen("any_list()"),
        "the role authenticated lacks SELECT (id) ON lists",
        "GRANT SELECT (id) ON lists TO authenticated",
    ),
}  # fmt: skip

FINE = {
    "a table of a schema that a client may not use": "CREATE SCHEMA shop; CREATE TABLE shop.lists AS SELECT 1 AS id;"
    "GRANT SELECT ON shop.lists TO authenticated;" + seen("EXISTS (SELECT id FROM shop.lists)"),
    "a column that is granted": LISTS + "GRANT SELECT (owner) ON lists TO PUBLIC;" + ROW,
    "a table whose policies show a row": CLOSED + "CREATE POLICY own ON lists FOR SELECT USING (owner = auth.uid());" + ROW,
    "a view that asks as its owner": LISTS + "ALTER TABLE lists ENABLE ROW LEVEL SECURITY;" + MINE + IN_A_VIEW,
    "a function that asks as its owner": LISTS + "ALTER TABLE lists ENABLE ROW LEVEL SECURITY; CREATE FUNCTION any_list()"
    " RETURNS bool STABLE SECURITY DEFINER BEGIN ATOMIC SELECT EXISTS (SELECT id FROM lists); END;" + seen("any_list()"),
    "a function whose text is not looked into": LISTS + "CREATE FUNCTION any_list() RETURNS bool LANGUAGE sql STABLE"
    " SECURITY DEFINER AS 'SELECT EXISTS (SELECT id FROM lists)';" + seen("any_list()"),
    "a policy for everybody, of a table that shows rows to some": LISTS + "GRANT SELECT ON lists TO PUBLIC; ALTER TABLE"
    " lists ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON lists FOR SELECT TO authenticated USING (true);"
    + seen("EXISTS (SELECT id FROM lists)", "PUBLIC"),
    "a policy that reads a table twice, and itself": CLOSED + "CREATE POLICY own ON lists FOR SELECT TO authenticated USING"
    " (owner = auth.uid());" + seen("EXISTS (SELECT FROM lists a JOIN lists b USING (id))"),
}  # fmt: skip


async def judged(url: str) -> str:
    """What a subscribe to `news` is answered."""
    connection = await asyncpg.connect(url)
    try:
        [verdict] = await connection.fetchval(
            query("check_subscribe"), ["authenticated"], [json.dumps({"sub": ALICE})], ["news"]
        )
        return str(verdict).partition("\n")[0]
    finally:
        await connection.close()


@pytest.fixture
async def news(admin: str) -> None:
    await run(admin, "INSERT INTO realtime.channels (pattern) VALUES ('news')")


@pytest.mark.usefixtures("news")
@pytest.mark.parametrize("name", BROKEN)
async def test_what_a_policy_cannot_read_is_broken_as_clients_find_out(healthy: str, admin: str, name: str) -> None:
    cause, what, cure = BROKEN[name]
    await run(admin, cause)
    assert await judged(healthy) in ("no", *(f"42501 permission denied for {kind}" for kind in DENIED))
    found = await the_trouble(healthy)
    assert found.verdict == "broken"
    assert what in found.what.replace("public.", "")
    assert cure in str(found.advice).replace("public.", "") or str(found.advice).startswith("CREATE POLICY ... ON ")
    await run(admin, cure)
    assert await troubles(healthy) == []
    assert await judged(healthy) == "yes"


DENIED = ("table lists", "table owners", "view mine", "view ours")


@pytest.mark.usefixtures("news")
@pytest.mark.parametrize("name", FINE)
async def test_what_a_policy_can_read_is_not_reported(healthy: str, admin: str, name: str) -> None:
    await run(admin, FINE[name])
    assert await judged(healthy) == "yes"
    assert await troubles(healthy) == []
