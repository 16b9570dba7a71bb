"""The command line: exit statuses, one-line errors, and a server that lives through what a database does."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from typer.testing import CliRunner

from insforge_realtime import __version__
from insforge_realtime.cli.main import app
from insforge_realtime.pg.database import Database
from insforge_realtime.pg.demo import ALICE, ALICES_ORDER
from insforge_realtime.pg.embedded import EmbeddedPostgres
from insforge_realtime.pg.migrate import migrate
from support.databases import Cluster, data_folder, free_port
from support.servers import SECRET, Server
from support.wire import WireClient

Start = Callable[..., Server]

COMMANDS = ("dev", "serve", "migrate", "token", "check", "tail", "publish", "webhooks")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, in an environment that sets nothing but what is named."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("REALTIME_", "DATABASE"))}
    return subprocess.run(
        [sys.executable, "-m", "insforge_realtime", *arguments],
        capture_output=True,
        text=True,
        cwd="/",
        env={**inherited, **environment},
        timeout=60,
        check=False,
    )


def complaint(result: subprocess.CompletedProcess[str], status: int) -> str:
    """The one line that it ended with."""
    assert result.returncode == status, result.stderr
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def health(server: Server) -> tuple[int, dict[str, Any]]:
    answer = httpx.get(f"{server.url}/api/health")
    return answer.status_code, answer.json()


async def fetchval(url: str, sql: str, *values: object) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(sql, *values)
    finally:
        await connection.close()


# ---- arguments and settings


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert f" {command} " in result.stdout
    assert "--help" in result.stdout


def test_the_version_is_printed_and_all_commands_are_listed() -> None:
    assert run("--version").stdout == f"insforge-realtime {__version__}\n"
    listed = CliRunner().invoke(app, ["--help"]).stdout
    for command in COMMANDS:
        assert f" {command} " in listed


def test_serve_names_everything_that_is_missing_in_one_line() -> None:
    line = complaint(run("serve"), 2)
    for name in ("DATABASE_URL", "REALTIME_JWT_SECRET", "REALTIME_JWKS_URL"):
        assert name in line
    assert "DATABASE_URL" not in complaint(run("serve", DATABASE_URL="postgresql://127.0.0.1:1/none"), 2)


@pytest.mark.parametrize("command", ["serve", "dev", "migrate", "token"])
def test_a_setting_that_is_wrong_is_named_in_one_line(command: str) -> None:
    line = complaint(run(command, REALTIME_PORT="abc"), 2)
    assert "REALTIME_PORT" in line
    assert "abc" in line


def test_a_token_needs_a_secret_and_a_known_role() -> None:
    assert "REALTIME_JWT_SECRET" in complaint(run("token"), 2)
    line = complaint(run("token", "--role", "postgres", REALTIME_JWT_SECRET=SECRET), 2)
    for word in ("--role", "anon", "authenticated", "project_admin"):
        assert word in line


def test_a_data_folder_that_cannot_be_used_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert str(tmp_path / "file") in complaint(run("dev", "--data-dir", str(tmp_path / "file")), 2)
    (tmp_path / "keys.json").write_text("{")
    assert str(tmp_path / "keys.json") in complaint(run("dev", "--data-dir", str(tmp_path)), 2)


# ---- token, migrate


async def test_a_token_from_the_command_line_is_accepted(demo: str, start: Start) -> None:
    server = start(demo)
    minted = run("token", "--sub", ALICE, REALTIME_JWT_SECRET=SECRET)
    assert minted.returncode == 0
    async with WireClient(server.ws_url, auth={"token": minted.stdout.strip()}) as client:
        assert (await client.subscribe(f"order:{ALICES_ORDER}"))["ok"]


async def test_migrate_says_what_it_would_do_then_does_it_then_has_nothing_to_do(newest: Cluster) -> None:
    url = await newest.database("empty")
    schema = "SELECT to_regnamespace('realtime')"
    planned = run("migrate", "--dry-run", DATABASE_URL=url)
    assert (planned.returncode, planned.stdout.splitlines()[0]) == (0, "would:")
    assert await fetchval(url, schema) is None
    done = run("migrate", "--database", url)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "done:")
    assert done.stdout.splitlines()[1:] == planned.stdout.splitlines()[1:]
    assert await fetchval(url, schema) == "realtime"
    assert len(run("migrate", DATABASE_URL=url).stdout.splitlines()) == 2
    await newest.drop(url)


async def test_migrate_says_on_standard_error_whom_it_waits_for_and_ends_with_one_line(newest: Cluster) -> None:
    url = await newest.database()
    holder = await asyncpg.connect(url, server_settings={"application_name": "a holder"})
    await holder.execute("ALTER TABLE realtime.messages DISABLE TRIGGER ring")
    await holder.execute("BEGIN; LOCK TABLE realtime.messages IN ROW EXCLUSIVE MODE")
    waited = run("migrate", "--lock-wait", "1", DATABASE_URL=url)
    assert (waited.returncode, waited.stdout) == (1, "")
    first, *_, last = waited.stderr.splitlines()
    assert first.startswith("waiting for realtime.messages, held by pid")
    assert last.startswith("error: gave up after")
    assert "--lock-wait" in last
    assert "a holder" in complaint(run("migrate", DATABASE_URL=url, REALTIME_MIGRATE_LOCK_WAIT="0"), 1)
    assert "MIGRATE_LOCK_WAIT" in complaint(run("migrate", "--lock-wait", "-1", DATABASE_URL=url), 2)
    assert run("migrate", "--dry-run", DATABASE_URL=url).returncode == 0
    await holder.close()
    assert "ring" in run("migrate", DATABASE_URL=url).stdout
    await newest.drop(url)


def test_migrate_says_in_one_line_that_there_is_no_database() -> None:
    line = complaint(run("migrate", DATABASE_URL=f"postgresql://someone:secret@127.0.0.1:{free_port()}/none"), 1)
    assert "database" in line
    assert "secret" not in line
    assert "DATABASE_URL" in complaint(run("migrate"), 2)


# ---- serve


def test_a_server_waits_for_a_database_that_is_away(start: Start) -> None:
    with data_folder() as folder:
        postgres = EmbeddedPostgres(folder / "pg", port=free_port())
        with postgres:
            url = postgres.dsn
            asyncio.run(migrate(Database(url)))
        server = start(url)
        status, body = health(server)
        assert (status, body["status"]) == (503, "unavailable")
        assert body["feed"]["state"] != "live"
        assert body["feed"]["reason"] == "database unreachable"
        with postgres:
            deadline = time.monotonic() + 30
            while health(server)[0] != 200:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            assert server.stop() == 0


async def test_the_health_of_a_server_that_is_well(demo: str, start: Start) -> None:
    server = start(demo, allow_anonymous=True)
    async with WireClient(server.ws_url):
        status, body = health(server)
    assert status == 200
    assert body == {
        "status": "ok",
        "version": __version__,
        "feed": {
            "state": "live",
            "reason": None,
            "lagMs": body["feed"]["lagMs"],
            "connections": 1,
            "sockets": 2,  # health's own is one
            "unauthenticated": 1,
            "gaveWay": 0,
            "channels": 0,
            "slowConsumers": 0,
            "undeliverable": 0,
            "oversized": 0,
            "gaps": 0,
            "lastGap": None,
        },
    }
    assert 0 <= body["feed"]["lagMs"] < 1000


async def test_a_server_that_is_stopped_writes_its_counts_and_logs_only_json(demo: str, start: Start) -> None:
    server = start(demo, allow_anonymous=True)
    await fetchval(demo, "CREATE POLICY all_of_us ON realtime.channels FOR SELECT TO anon USING (pattern = 'orders')")
    async with WireClient(server.ws_url) as one, WireClient(server.ws_url) as two:
        for client in (one, two):
            assert (await client.subscribe("orders"))["ok"]
        await fetchval(demo, "SELECT realtime.publish('orders', 'news', '{}')")
        for client in (one, two):
            await client.wait_for("news")
        assert server.stop() == 0
    assert await fetchval(demo, "SELECT ws_audience_count FROM realtime.messages WHERE event_name = 'news'") == 2
    for line in server.lines:
        assert {"event", "level", "logger", "timestamp"} <= line.keys(), line
    assert [line["event"] for line in server.lines][-2:] == ["shutting down", "stopped"]
    assert not server.errors()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
async def test_check_advises_in_any_encoding(demo: str, encoding: str) -> None:
    connection = await asyncpg.connect(demo)
    await connection.execute("ALTER TABLE realtime.messages DISABLE ROW LEVEL SECURITY")
    await connection.close()
    settings = {"DATABASE_URL": demo, "REALTIME_JWT_SECRET": SECRET, "PYTHONIOENCODING": encoding}
    done = await asyncio.to_thread(run, "check", **settings)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u2192 ALTER TABLE realtime.messages ENABLE ROW LEVEL SECURITY" in done.stdout
