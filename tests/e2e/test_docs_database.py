"""The roles of docs/database.md, by its own words: the statements of the page, each as the role that it names, then
`migrate`, `check`, and a server with clients, on each PostgreSQL."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import asyncpg
import pytest

from insforge_realtime.pg.database import Database
from insforge_realtime.pg.demo import ALICE
from insforge_realtime.pg.migrate import migrate
from support.databases import Cluster, running_cluster
from support.patients import run, troubles
from support.servers import Server, token
from support.wire import WireClient

PAGE = (Path(__file__).parents[2] / "docs" / "database.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"<!-- as: (\w+) -->\n```sql\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
LIST = "115f0000-0000-4000-8000-000000000001"
PASSWORD = "…"


def blocks(role: str) -> list[str]:
    return [sql for whose, sql in BLOCKS if whose == role]


@pytest.fixture(params=[15, 18], ids=["pg15", "pg18"])
async def server_of_its_own(request: pytest.FixtureRequest) -> AsyncIterator[Cluster]:
    with running_cluster(request.param, synchronous_commit="on") as postgres:
        yield Cluster(postgres, request.param)


def url_of(cluster: Cluster, role: str) -> str:
    return cluster.postgres.url("app", role, PASSWORD)


async def set_up(cluster: Cluster) -> None:
    """All that the page says, in its order."""
    await cluster.execute("CREATE DATABASE app")
    for sql in blocks("postgres"):
        await run(cluster.postgres.url("app"), sql)
    await migrate(Database(url_of(cluster, "realtime_server")))
    for sql in blocks("shop"):
        await run(url_of(cluster, "shop"), sql)
    for sql in blocks("realtime_server"):
        await run(url_of(cluster, "realtime_server"), sql)


def test_the_page_says_who_runs_what() -> None:
    assert [role for role, _ in BLOCKS] == [
        "postgres",
        "postgres",
        "shop",
        "realtime_server",
        "postgres",
        "realtime_server",
    ]


@pytest.mark.parametrize(
    ("role", "open_lines"),
    [
        ("realtime_server", []),
        ("realtime_serving", ["the server's role realtime_serving can do more than it needs (BYPASSRLS)"]),
    ],
)
async def test_the_documented_roles_are_all_that_is_needed_to_serve_subscribe_and_publish(
    server_of_its_own: Cluster, start: Callable[..., Server], role: str, open_lines: list[str]
) -> None:
    cluster = server_of_its_own
    await set_up(cluster)
    found = await troubles(url_of(cluster, role))
    assert [finding.what.partition(",")[0] for finding in found] == open_lines
    application = await asyncpg.connect(url_of(cluster, "shop"))
    await application.execute("INSERT INTO list_members VALUES ($1, $2)", LIST, ALICE)
    server = start(url_of(cluster, role))
    async with WireClient(server.ws_url, {"token": token(ALICE)}) as alice:
        assert (await alice.subscribe(f"list:{LIST}"))["ok"]
        assert not (await alice.subscribe(f"list:{ALICE}"))["ok"]
        await application.execute("INSERT INTO todos (list_id, title) VALUES ($1, 'water the plants')", LIST)
        [todo] = await alice.wait_for("INSERT_todo")
        assert (todo["title"], todo["meta"]["senderType"]) == ("water the plants", "system")
        await application.execute("UPDATE todos SET done = true; DELETE FROM todos")
        assert (await alice.wait_for("UPDATE_todo"))[0]["done"] is True
        assert (await alice.wait_for("DELETE_todo"))[0]["title"] == "water the plants"
        assert (await alice.publish(f"list:{LIST}", "typing", {}))["ok"]
        await alice.wait_for("typing")
    await application.close()
    assert server.errors() == []
    server.stop()


async def test_a_serving_role_without_its_grants_is_told_of_them(server_of_its_own: Cluster) -> None:
    cluster = server_of_its_own
    await set_up(cluster)
    await run(
        cluster.postgres.url("app"),
        "REVOKE USAGE ON SCHEMA realtime FROM realtime_serving;"
        "REVOKE anon, authenticated, project_admin FROM realtime_serving",
    )
    [found] = [found for found in await troubles(url_of(cluster, "realtime_serving")) if found.verdict == "broken"]
    assert found.what == "the server may not look into the schema realtime: permission denied for schema realtime"
    assert "GRANT USAGE ON SCHEMA realtime TO realtime_serving" in str(found.advice)
