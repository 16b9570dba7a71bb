"""Large messages cut nobody off: what no client may leave unread goes to nobody, and no message is by itself a backlog."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import asyncpg
import httpx
import pytest

from support.databases import wait_until
from support.raw import RawClient
from support.servers import API_KEY, Server
from support.wire import WireClient

Start = Callable[..., Server]
KEY = {"apiKey": API_KEY}
MEGABYTE = 1_000_000
# As the owner may, who is held by no limit of publish().
INSERT = """INSERT INTO realtime.messages (event_name, channel_name, channel_id, payload)
SELECT 'large', 'orders', id, jsonb_build_object('t', repeat('x', $1)) FROM realtime.channels WHERE pattern = 'orders'"""


async def sql(url: str, statement: str, *values: object) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement, *values)
    finally:
        await connection.close()


@pytest.mark.parametrize(("megabytes", "counted"), [((8, 30), "undeliverable"), ((3, 4), "oversized")])
async def test_an_event_that_is_too_large_for_anybody_cuts_nobody_off(
    demo: str, start: Start, megabytes: tuple[int, ...], counted: str
) -> None:
    """Whether it is larger than the database lets one event be, or only than this server lets a client leave unread."""
    server = start(demo, max_buffered_bytes=2 * MEGABYTE)
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(WireClient(server.ws_url, auth=KEY)) for _ in range(6)]
        for client in clients:
            assert (await client.subscribe("orders"))["ok"]
        for size in megabytes:
            await sql(demo, INSERT, size * MEGABYTE)
        await sql(demo, "SELECT realtime.publish('orders', 'small', '{}')")
        for client in clients:
            await client.wait_for("small")
            assert client.named("large") == []
        feed = server.feed()
        assert (feed[counted], feed["slowConsumers"], feed["connections"]) == (2, 0, 6)
    assert (
        len([line for line in server.errors() if "nobody gets it" in line["event"] or "passed over" in line["event"]])
        == 2
    )


async def test_a_reader_that_is_behind_by_little_is_not_cut_off_for_one_large_event(demo: str, start: Start) -> None:
    await sql(demo, "INSERT INTO realtime.channels (pattern) VALUES ('witness')")
    await sql(demo, "UPDATE realtime.limits SET max_event_bytes = 20000000")
    server = start(demo, max_buffered_bytes=20 * MEGABYTE)
    reader = await RawClient.connect(server.ws_url, KEY)
    reader.emit("realtime:subscribe", {"channel": "orders"}, 1)
    await reader.until(b"431[")
    reader.transport.pause_reading()
    # The kernel's buffers take up to ten megabytes: there is more than the limit left of two messages, and less of one.
    for _ in range(2):
        await sql(demo, INSERT, 15 * MEGABYTE)
    await everything_is_delivered(demo, server)
    assert server.feed()["slowConsumers"] == 0
    reader.transport.resume_reading()
    await reader.until(b'"messageId"', 2)
    # One that stays behind is a slow consumer all the same.
    reader.transport.pause_reading()
    for _ in range(4):
        await sql(demo, INSERT, 15 * MEGABYTE)
    await wait_until(lambda: server.feed()["slowConsumers"] == 1)
    reader.close()


async def everything_is_delivered(demo: str, server: Server) -> None:
    """All that was committed before now has been written to everybody."""
    async with WireClient(server.ws_url, auth=KEY) as witness:
        assert (await witness.subscribe("witness"))["ok"]
        await sql(demo, "SELECT realtime.publish('witness', 'e', '{}')")
        await witness.wait_for("e")


async def test_health_says_when_it_is_behind_without_quoting_the_database(demo: str, start: Start) -> None:
    server = start(demo, max_lag_seconds=0.5, feed_fallback_seconds=0.2)
    lock = await asyncpg.connect(demo)
    await lock.execute("BEGIN; LOCK TABLE realtime.messages IN ACCESS EXCLUSIVE MODE")

    def health() -> tuple[int, str, str | None]:
        answer = httpx.get(f"{server.url}/api/health", trust_env=False)
        feed = answer.json()["feed"]
        return answer.status_code, feed["state"], feed["reason"]

    await wait_until(lambda: health()[0] == 503)
    assert health()[1:] in {("behind", "too far behind"), ("down", "looks fail")}
    await lock.execute("COMMIT")
    await wait_until(lambda: health() == (200, "live", None))
    await lock.close()
