"""What `check` finds of the PostgreSQL server: its encoding, what it is, and the settings that hold for ours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from insforge_realtime.errors import RequestError
from insforge_realtime.model import Identity, Publication, Role
from insforge_realtime.pg.authorizer import Authorizer
from insforge_realtime.pg.check import examine
from insforge_realtime.pg.database import Database
from insforge_realtime.pg.embedded import EmbeddedPostgres
from insforge_realtime.pg.migrate import migrate
from insforge_realtime.pg.publishers import ClientPublisher
from support.databases import MAJORS, SERVER, Cluster, data_folder, installed, running_cluster, wait_until
from support.patients import as_user, configuration, heed, name_of, run, the_trouble, troubles

ROOM = "chat:c0000000-0000-4000-8000-000000000001"
ALICE = "a11ce000-0000-4000-8000-000000000001"


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_a_database_in_another_encoding_is_refused_by_name_and_nothing_else_is_said(
    cluster: Cluster, encoding: str
) -> None:
    url = await cluster.database("empty")
    await cluster.drop(url)
    await cluster.execute(
        f"CREATE DATABASE {name_of(url)} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"
    )
    found = await the_trouble(url)
    assert (found.verdict, found.what.split(":")[0]) == (
        "broken",
        f"the database is encoded in {encoding}, not in UTF8",
    )
    assert "ENCODING 'UTF8'" in str(found.advice)
    await cluster.drop(url)


@pytest.mark.parametrize("major", MAJORS)
async def test_a_standby_is_named_and_nothing_else_is_said(major: int) -> None:
    binaries = installed(major)
    if binaries is None:
        pytest.skip(f"PostgreSQL {major} is not installed")
    with data_folder() as folder, EmbeddedPostgres(folder / "pg", binaries=binaries) as postgres:
        url = postgres.url("postgres")
        await migrate(Database(url))
        postgres.stop()
        (postgres.data_dir / "cluster").resolve().joinpath("standby.signal").touch()
        postgres.start()
        found = await the_trouble(postgres.url("postgres"))
    assert (found.verdict, found.what.split(",")[0]) == ("broken", "the database is a standby")
    assert "primary" in str(found.advice)


@asynccontextmanager
async def serving(url: str) -> AsyncIterator[tuple[Authorizer, ClientPublisher]]:
    """The server's own connections, by which clients are judged."""
    authorizer, store = Authorizer(Database(url, connections=1)), ClientPublisher(Database(url, connections=1))
    tasks = [asyncio.create_task(part.coalescer.run()) for part in (authorizer, store)]
    try:
        await wait_until(lambda: authorizer.coalescer.live and store.coalescer.live)
        yield authorizer, store
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def serves(url: str) -> bool:
    """Whether a member of the demo's chat room may subscribe and publish."""
    alice = Identity(Role.AUTHENTICATED, json.dumps({"sub": ALICE, "role": "authenticated"}), ALICE)
    async with serving(url) as (authorizer, store):
        try:
            await authorizer.check_subscribe(alice, ROOM)
            await store.publish(Publication(alice, ROOM, "said", "{}"))
        except RequestError:
            return False
    return True


SETTINGS = {
    "row_security": "off",
    "default_transaction_read_only": "on",
    "session_replication_role": "replica",
    "standard_conforming_strings": "off",
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("scope", ["ROLE {role} IN DATABASE {database}", "DATABASE {database}", "ROLE {role}"])
async def test_a_setting_under_which_the_server_does_not_work_is_broken_until_cured_as_advised(
    healthy: str, admin: str, name: str, scope: str
) -> None:
    where = scope.format(role=SERVER, database=name_of(healthy))
    await run(admin, f"ALTER {where} SET {name} = {SETTINGS[name]}")
    try:
        found = await troubles(healthy)
        named = [finding for finding in found if finding.what.startswith(name.removeprefix("default_"))]
        assert {finding.verdict for finding in named} == (set() if await serves(healthy) else {"broken"})
        for finding in named:
            await heed(admin, finding.advice)
        assert await troubles(healthy) == []
        assert await serves(healthy)
    finally:
        reset = f"ALTER ROLE {SERVER} RESET ALL; ALTER ROLE {SERVER} IN DATABASE {name_of(healthy)} RESET ALL"
        await heed(admin, f"SET default_transaction_read_only = off; {reset}")


async def test_a_database_that_forgets_what_it_has_acknowledged_is_a_warning(healthy: str, admin: str) -> None:
    await run(admin, f"ALTER DATABASE {name_of(healthy)} SET synchronous_commit = off")
    found = await the_trouble(healthy)
    assert found.verdict == "warning"
    assert "can lose the messages of its last moments" in found.what
    await run(admin, str(found.advice))
    try:
        assert await troubles(healthy) == []
    finally:
        await run(admin, f"ALTER ROLE {SERVER} IN DATABASE {name_of(healthy)} RESET ALL")


@pytest.mark.parametrize("level", ["serializable", "repeatable read"])
async def test_a_stricter_isolation_is_a_warning_where_it_holds_for_the_server(
    healthy: str, admin: str, level: str
) -> None:
    await run(admin, f"ALTER DATABASE {name_of(healthy)} SET default_transaction_isolation = '{level}'")
    async with Database(healthy).connected("test") as connection:
        holds = await connection.fetchval("SELECT current_setting('transaction_isolation')") == level
    found = await troubles(healthy)
    assert [finding.verdict for finding in found] == ["warning"] * holds
    for finding in found:
        assert f"transaction_isolation is {level} for the server" in finding.what
        await run(admin, str(finding.advice))
    assert await troubles(healthy) == []
    await run(admin, f"ALTER ROLE {SERVER} IN DATABASE {name_of(healthy)} RESET ALL")


async def test_settings_that_are_only_for_others_are_none_of_ours(healthy: str, admin: str) -> None:
    await run(
        admin, "ALTER ROLE authenticated SET row_security = off; ALTER ROLE anon SET default_transaction_read_only = on"
    )
    try:
        assert await troubles(healthy) == []
        assert await serves(healthy)
    finally:
        await run(admin, "ALTER ROLE authenticated RESET ALL; ALTER ROLE anon RESET ALL")


@pytest.fixture(params=MAJORS)
async def risky(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """A database on a server that may prepare transactions and does not flush."""
    if installed(request.param) is None:
        pytest.skip(f"PostgreSQL {request.param} is not installed")
    with running_cluster(
        request.param, fsync="off", max_prepared_transactions="5", synchronous_commit="on"
    ) as postgres:
        yield as_user(await Cluster(postgres, request.param).database("served"), SERVER)


async def test_a_server_that_does_not_flush_is_a_warning_until_cured_as_advised(risky: str) -> None:
    found = [finding for finding in await troubles(risky) if finding.what.startswith("fsync")]
    assert [finding.verdict for finding in found] == ["warning"]
    assert "can lose any message" in found[0].what
    assert str(found[0].advice).startswith("ALTER SYSTEM SET fsync = 'on'")


async def test_a_server_that_may_prepare_transactions_is_a_warning_unless_the_database_says_that_it_does_not(
    risky: str,
) -> None:
    connection = await asyncpg.connect(risky)
    looks = await connection.fetchval("SELECT to_regprocedure('realtime.is_two_phase()') IS NOT NULL")
    await connection.close()
    said = [finding for finding in await examine(configuration(risky)) if "prepared" in finding.what]
    assert [finding.verdict for finding in said] == ["warning"] * looks
