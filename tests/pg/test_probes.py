"""What trying tells of a database: auth.uid() as others define it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

from insforge_realtime.pg.probes import probe_auth_uid

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

DOCS = Path(__file__).parents[2] / "docs" / "database.md"
CLAIMS = "nullif(current_setting('request.jwt.claims', true), '')"
OTHERS = {
    f"SELECT ({CLAIMS}::jsonb ->> 'sub')::uuid": "raises for a token whose sub is not a uuid",
    "SELECT nullif(current_setting('request.jwt.claim.sub', true), '')::uuid": "raises for a token whose sub is not a uuid",
    "SELECT nullif(current_setting('somebodys.claims', true), '')::uuid": "ignores request.jwt.claims",
    "SELECT current_setting('app.user')::uuid": "raises for a token whose sub is a uuid: .*app.user",
    f"SELECT nullif(substring({CLAIMS}::jsonb ->> 'sub' FROM '^.{{36}}$'), '')::uuid": None,
    f"SELECT CASE WHEN {CLAIMS}::jsonb ->> 'sub' LIKE '%-%' THEN ({CLAIMS}::jsonb ->> 'sub')::uuid ELSE md5('')::uuid END": (
        "must be NULL: it mistakes one user for another"
    ),
    "SELECT substring(current_setting('request.jwt.claims')::jsonb ->> 'sub' FROM '^.{36}$')::uuid": (
        "raises for a session without a token"
    ),
}


@pytest.fixture
async def connection(database: str) -> AsyncIterator[Connection]:
    opened = await asyncpg.connect(database)
    yield opened
    await opened.close()


@pytest.mark.parametrize("in_transaction", [False, True])
async def test_our_own_auth_uid_is_fine_and_trying_it_leaves_nothing(
    connection: Connection, in_transaction: bool
) -> None:
    if in_transaction:
        await connection.transaction().start()
    assert await probe_auth_uid(connection) is None
    assert await connection.fetchval("SELECT auth.uid()") is None
    assert connection.is_in_transaction() is in_transaction


@pytest.mark.parametrize(("body", "wrong"), OTHERS.items())
async def test_what_is_wrong_with_anothers_auth_uid_is_named(
    connection: Connection, body: str, wrong: str | None
) -> None:
    await connection.transaction().start()
    await connection.execute(f"CREATE OR REPLACE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS $f${body}$f$")
    found = await probe_auth_uid(connection)
    if wrong is None:
        assert found is None
        return
    assert found is not None
    assert re.search(wrong, found)
    assert "docs/database.md" in found
    assert "\n" not in found
    assert await connection.fetchval("SELECT 1") == 1, "the caller's transaction goes on"


async def test_an_auth_uid_that_is_text_is_named_where_its_answer_is_no_uuid(connection: Connection) -> None:
    body = f"SELECT {CLAIMS}::jsonb ->> 'sub'"
    await connection.execute("DROP FUNCTION auth.uid()")
    await connection.execute(f"CREATE FUNCTION auth.uid() RETURNS text LANGUAGE sql AS $f${body}$f$")
    assert "raises for a token whose sub is not a uuid" in str(await probe_auth_uid(connection))


async def test_an_auth_uid_that_is_not_there_or_not_allowed_is_named(connection: Connection) -> None:
    await connection.transaction().start()
    await connection.execute("CREATE ROLE plain; REVOKE ALL ON SCHEMA auth FROM PUBLIC; SET ROLE plain")
    assert "may not be called" in str(await probe_auth_uid(connection))
    await connection.execute("RESET ROLE; DROP FUNCTION auth.uid()")
    assert "does not exist" in str(await probe_auth_uid(connection))
    await connection.execute("DROP SCHEMA auth CASCADE")
    assert "does not exist" in str(await probe_auth_uid(connection))


async def test_the_documented_auth_uid_is_fine(connection: Connection) -> None:
    [block] = re.findall(r"^```sql\n(CREATE OR REPLACE FUNCTION auth.uid.*?)^```", DOCS.read_text("utf-8"), re.M | re.S)
    await connection.execute("CREATE OR REPLACE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql AS 'SELECT NULL::uuid'")
    assert await probe_auth_uid(connection) is not None
    await connection.execute(block)
    assert await probe_auth_uid(connection) is None
