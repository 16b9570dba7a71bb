"""The measurements of webhooks: W1, how fast and at what cost they are sent; W2, what they cost those who have none."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import asyncpg

from benchmarks.machine import cpu_seconds, spread
from benchmarks.measuring import Options, Result, undisturbed
from benchmarks.processes import Child, Database, database, receiver, server

LOOPBACK = "127.0.0.0/8"
PUBLISH = (
    "SELECT count(realtime.publish($1, 'tick', jsonb_build_object('n', n, 'text', $2::text)))"
    " FROM generate_series(1, $3::int) n"
)
TEXT = "forty characters of what happened to it"


# W1: deliveries


async def w1(options: Options, folder: Path) -> AsyncIterator[Result]:
    """Many webhooks at once, to one host and to eight."""
    number = 504 if options.quick else 10_000
    found: dict[tuple[int, str], list[float]] = {}
    intact = True
    async with database(folder, options.postgres) as there, receiver(folder) as receiving:
        ports = (await receiving.line())["ports"]
        connection = await asyncpg.connect(there.url)
        for hosts in (1, len(ports)):
            for port in ports[:hosts]:
                insert = "INSERT INTO realtime.channels (pattern, webhook_urls) VALUES ($1, ARRAY[$2])"
                await connection.execute(insert, f"hooks-{hosts}-{port}", f"http://127.0.0.1:{port}/")
        async with server(folder, there.url, webhook_allow_networks=LOOPBACK) as ours:
            for turn in range(options.repeat):
                for hosts in (1, len(ports)):
                    channels = [f"hooks-{hosts}-{port}" for port in ports[:hosts]]
                    once = partial(deliver, there, connection, ours.pid, receiving, channels, number)
                    result = await undisturbed(options, once)
                    for name in ("per_second", "server_us_per_delivery", "postgres_us_per_delivery"):
                        found.setdefault((hosts, name), []).append(result[name])
                    intact = intact and result["intact"]
                    yield {"row": "W1", "turn": turn, "hosts": hosts, **result}
        await connection.close()
    yield {
        "row": "W1",
        "summary": f"{number} webhooks, from the commit to the last arrival",
        **{
            f"{hosts} host{'s' * (hosts > 1)}": {
                name: spread(values, 1) for (of, name), values in found.items() if of == hosts
            }
            for hosts in (1, len(ports))
        },
        "intact": intact,
        "met": intact,
    }


async def deliver(
    there: Database,
    connection: asyncpg.Connection[asyncpg.Record],
    pid: int,
    receiving: Child,
    channels: list[str],
    number: int,
) -> Result:
    await there.tidy()
    await receiving.ask(do="mark")
    async with connection.transaction():
        for channel in channels:
            await connection.execute(PUBLISH, channel, TEXT, number // len(channels))
    committed = time.monotonic()
    before, postgres_before = cpu_seconds(pid), cpu_seconds(there.pid)
    report = await receiving.ask(do="wait", requests=number, seconds=100)
    await all_written(connection)
    spent, postgres_spent = cpu_seconds(pid) - before, cpu_seconds(there.pid) - postgres_before
    delivered = await connection.fetchval("SELECT sum(wh_delivered_count) FROM realtime.messages")
    return {
        "per_second": round(number / (report["last"] - committed)),
        "server_us_per_delivery": round(spent / number * 1e6, 1),
        "postgres_us_per_delivery": round(postgres_spent / number * 1e6, 1),
        "twice": report["requests"] - report["distinct"],
        "intact": report["requests"] == report["distinct"] == delivered == number,
    }


async def all_written(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    pending = "SELECT count(*) FROM realtime.webhook_deliveries WHERE state = 'pending'"
    while await connection.fetchval(pending):
        await asyncio.sleep(0.02)


# W2: channels without webhooks


async def w2(options: Options, folder: Path) -> AsyncIterator[Result]:
    """8 writers to a channel without webhooks, with the queue's trigger and without it."""
    costs: dict[bool, list[float]] = {True: [], False: []}
    ratios: list[float] = []
    async with database(folder, options.postgres) as there:
        await there.pgbench(8, 1)  # warm
        for turn in range(options.repeat):
            for on in (False, True)[:: 1 if turn % 2 == 0 else -1]:
                result = await undisturbed(options, partial(publish, there, on, options))
                costs[on].append(result["postgres_us_per_message"])
                yield {"row": "W2", "turn": turn, "trigger": on, **result}
            ratios.append(costs[True][-1] / costs[False][-1])
    yield {
        "row": "W2",
        "summary": "PostgreSQL's CPU per message of a channel without webhooks, in µs, 8 writers, no server",
        "with the trigger": spread(costs[True], 1),
        "without": spread(costs[False], 1),
        "ratio": spread(ratios),
        "bar": "<= 1.03",
        "met": statistics.median(ratios) <= 1.03,
    }


async def publish(there: Database, on: bool, options: Options) -> Result:
    await there.execute(f"ALTER TABLE realtime.messages {'ENABLE' if on else 'DISABLE'} TRIGGER queue_webhooks")
    await there.tidy()
    before = cpu_seconds(there.pid)
    rate, number = await there.pgbench(8, options.seconds(6))
    await asyncio.sleep(0.5)  # a backend that is just being reaped would be counted nowhere
    spent = cpu_seconds(there.pid) - before
    return {"per_second": round(rate), "postgres_us_per_message": round(spent / number * 1e6, 1)}
