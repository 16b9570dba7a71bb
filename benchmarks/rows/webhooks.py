"""The measurements of webhooks: W1, how fast and at what cost they are sent; W2, what they cost channels without any."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import asyncpg

from benchmarks.database import Connection, Database, all_reaped, database
from benchmarks.load.launch import webhook_receiver
from benchmarks.machine import Saturation, cpu_seconds
from benchmarks.measuring import Options, Result, Series, alternate, bar, summary
from benchmarks.processes import Child
from benchmarks.server import server

LOOPBACK = "127.0.0.0/8"
PUBLISH = (
    "SELECT count(realtime.publish($1, 'tick', jsonb_build_object('n', n, 'text', $2::text)))"
    " FROM generate_series(1, $3::int) n"
)
TEXT = "forty characters of what happened to it"


# W1: deliveries


async def w1(options: Options, folder: Path) -> AsyncIterator[Result]:
    """Measure many webhooks at once, to one host and to eight."""
    number = 504 if options.quick else 10_000
    series = Series()
    async with database(folder, options.postgres) as there, webhook_receiver(folder) as receiving:
        ports = (await receiving.line())["ports"]
        connection = await asyncpg.connect(there.url)
        for hosts in (1, len(ports)):
            for port in ports[:hosts]:
                insert = "INSERT INTO realtime.channels (pattern, webhook_urls) VALUES ($1, ARRAY[$2])"
                await connection.execute(insert, f"hooks-{hosts}-{port}", f"http://127.0.0.1:{port}/")
        async with server(folder, there.url, webhook_allow_networks=LOOPBACK) as ours:
            variants = {}
            for hosts in (1, len(ports)):
                channels = [f"hooks-{hosts}-{port}" for port in ports[:hosts]]
                once = partial(deliver, there, connection, ours.pid, receiving, channels, number)
                variants[f"{hosts} host{'s' * (hosts > 1)}"] = once
            async for result in alternate("W1", options, variants, series):
                yield result
        await connection.close()
    yield summary(
        "W1",
        f"webhooks per second, {number} of them, from the commit to the last arrival",
        series.figures("per_second", 0),
        [],
        intact=all(series.intact(hosts) for hosts in series.results),
        server_us_per_delivery=series.figures("server_us_per_delivery", 1),
        postgres_us_per_delivery=series.figures("postgres_us_per_delivery", 1),
    )


async def deliver(
    there: Database,
    connection: Connection,
    pid: int,
    receiving: Child,
    channels: list[str],
    number: int,
) -> Result:
    await there.tidy()
    await receiving.do("mark")
    async with connection.transaction():
        for channel in channels:
            await connection.execute(PUBLISH, channel, TEXT, number // len(channels))
    committed = time.monotonic()
    saturation, before, postgres_before = Saturation(receiving.pid), cpu_seconds(pid), cpu_seconds(there.pid)
    report = await receiving.do("wait", requests=number, seconds=100)
    shares = saturation.report()
    await all_written(connection)
    spent, postgres_spent = cpu_seconds(pid) - before, cpu_seconds(there.pid) - postgres_before
    delivered = await connection.fetchval("SELECT sum(wh_delivered_count) FROM realtime.messages")
    return {
        "per_second": round(number / (report["last"] - committed)),
        "server_us_per_delivery": round(spent / number * 1e6, 1),
        "postgres_us_per_delivery": round(postgres_spent / number * 1e6, 1),
        "twice": report["requests"] - report["distinct"],
        **shares,
        "intact": report["requests"] == report["distinct"] == delivered == number,
    }


async def all_written(connection: Connection) -> None:
    pending = "SELECT count(*) FROM realtime.webhook_deliveries WHERE state = 'pending'"
    while await connection.fetchval(pending):
        await asyncio.sleep(0.02)


# W2: channels without webhooks


async def w2(options: Options, folder: Path) -> AsyncIterator[Result]:
    """Measure 8 writers to a channel without webhooks, with the queue's trigger and without it."""
    series = Series()
    async with database(folder, options.postgres) as there:
        await there.pgbench(8, 1)  # warm
        variants = {
            "with the trigger": partial(publish, there, True, options),
            "without": partial(publish, there, False, options),
        }
        async for result in alternate("W2", options, variants, series):
            yield result
    yield summary(
        "W2",
        "PostgreSQL's CPU per message of a channel without webhooks, in µs, 8 writers, no server",
        series.figures("postgres_us_per_message", 1),
        [bar(series.ratio("with the trigger", "without", "postgres_us_per_message"), 1.03, " × without the trigger")],
    )


async def publish(there: Database, on: bool, options: Options) -> Result:
    await there.trigger("queue_webhooks", on=on)
    await there.tidy()
    saturation, before = Saturation(), cpu_seconds(there.pid)
    rate, number = await there.pgbench(8, options.seconds(4))
    shares = saturation.report()
    await all_reaped()
    spent = cpu_seconds(there.pid) - before
    return {"per_second": round(rate), "postgres_us_per_message": round(spent / number * 1e6, 1), **shares}
