"""G2: rooms of one subscriber each, on one server."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import asyncpg

from benchmarks.database import Connection, Database, database
from benchmarks.growth.curve import measure, point, summarise
from benchmarks.load.identities import common_token
from benchmarks.load.launch import residents
from benchmarks.machine import cpu_seconds, pss_bytes
from benchmarks.measuring import Options, Result
from benchmarks.processes import Child
from benchmarks.server import Server, server
from benchmarks.timing import paced

SOCKETS = 100
AT_ONCE = 10_000
"""How many subscribes one command makes."""
PUBLISH = "SELECT realtime.publish('bench-' || $1::int, 'tick', jsonb_build_object('n', 1, 'text', repeat('x', 40)))"


async def g2(options: Options, folder: Path) -> AsyncIterator[Result]:
    """Measure 1 … 100 000 rooms of one subscriber each, on 100 sockets: what a message, a subscribe, a subscription cost."""
    sizes = (1, 100, 1_000) if options.quick else (1, 100, 1_000, 10_000, 100_000)
    points: list[Result] = []
    async with (
        database(folder, options.postgres) as there,
        residents(folder) as people,
        server(folder, there.url, max_channels_per_connection=0, max_messages_per_second=0) as ours,
    ):
        connection = await asyncpg.connect(there.url)
        await people.do("connect", port=ours.port, count=SOCKETS, token=common_token())
        for before, size in zip((0, *sizes), sizes, strict=False):
            cost = await subscribe(there, ours, people, before, size)
            figures = await measure(options, partial(publish, there, ours, people, connection, size, options))
            points.append(point("G2", "channels", size, {**(cost if size >= 1000 else {}), **figures}))
            yield points[-1]
        await connection.close()
    yield summarise(
        "G2",
        "channels",
        points,
        {
            "server_us_per_message": ("server CPU per message, µs", 1),
            "postgres_us_per_message": ("database CPU per message, µs", 1),
            "server_us_per_subscribe": ("server CPU per subscribe, µs", 1000),
            "postgres_us_per_subscribe": ("database CPU per subscribe, µs", 1000),
            "bytes_per_subscription": ("memory per subscription, bytes", 1000),
        },
        intact=all(one["lost"] == 0 for one in points),
    )


async def subscribe(there: Database, ours: Server, people: Child, before: int, size: int) -> dict[str, float]:
    """Subscribe to more rooms, from `before` to `size`, and return what each costs."""
    memory, spent, postgres_spent = pss_bytes(ours.pid), cpu_seconds(ours.pid), cpu_seconds(there.pid)
    for first in range(before, size, AT_ONCE):
        channels = [f"bench-{number}" for number in range(first, min(first + AT_ONCE, size))]
        await people.do("subscribe", channels=channels)
    count = size - before
    return {
        "server_us_per_subscribe": round((cpu_seconds(ours.pid) - spent) / count * 1e6, 1),
        "postgres_us_per_subscribe": round((cpu_seconds(there.pid) - postgres_spent) / count * 1e6, 1),
        "bytes_per_subscription": round((pss_bytes(ours.pid) - memory) / count),
    }


async def publish(
    there: Database,
    ours: Server,
    people: Child,
    connection: Connection,
    size: int,
    options: Options,
) -> dict[str, float]:
    """Publish 200 messages a second, each in a transaction of its own to any of the rooms, and return what each costs."""
    messages, chance = round(options.seconds(3) * 200), random.Random(size)
    await people.do("mark")
    spent, postgres_spent = cpu_seconds(ours.pid), cpu_seconds(there.pid)
    async for _ in paced(0.005, messages):
        await connection.execute(PUBLISH, chance.randrange(size))
    report = await people.do("wait", events=messages, seconds=30)
    await asyncio.sleep(0.4)  # the audience counters of the last ones
    return {
        "server_us_per_message": (cpu_seconds(ours.pid) - spent) / messages * 1e6,
        "postgres_us_per_message": (cpu_seconds(there.pid) - postgres_spent) / messages * 1e6,
        "lost": abs(messages - report["events"]),
    }
