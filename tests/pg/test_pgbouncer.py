"""Behind a real PgBouncer, in both of its modes, with the settings that it comes with: commands, serving, a restart."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import asyncpg
import pytest

from insforge_realtime.pg.database import Database
from insforge_realtime.pg.demo import ALICE, ALICES_ORDER, BOB, ROOM, load_demo
from insforge_realtime.pg.migrate import migrate, plan
from support import forkserver
from support.client import run_sql, say
from support.databases import Cluster, wait_until
from support.pgbouncer import PgBouncer, pooling
from support.receivers import LOOPBACK, hooked, receiving
from support.servers import SECRET, Server, token
from support.wire import WireClient

Start = Callable[..., Server]
CHAT, ORDER = f"chat:{ROOM}", f"order:{ALICES_ORDER}"


class Setup(NamedTuple):
    """A database with the demo in it, its pooler, and what an operator configures."""

    direct: str
    pooled: str
    pooler: PgBouncer
    settings: dict[str, str]


@pytest.fixture(params=["session", "transaction"])
async def setup(request: pytest.FixtureRequest, newest: Cluster) -> AsyncIterator[Setup]:
    direct = await newest.database("demo")
    # Session mode needs a connection for each of ours; in transaction mode, few make them change sessions all the time.
    with pooling(direct, request.param, size=20 if request.param == "session" else 2) as pooler:
        settings = {} if request.param == "session" else {"listen_url": direct}
        yield Setup(direct, pooler.url(direct), pooler, settings)
    await newest.drop(direct)


def command(setup: Setup, *arguments: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("REALTIME_")}
    settings = {f"REALTIME_{name.upper()}": value for name, value in setup.settings.items()}
    ours = {"DATABASE_URL": setup.pooled, "REALTIME_JWT_SECRET": SECRET}
    return forkserver.run(arguments, {**clean, **settings, **ours})


async def test_every_command_works_behind_it(setup: Setup) -> None:
    await run_sql(setup.direct, "DROP SCHEMA realtime CASCADE")
    for arguments, said in (
        (("migrate", "--dry-run"), "would:"),
        (("migrate",), "done:"),
        (("migrate",), "done:"),
        (("webhooks", "retry", "--all"), "0 to be sent again"),
        (("webhooks", "cancel", "--all"), "0 cancelled"),
        (("webhooks", "list"), ""),
        (("check",), "ok      LISTEN works"),
    ):
        done = await asyncio.to_thread(command, setup, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        assert said in done.stdout
        assert "broken" not in done.stdout


async def test_a_transaction_pooler_without_a_direct_address_is_named_by_check(newest: Cluster) -> None:
    direct = await newest.database("demo")
    with pooling(direct, "transaction") as pooler:
        done = await asyncio.to_thread(command, Setup(direct, pooler.url(direct), pooler, {}), "check")
    assert done.returncode == 1
    [broken] = [line for line in done.stdout.splitlines() if line.startswith("broken")]
    assert "DATABASE_URL cannot be used to LISTEN (a pooler?)" in broken
    assert "set REALTIME_LISTEN_URL to a direct connection" in done.stdout
    await newest.drop(direct)


async def test_subscribe_publish_webhooks_and_counters_work_behind_it(setup: Setup, start: Start) -> None:
    async with hooked(setup.direct) as db, receiving() as receiver:
        await run_sql(setup.direct, f"UPDATE realtime.channels SET webhook_urls = ARRAY['{receiver.url}']")
        server = start(setup.pooled, webhook_allow_networks=LOOPBACK, **setup.settings)
        async with (
            WireClient(server.ws_url, {"token": token(ALICE)}) as alice,
            WireClient(server.ws_url, {"token": token(BOB)}) as bob,
        ):
            for client in (alice, bob):
                assert (await client.subscribe(CHAT))["ok"]
            assert (await alice.subscribe(ORDER))["ok"]
            assert (await bob.subscribe(ORDER))["error"]["code"] == "UNAUTHORIZED"
            # Many at a time: batches, on all links, change sessions in the pooler.
            answers = await asyncio.gather(
                *(client.publish(CHAT, "said", {"n": n}) for n in range(20) for client in (alice, bob))
            )
            assert all(answer["ok"] for answer in answers), answers
            await say(setup.direct, ORDER, "moved", times=5)
            await alice.wait_for("moved", 5)
            for client in (alice, bob):
                assert len(await client.wait_for("said", 40)) == 40
        rows = await db.all_over()
        assert {row["state"] for row in rows} == {"delivered"}
        assert len(receiver.ids) == len(rows) == 45
        await _until(db, "SELECT count(*) FROM realtime.messages WHERE ws_audience_count = 2", 40)
    assert server.errors() == []


async def test_a_restart_of_the_pooler_in_mid_traffic_loses_nothing_that_was_acknowledged(
    setup: Setup, start: Start
) -> None:
    server = start(setup.pooled, **setup.settings)
    async with WireClient(server.ws_url, {"token": token(ALICE)}) as alice:
        assert (await alice.subscribe(CHAT))["ok"]
        acknowledged: list[str] = []
        down = asyncio.create_task(_restart(setup.pooler))
        after = 0
        while after < 20:
            answer = await alice.publish(CHAT, "said", {})
            if answer["ok"]:
                acknowledged.append(answer["messageId"])
                after += down.done()
            else:
                assert answer["error"]["code"] == "UNAVAILABLE"
            await asyncio.sleep(0.01)
        await down
        heard: set[str] = set()
        async with asyncio.timeout(20):
            while not heard.issuperset(acknowledged):
                heard = {said["meta"]["messageId"] for said in alice.named("said")}
                await asyncio.sleep(0.01)
    assert server.errors() == []


async def _restart(pooler: PgBouncer) -> None:
    await asyncio.sleep(0.3)
    await asyncio.to_thread(pooler.stop)
    await asyncio.sleep(0.3)
    await asyncio.to_thread(pooler.start)


async def test_nothing_of_ours_is_left_behind_in_a_session_that_others_get_next(newest: Cluster) -> None:
    direct = await newest.database("empty")
    with pooling(direct, "transaction", size=1) as pooler:
        url = pooler.url(direct)
        before = await _settings(url)
        assert await plan(Database(url))
        await migrate(Database(url))
        await load_demo(Database(url))
        async with Database(url).connected("test", pooled=True, statement_timeout=7, search_path="pg_catalog") as ours:
            assert await ours.fetchval("SHOW statement_timeout") == "7s"
            assert await ours.fetchval("SHOW search_path") == "pg_catalog"
        assert await _settings(url) == before
    await newest.drop(direct)


async def test_a_migration_that_has_to_wait_leaves_nothing_behind_either(newest: Cluster) -> None:
    """It has a second connection then, by which it finds out whom it waits for."""
    direct = await newest.database()
    await run_sql(direct, "ALTER TABLE realtime.messages DISABLE TRIGGER ring")
    holder = await asyncpg.connect(direct)
    await holder.execute("BEGIN; LOCK TABLE realtime.messages IN ROW EXCLUSIVE MODE")
    with pooling(direct, "transaction", size=1) as pooler:
        url = pooler.url(direct)
        before = await _settings(url)
        waits: list[str] = []
        migrating = asyncio.create_task(migrate(Database(url), tell=waits.append))
        await wait_until(lambda: len(waits) > 3)
        await holder.execute("COMMIT")
        assert len(await migrating) == 2
        assert await _settings(url) == before
    await holder.close()
    await newest.drop(direct)


async def _settings(url: str) -> list[Any]:
    """What differs, in the one session there is, from what it began with."""
    other = await asyncpg.connect(url, statement_cache_size=0)
    try:
        return await other.fetch("SELECT name, setting FROM pg_settings WHERE source = 'session' ORDER BY 1")
    finally:
        await other.close()


async def test_a_pooled_link_has_our_limits_in_each_transaction_whatever_the_roles_are(newest: Cluster) -> None:
    direct = await newest.database("empty")
    name = direct.rpartition("/")[2]
    for setting in (
        "statement_timeout = '50ms'",
        "standard_conforming_strings = off",
        "row_security = off",
        "default_transaction_isolation = 'serializable'",
    ):
        await newest.execute(f"ALTER ROLE postgres IN DATABASE {name} SET {setting}")
    await newest.execute(f"ALTER ROLE postgres IN DATABASE {name} SET default_transaction_read_only = on")
    with pooling(direct, "transaction", size=1) as pooler:
        link = await Database(pooler.url(direct)).connect("test", pooled=True)
        await link.execute("SELECT pg_sleep($1)", 0.1)
        async with link.transaction():
            for setting, value in (
                ("statement_timeout", "0"), ("standard_conforming_strings", "on"), ("row_security", "on"),
                ("transaction_isolation", "read committed"), ("transaction_read_only", "off"),
            ):  # fmt: skip
                assert await link.fetchval(f"SHOW {setting}") == value, setting
        await link.close()
    await newest.drop(direct)


async def _until(db: Any, question: str, answer: int) -> None:
    async with asyncio.timeout(20):
        while await db.connection.fetchval(question) != answer:
            await asyncio.sleep(0.02)
