"""The snippets of docs/sdk-python.md and the Python example, run as they stand against a real server."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from insforge_realtime.pg.demo import ALICE, ALICES_ORDER, ROOM
from support.client import run_sql, until_load
from support.servers import Server, token

Start = Callable[..., Server]

ROOT = Path(__file__).parents[2]
SNIPPETS = dict(
    re.findall(r"<!-- runs: (\w+) -->\n```python\n(.*?)```", (ROOT / "docs/sdk-python.md").read_text(), re.DOTALL)
)
SHIPPED = f"UPDATE orders SET status = 'delivered' WHERE id = '{ALICES_ORDER}'"


def program(name: str, server: Server) -> str:
    """A snippet as it stands, but for the server's address."""
    return str(SNIPPETS[name]).replace("http://127.0.0.1:7130", server.url)


@asynccontextmanager
async def running(*arguments: str, **environment: str) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-u", *arguments),
        stdout=PIPE,
        stderr=PIPE,
        env={**os.environ, "REALTIME_TOKEN": token(ALICE), **environment},
    )
    try:
        async with asyncio.timeout(60):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line(process: Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().rstrip()


async def test_the_quickstart_runs(demo: str, start: Start) -> None:
    server = start(demo)
    async with running("-c", program("quickstart", server)) as process:
        assert await line(process) == "subscribed; here are 1"
        await run_sql(demo, SHIPPED)
        assert re.fullmatch(r"now delivered [0-9a-f-]{36}", await line(process))


@pytest.mark.parametrize("name", ["stream", "sync"])
async def test_the_loops_run(demo: str, start: Start, name: str) -> None:
    server = start(demo)
    async with running("-c", program(name, server)) as process:
        await until_load(server, 1, 1)
        await run_sql(demo, SHIPPED)
        assert (await line(process)).startswith("UPDATE_order delivered")
        assert await process.wait() == 0


async def test_the_state_is_read_at_each_confirmation(demo: str, start: Start) -> None:
    server = start(demo)
    async with running("-c", program("state", server)) as process:
        assert await line(process) == "first: as the database says"
        await run_sql(demo, SHIPPED)
        assert await line(process) == "changed: delivered"
        server.stop()
        server.start()
        assert await line(process) == "renewed: as the database says"


async def test_the_publisher_runs(demo: str, start: Start) -> None:
    async with running("-c", program("publish", start(demo))) as process:
        assert re.fullmatch(r"committed as [0-9a-f-]{36}", await line(process))
        assert await process.wait() == 0


def test_every_snippet_is_run_and_names_what_the_demo_has() -> None:
    assert SNIPPETS.keys() == {"quickstart", "stream", "publish", "sync", "state"}
    assert (ROOT / "docs/sdk-python.md").read_text().count("```python") == len(SNIPPETS)
    assert ALICES_ORDER in SNIPPETS["quickstart"]
    assert ROOM in SNIPPETS["publish"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_worker_works_through_a_restart_until_it_is_told_to_stop(
    demo: str, start: Start, number: signal.Signals
) -> None:
    server = start(demo)
    worker = str(ROOT / "examples/python_worker.py")
    environment = {"REALTIME_URL": server.url, "REALTIME_TOKEN": token(ALICE)}
    async with running(worker, f"order:{ALICES_ORDER}", **environment) as process:
        assert (await line(process)).startswith("subscribed: ")
        await run_sql(demo, SHIPPED)
        assert await line(process) == f"UPDATE_order: order {ALICES_ORDER} is delivered"
        server.stop()
        assert await line(process) == "disconnected: transport close"
        server.start()
        assert (await line(process)).startswith("subscribed again: ")
        await run_sql(demo, SHIPPED)
        assert (await line(process)).startswith("UPDATE_order")
        process.send_signal(number)
        assert await process.wait() == 0
    await until_load(server, 0, 0)


async def test_the_worker_says_why_it_gives_up(demo: str, start: Start) -> None:
    worker, url = str(ROOT / "examples/python_worker.py"), start(demo).url
    async with running(worker, "no such channel", REALTIME_URL=url, REALTIME_TOKEN=token(ALICE)) as process:
        assert await process.wait() == 1
        assert process.stderr is not None
        assert b"gave up: no such channel: " in await process.stderr.read()
