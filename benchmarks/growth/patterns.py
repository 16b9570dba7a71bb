"""G4: patterns in realtime.channels."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import asyncpg

from benchmarks.database import Connection, Database, database
from benchmarks.growth.curve import measure, point, summarise
from benchmarks.load.identities import user
from benchmarks.machine import cpu_seconds
from benchmarks.measuring import Options, Result
from insforge_realtime.pg.queries import query

TOGETHER = 20
PUBLISH = (
    "SELECT count(realtime.publish($1, 'tick', jsonb_build_object('n', n, 'text', repeat('x', 40))))"
    f" FROM generate_series(1, {TOGETHER}) n"
)


async def g4(options: Options, folder: Path) -> AsyncIterator[Result]:
    """Measure 1 … 10 000 patterns: what a publish costs the database, to a name that is a row itself, to one that the
    pattern written last matches, and to one that none matches; and what a subscribe costs."""
    sizes = (1, 100) if options.quick else (1, 10, 100, 1_000, 10_000)
    points: list[Result] = []
    async with database(folder, options.postgres) as there:
        connection = await asyncpg.connect(there.url)
        await connection.execute("SET client_min_messages = error")  # a publish that no pattern matches warns
        await connection.execute("CREATE POLICY growth ON realtime.channels FOR SELECT TO authenticated USING (true)")
        for size in sizes:
            await patterns(connection, size)
            figures = await measure(options, partial(costs, there, connection, size, options))
            points.append(point("G4", "patterns", size, figures))
            yield points[-1]
        await connection.close()
    yield summarise(
        "G4",
        "patterns",
        points,
        {
            "exact_us": ("database CPU per publish to a name that is a row, µs", 1),
            "last_us": ("… that the last pattern matches, µs", 1),
            "none_us": ("… that none matches, µs", 1),
            "subscribe_us": ("database CPU per subscribe that the last pattern matches, µs", 1),
        },
    )


async def patterns(connection: Connection, size: int) -> None:
    """Write so many patterns of the kind that applications have, a prefix and a wildcard, and one exact name."""
    await connection.execute("TRUNCATE realtime.channels CASCADE")
    await connection.execute(
        "INSERT INTO realtime.channels (pattern) SELECT 'tenant-' || n || ':%' FROM generate_series(1, $1::int) n", size
    )
    await connection.execute("INSERT INTO realtime.channels (pattern) VALUES ('lobby')")
    await connection.execute("VACUUM ANALYZE realtime.channels")


async def costs(there: Database, connection: Connection, size: int, options: Options) -> dict[str, float]:
    seconds = 0.3 if options.quick else 1.0
    return {
        "exact_us": await publish_cost(there, connection, "lobby", TOGETHER, seconds),
        "last_us": await publish_cost(there, connection, f"tenant-{size}:orders", TOGETHER, seconds),
        "none_us": await publish_cost(there, connection, "nobody:orders", 0, seconds),
        "subscribe_us": await subscribe_cost(there, connection, f"tenant-{size}:orders", seconds),
    }


async def publish_cost(there: Database, connection: Connection, channel: str, expected: int, seconds: float) -> float:
    """Return the CPU µs of one publish, in transactions of several that are rolled back, to leave nothing."""
    statement = await connection.prepare(PUBLISH)
    published = 0
    spent, begun = cpu_seconds(there.pid), time.monotonic()
    while time.monotonic() - begun < seconds:
        transaction = connection.transaction()
        await transaction.start()
        assert await statement.fetchval(channel) == expected
        await transaction.rollback()
        published += TOGETHER
    return (cpu_seconds(there.pid) - spent) / published * 1e6


async def subscribe_cost(there: Database, connection: Connection, channel: str, seconds: float) -> float:
    """Return the CPU µs of one subscribe check of the many in a call."""
    claims = json.dumps({"sub": user(1), "role": "authenticated"})
    statement = await connection.prepare(query("check_subscribe"))
    checked = 0
    spent, begun = cpu_seconds(there.pid), time.monotonic()
    while time.monotonic() - begun < seconds:
        verdicts = await statement.fetchval(["authenticated"] * TOGETHER, [claims] * TOGETHER, [channel] * TOGETHER)
        assert verdicts == ["yes"] * TOGETHER, verdicts
        checked += TOGETHER
    return (cpu_seconds(there.pid) - spent) / checked * 1e6
