"""G3: rows that are in realtime.messages already."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import asyncpg

from benchmarks.database import CHANNEL, Connection, Database, database
from benchmarks.growth.curve import measure, point, summarise
from benchmarks.growth.probe import Probe, describe, probe
from benchmarks.machine import cpu_seconds
from benchmarks.measuring import Options, Result
from benchmarks.server import server
from insforge_realtime.pg.pages import PAGE_BYTES, PAGE_ROWS
from insforge_realtime.pg.queries import query

PER_TRANSACTION = 1000
BATCHES, OLDEST = 5, 1000
"""How many deletions are measured, and how many of the oldest rows each takes."""


async def g3(options: Options, folder: Path) -> AsyncIterator[Result]:
    """Measure 0 … 2 million rows: what a publish, a look of the feed, a message from insert to counters, and the deletion of
    old rows cost the database; and how long a message takes."""
    sizes = (0, 5_000) if options.quick else (0, 20_000, 200_000, 2_000_000)
    points: list[Result] = []
    async with database(folder, options.postgres) as there:
        # Vacuum runs between the measurements, not during one.
        await there.execute("ALTER TABLE realtime.messages SET (autovacuum_enabled = off)")
        connection = await asyncpg.connect(there.url)
        await there.pgbench(4, 1)  # warm
        await there.tidy()
        for before, size in zip((0, *sizes), sizes, strict=False):
            filled = await fill(there, connection, size - before)
            # Where a server stopped while it slept, every publish rings for it until one is back.
            await there.doorbell(on=False)
            alone = await measure(options, partial(cost, there, connection, options))
            await there.doorbell(on=True)
            async with server(folder, there.url) as ours, probe(there, ours) as quiet:
                served = await measure(options, partial(serve, there, quiet, options))
            points.append(point("G3", "rows", size, {"filled_s": filled, **served, **alone}))
            yield points[-1]
        await connection.close()
    yield summarise(
        "G3",
        "rows",
        points,
        {
            "postgres_us_per_publish": ("database CPU per publish, µs", 0),
            "wal_bytes_per_publish": ("write-ahead log per publish, right after a checkpoint, bytes", 0),
            "postgres_us_per_empty_look": ("database CPU per look that finds nothing, µs", 0),
            "postgres_us_per_look": ("database CPU per look that finds 100 rows, µs", 0),
            "postgres_us_per_message": ("database CPU per message, from insert to counters, µs", 0),
            "latency_p50_ms": ("latency from commit to receipt, p50, ms", 0),
            "latency_p99_ms": ("the same, p99, ms", 0),
            "postgres_us_per_deleted_row": ("database CPU per deleted old row, µs", 0),
        },
    )


async def fill(there: Database, connection: Connection, rows: int) -> float:
    """Insert so many rows, a thousand to a transaction, and return how many seconds that took."""
    begun = time.monotonic()
    await connection.execute("SET session_replication_role = replica; SET synchronous_commit = off")  # no triggers
    await connection.execute(f"""
        DO $$ BEGIN FOR batch IN 1 .. {rows // PER_TRANSACTION} LOOP
            INSERT INTO realtime.messages (id, event_name, channel_id, channel_name, payload, ws_audience_count, created_at)
            SELECT realtime.new_id(), 'tick', c.id, '{CHANNEL}',
                   jsonb_build_object('n', n, 'w', 1, 'text', repeat('x', 40)), 1,
                   now() - interval '30 days'
            FROM realtime.channels c, generate_series(1, {PER_TRANSACTION}) n WHERE c.pattern = 'bench-%';
            COMMIT;
        END LOOP; END $$""")
    await connection.execute("RESET session_replication_role; RESET synchronous_commit")
    await connection.execute("VACUUM ANALYZE realtime.messages")
    await connection.execute("CHECKPOINT")
    return round(time.monotonic() - begun, 1)


async def cost(there: Database, connection: Connection, options: Options) -> dict[str, float]:
    """Return what publishes, looks and the deletion of the oldest rows cost, without a server."""
    looks = 200 if options.quick else 1000
    async with feed_connection(there.url) as feed:
        spent, wal = cpu_seconds(there.pid), await wal_position(connection)
        _, published = await there.pgbench(4, options.seconds(2))
        per_publish = (cpu_seconds(there.pid) - spent) / published
        wal_per_publish = (await wal_position(connection) - wal) / published
        empty = await look_cost(there, feed, await feed.fetchval(query("now_snapshot")), looks, 0)
        since = await feed.fetchval(query("now_snapshot"))
        await connection.execute(
            f"SELECT count(realtime.publish('{CHANNEL}', 'tick', jsonb_build_object('w', 2, 'n', n, "
            "'text', repeat('x', 40)))) FROM generate_series(1, 100) n"
        )
        full = await look_cost(there, feed, since, looks // 4, 100)
    await connection.execute("VACUUM realtime.messages")
    await connection.execute("CHECKPOINT")
    return {
        "postgres_us_per_publish": per_publish * 1e6,
        "wal_bytes_per_publish": wal_per_publish,
        "postgres_us_per_empty_look": empty * 1e6,
        "postgres_us_per_look": full * 1e6,
        "postgres_us_per_deleted_row": await deletion_cost(there, connection) * 1e6,
    }


async def wal_position(connection: Connection) -> int:
    """Return how many bytes of write-ahead log there have been."""
    position: int = await connection.fetchval("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint")
    return position


@contextlib.asynccontextmanager
async def feed_connection(url: str) -> AsyncIterator[Connection]:
    """Connect with the settings of the feed's connection."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(query("plan_looks_by_index"))
        yield connection
    finally:
        await connection.close()


async def look_cost(there: Database, feed: Connection, since: str, looks: int, expected: int) -> float:
    """Return the CPU seconds of one look."""
    look = partial((await feed.prepare(query("look"))).fetchrow, since, None, 0, PAGE_ROWS, PAGE_BYTES, PAGE_BYTES)
    page = await look()  # warm
    assert page is not None
    assert len(page["seqs"]) == expected, page["seqs"]
    spent = cpu_seconds(there.pid)
    for _ in range(looks):
        await look()
    return (cpu_seconds(there.pid) - spent) / looks


async def deletion_cost(there: Database, connection: Connection) -> float:
    """Return the CPU seconds for each of the oldest rows, deleted by their seq, a thousand at a time."""
    deleted = 0
    spent = cpu_seconds(there.pid)
    for _ in range(BATCHES):
        done = await connection.execute(
            "DELETE FROM realtime.messages WHERE seq <= "
            "(SELECT max(seq) FROM (SELECT seq FROM realtime.messages ORDER BY seq LIMIT $1) oldest)",
            OLDEST,
        )
        deleted += int(done.split()[1])
    return (cpu_seconds(there.pid) - spent) / deleted


async def serve(there: Database, quiet: Probe, options: Options) -> dict[str, float]:
    """Return what 100 messages a second cost, with a server and one subscriber."""
    messages = round(options.seconds(3) * 100)
    spent = cpu_seconds(there.pid)
    found = await quiet.latencies(messages, 0.01)
    await asyncio.sleep(0.4)  # the audience counters of the last ones
    return {"postgres_us_per_message": (cpu_seconds(there.pid) - spent) / messages * 1e6, **describe(found)}
