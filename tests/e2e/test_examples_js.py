"""The JavaScript examples, run as a reader would run them: in Node, and in a real Chromium."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import asyncpg
import httpx
import pytest
from aiohttp import web

from insforge_realtime.pg.demo import ALICE, ALICES_ORDER, BOB, BOBS_ORDER, ROOM
from support.browser import MISSING, Browser, Page, static_files
from support.servers import Server, token

Start = Callable[..., Server]

EXAMPLES = Path(__file__).parents[2] / "examples"
ALICES_OTHER_ORDER = "0de40000-0000-4000-8000-000000000003"

in_chromium = pytest.mark.skipif(MISSING, reason="Chromium is not installed")


async def run(url: str, statement: str, *args: object) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement, *args)
    finally:
        await connection.close()


async def until_load(server: Server, *, connections: int, channels: int) -> None:
    deadline = time.monotonic() + 20
    async with httpx.AsyncClient(trust_env=False) as http:
        while True:
            feed: dict[str, Any] = (await http.get(f"{server.url}/api/health")).json()["feed"]
            if (feed["connections"], feed["channels"]) == (connections, channels):
                return
            assert time.monotonic() < deadline, feed
            await asyncio.sleep(0.02)


# ---- examples/orders-node


async def orders_node(server: Server, credential: str, order: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *("node", "index.js", order, server.url),
        cwd=EXAMPLES / "orders-node",
        env={**os.environ, "REALTIME_TOKEN": credential},
        stdout=PIPE,
        stderr=PIPE,
    )


async def test_the_node_example_prints_each_change_until_it_is_told_to_stop(demo: str, start: Start) -> None:
    server = start(demo)
    process = await orders_node(server, token(BOB), BOBS_ORDER)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(30):
            while b"waiting for changes" not in await process.stderr.readline():
                assert process.returncode is None
            for status in ("paid", "shipped"):
                await run(demo, "UPDATE orders SET status = $1", status)
                _, order, said, total = (await process.stdout.readline()).decode().split()
                assert (order, said, total) == (BOBS_ORDER, status, "42")
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 0
        await until_load(server, connections=0, channels=0)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_the_node_example_says_why_it_may_not(demo: str, start: Start) -> None:
    server = start(demo)
    for credential, order, why in (
        (token(BOB), ALICES_ORDER, b"UNAUTHORIZED"),
        ("nonsense", BOBS_ORDER, b"cannot connect"),
        ("", BOBS_ORDER, b"usage:"),
    ):
        process = await orders_node(server, credential, order)
        assert process.stderr is not None
        try:
            async with asyncio.timeout(30):
                while why not in await process.stderr.readline():
                    assert not process.stderr.at_eof()
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


# ---- examples/react-orders


def orders_page(root: str, server: Server, *orders: str, **more: str) -> str:
    settings = {"url": server.url, "token": token(ALICE), "orders": ",".join(orders), **more}
    return f"{root}/index.html#{urlencode(settings)}"


@in_chromium
async def test_an_update_in_sql_changes_the_react_page(demo: str, start: Start) -> None:
    server = start(demo)
    with static_files(EXAMPLES / "react-orders" / "dist") as root:
        async with Browser() as browser:
            page = await browser.page(orders_page(root, server, ALICES_ORDER, ALICES_OTHER_ORDER))
            await page.see(".connection", "subscribed · 1 watching")
            await until_load(server, connections=1, channels=1)  # StrictMode, and three hooks: one subscription
            await run(demo, "UPDATE orders SET status = 'shipped'")
            await page.see("article div", "Status: shipped")
            assert len(await page.text("li")) == 1
            await page.screenshot("react-orders.png")

            await page.click("text=0003")  # another channel, in the same moment
            await page.see("h2", ALICES_OTHER_ORDER)
            await page.see(".connection", "subscribed")
            await until_load(server, connections=1, channels=1)
            await run(demo, "UPDATE orders SET status = 'returned'")
            await page.see("article div", "Status: returned")

            await page.click("text=none")  # the component leaves the page
            await until_load(server, connections=1, channels=0)
            await page.click("text=0001")
            await until_load(server, connections=1, channels=1)
            await page.goto("about:blank")  # and everything leaves it
            await until_load(server, connections=0, channels=0)
            assert page.problems == []


@in_chromium
async def test_the_react_page_waits_for_a_server_and_comes_back_after_a_restart(demo: str, start: Start) -> None:
    server = start(demo)
    server.stop()  # its port is known, and nobody is there
    with static_files(EXAMPLES / "react-orders" / "dist") as root:
        async with Browser() as browser:
            page = await browser.page(orders_page(root, server, ALICES_ORDER))
            await page.see(".connection.connecting", "error")
            server.start()
            await page.see(".connection", "subscribed")
            server.stop()
            await page.see(".connection", "connecting")
            server.start()
            await page.see(".connection", "subscribed")
            await run(demo, "UPDATE orders SET status = 'shipped'")
            await page.see("article div", "Status: shipped")


@in_chromium
async def test_a_channel_that_is_refused_on_the_react_page_is_tried_again_by_a_click(demo: str, start: Start) -> None:
    server = start(demo)
    await run(demo, "ALTER POLICY users_subscribe_own_orders ON realtime.channels TO postgres")
    with static_files(EXAMPLES / "react-orders" / "dist") as root:
        async with Browser() as browser:
            page = await browser.page(orders_page(root, server, ALICES_ORDER))
            await page.see(".connection.error", "Not allowed")
            await page.click("text=Try again")  # still not
            await page.see(".connection.error", "Not allowed")
            await run(demo, "ALTER POLICY users_subscribe_own_orders ON realtime.channels TO authenticated")
            await page.click("text=Try again")
            await page.see(".connection", "subscribed · 1 watching")
            assert await page.text("text=Try again") == []
            assert page.problems == []


@contextlib.asynccontextmanager
async def orders_api(database: str) -> AsyncIterator[str]:
    """What an application has besides: `GET /orders/{id}`, from the database. Its URL."""
    pool = await asyncpg.create_pool(database, min_size=1, max_size=2)

    async def order(request: web.Request) -> web.Response:
        row = await pool.fetchrow("SELECT id::text, status FROM orders WHERE id = $1", request.match_info["id"])
        assert row is not None
        return web.json_response(dict(row), headers={"Access-Control-Allow-Origin": "*"})

    app = web.Application()
    app.router.add_get("/orders/{id}", order)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
        await pool.close()


@in_chromium
async def test_the_react_page_shows_what_changed_while_it_was_away(demo: str, start: Start) -> None:
    server = start(demo)
    await run(demo, "UPDATE orders SET status = 'before the page'")
    with static_files(EXAMPLES / "react-orders" / "dist") as root:
        async with orders_api(demo) as api, Browser() as browser:
            page = await browser.page(orders_page(root, server, ALICES_ORDER, api=api))
            await page.see("article div", "Status: before the page")
            await run(demo, "UPDATE orders SET status = 'as a message'")
            await page.see("article div", "Status: as a message")
            server.stop()
            await page.see(".connection", "connecting")
            await run(demo, "UPDATE orders SET status = 'while away'")
            server.start()
            await page.see("article div", "Status: while away")
            assert len(await page.text("li")) == 1  # it came as no message


# ---- examples/chat.html


async def in_the_room(browser: Browser, root: str, server: Server, user: str) -> Page:
    settings = urlencode({"url": server.url, "token": token(user), "room": ROOM})
    page = await browser.page(f"{root}/examples/chat.html#{settings}")
    await page.see("#status:text-is('connected')", "")
    return page


@in_chromium
async def test_two_browsers_chat_and_see_each_other(demo: str, start: Start) -> None:
    server = start(demo)
    with static_files(EXAMPLES.parent) as root:
        async with Browser() as browser:
            alice = await in_the_room(browser, root, server, ALICE)
            assert await alice.text("#members li") == [ALICE[:8]]
            bob = await in_the_room(browser, root, server, BOB)
            for page in (alice, bob):
                await page.see("#members li", ALICE[:8])
                await page.see("#members li", BOB[:8])

            await alice.say("#say input", "Hello <b>Bob</b>")
            for page in (alice, bob):
                await page.see("#messages li", "Hello <b>Bob</b>")
            await bob.say("#say input", "Hello Alice")
            for page in (alice, bob):
                await page.see("#messages li", "Hello Alice")
                assert len(await page.text("#messages li")) == 2
                assert page.problems == []
            await alice.screenshot("chat.png")

            server.stop()
            await alice.see("#status", "not connected")
            await bob.close()
            server.start()
            await alice.see("#status:text-is('connected')", "")
            assert await alice.text("#members li") == [ALICE[:8]]


@in_chromium
async def test_the_chat_page_opens_from_the_disk(demo: str, start: Start) -> None:
    server = start(demo)
    async with Browser() as browser:
        page = await in_the_room(browser, EXAMPLES.parent.as_uri(), server, ALICE)
        await page.say("#say input", "Hello")
        await page.see("#messages li", "Hello")
        assert page.problems == []
