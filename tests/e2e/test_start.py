"""How a server starts on a database that is not migrated, and what its log says of one that is away, goes, or comes back."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import asyncpg
import pytest

from insforge_realtime import Realtime
from insforge_realtime.errors import NotMigratedError
from insforge_realtime.pg import migrate as migration
from insforge_realtime.pg.database import Database
from insforge_realtime.pg.embedded import EmbeddedPostgres
from insforge_realtime.pg.migrate import migrate
from insforge_realtime.pg.pages import FeedHealth, Reason
from support.databases import Cluster, data_folder, free_port, wait_until
from support.servers import SECRET, Server

Start = Callable[..., Server]
FACTORY = "insforge_realtime:create_app"
COMMANDS = {
    "serve": ("insforge_realtime", "serve", "--port", "0"),
    "uvicorn": ("uvicorn", "--factory", FACTORY, "--port", "0"),
    "hypercorn": ("hypercorn", f"{FACTORY}()", "--bind", "127.0.0.1:0"),
    "granian": ("granian", "--interface", "asgi", "--factory", FACTORY, "--port", "{port}"),
}
RUN_MIGRATE = "run `insforge-realtime migrate`"


@pytest.fixture(params=["never", "long ago"])
async def unmigrated(
    request: pytest.FixtureRequest, newest: Cluster, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[str]:
    """A database that was never migrated, or by an earlier version."""
    url = await newest.database("empty")
    if request.param == "long ago":
        every = migration.migrations()
        with monkeypatch.context() as patch:
            patch.setattr(migration, "migrations", lambda: every[:-1])
            await migrate(Database(url))
    yield url
    await newest.drop(url)


def ended(command: str, url: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A server that is to end by itself."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("REALTIME_")}
    arguments = [part.format(port=free_port()) for part in COMMANDS[command]]
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        env={**inherited, "DATABASE_URL": url, "REALTIME_JWT_SECRET": SECRET, **environment},
        cwd="/", capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


async def test_serve_says_once_what_to_run_and_ends_with_status_2(unmigrated: str) -> None:
    done = await asyncio.to_thread(ended, "serve", unmigrated)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("error: the database ")
    assert RUN_MIGRATE in line


@pytest.mark.parametrize(("command", "status"), [("uvicorn", 3), ("hypercorn", 0), ("granian", 1)])
async def test_another_asgi_server_ends_too_and_says_what_to_run(command: str, status: int, unmigrated: str) -> None:
    done = await asyncio.to_thread(ended, command, unmigrated)
    assert done.returncode == status, done.stderr
    assert RUN_MIGRATE in done.stdout + done.stderr


async def test_inside_an_application_the_lifespan_raises_and_can_be_entered_again(unmigrated: str) -> None:
    realtime = Realtime(database_url=unmigrated, jwt_secret=SECRET)
    for _ in range(2):
        with pytest.raises(NotMigratedError, match=RUN_MIGRATE):
            async with realtime.lifespan():
                pass
    await migrate(Database(unmigrated))
    async with realtime.lifespan():
        assert await realtime.publish("nowhere", "e", {}) is None


async def test_a_role_that_may_not_look_is_told_by_the_links_as_before(newest: Cluster, start: Start) -> None:
    url = await newest.database()
    await newest.execute("CREATE ROLE stranger_to_the_schema LOGIN PASSWORD 'secret'")
    try:
        server = start(newest.postgres.url(url.rpartition("/")[2], "stranger_to_the_schema", "secret"))
        line = await asyncio.to_thread(server.wait_for_log, "the database cannot be used")
        assert "grant" in line["advice"]
        server.stop()
    finally:
        await newest.drop(url)
        await newest.execute("DROP ROLE stranger_to_the_schema")


def health(server: Server) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(f"{server.url}/api/health", timeout=10) as answer:
            return dict(json.load(answer)["feed"])
    except urllib.error.HTTPError as error:
        return dict(json.load(error)["feed"])


def of_links(server: Server, start: int = 0) -> list[dict[str, Any]]:
    return [line for line in server.lines[start:] if line["event"].startswith(("the database", "database link"))]


async def test_a_server_that_runs_lives_through_the_loss_of_its_schema(newest: Cluster, start: Start) -> None:
    url = await newest.database()
    server = start(url)
    connection = await asyncpg.connect(url)
    await connection.execute("DROP SCHEMA realtime CASCADE")
    await wait_until(lambda: health(server)["reason"] == "not migrated")
    assert server.process.poll() is None
    await connection.close()
    await migrate(Database(url))
    await wait_until(lambda: health(server)["state"] == "live", 30)
    line = await asyncio.to_thread(server.wait_for_log, "database links are back")
    assert line["level"] == "info"
    said = [line for line in of_links(server) if line["event"] == "the database cannot be used"]
    assert len(said) == len({line["advice"] for line in said})
    assert server.stop() == 0
    await newest.drop(url)


async def test_a_database_that_is_away_at_the_start_goes_and_comes_back_is_a_line_each_time(start: Start) -> None:
    with data_folder() as folder:
        postgres = EmbeddedPostgres(folder / "pg", port=free_port())
        with postgres:
            url = postgres.dsn
            await migrate(Database(url))
        server = start(url)
        seen = 0
        for _ in range(2):
            away = await asyncio.to_thread(server.wait_for_log, "database link lost", start=seen)
            await asyncio.sleep(4)  # what is shown is that no more comes, though all links try again
            assert of_links(server, seen) == [away]
            assert away["level"] == "warning"
            feed = health(server)
            assert (feed["state"], feed["reason"]) == ("down", "database unreachable")
            assert feed["lagMs"] > 3500
            assert str(url.rpartition("@")[2]) in away["database"]
            seen = len(server.lines)
            with postgres:
                back = await asyncio.to_thread(server.wait_for_log, "database links are back", start=seen)
                assert of_links(server, seen) == [back]
                assert back["links"] == 7
                assert back["seconds"] > 3
                seen = len(server.lines)
        assert server.stop() == 0


async def test_of_several_links_the_one_that_breaks_is_named_and_is_back(demo: str, start: Start) -> None:
    server = start(demo)
    seen = len(server.lines)
    connection = await asyncpg.connect(demo)
    ended = await connection.fetchval(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'insforge-realtime feed'"
    )
    await connection.close()
    assert ended == 1
    back = await asyncio.to_thread(server.wait_for_log, "database links are back", start=seen)
    [lost, _] = of_links(server, seen)
    assert (lost["event"], lost["link"], back["links"]) == ("database link lost", "feed", 1)


async def test_the_lag_of_a_feed_that_is_down_counts_from_its_last_look(start: Start) -> None:
    """Also before the time has passed that a feed may sleep."""
    with data_folder() as folder:
        with EmbeddedPostgres(folder / "pg", port=free_port()) as postgres:
            await migrate(Database(postgres.dsn))
            server = start(postgres.dsn, feed_fallback_seconds=3600)
            await wait_until(lambda: health(server)["state"] == "live")
        await wait_until(lambda: health(server)["state"] == "down")
        first = health(server)["lagMs"]
        await wait_until(lambda: health(server)["lagMs"] > first > 0)
        assert server.stop() == 0


async def test_every_field_and_reason_of_health_is_documented(demo: str, start: Start) -> None:
    page = (Path(__file__).parents[2] / "docs" / "deployment.md").read_text(encoding="utf-8").split("## Health")[1]
    rows = dict(re.findall(r"^\| (`.*?`) \| (.*) \|$", page, re.MULTILINE))
    fields = [field for row in rows for field in re.findall(r"`(\w+)`", row)]
    assert fields == list(health(start(demo)))
    assert set(re.findall(r"`([a-z ]+)`", rows["`reason`"])) == {*get_args(Reason), "too far behind"}
    states = get_args(get_type_hints(FeedHealth)["state"])
    assert set(re.findall(r"`([a-z]+)`", rows["`state`"])) == {*states, "behind"}
