"""The measurements P3, P4 and P11: how fast what writers commit arrives, row by row and from one large statement; and what a
message costs PostgreSQL."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import asyncpg

from benchmarks.database import CHANNEL, Database, all_reaped, database
from benchmarks.load.identities import common_token
from benchmarks.load.launch import crowd
from benchmarks.machine import Saturation, cpu_seconds
from benchmarks.measuring import INCUMBENT, OURS, Options, Result, Series, alternate, bar, summary
from benchmarks.peers.launch import incumbent, incumbent_database
from benchmarks.processes import Child
from benchmarks.server import Server, server

WRITERS = 8
ALONE = "without us"
Opener = Callable[[Path, str], AbstractAsyncContextManager[Server]]


async def connect_one(people: Child, port: int) -> None:
    """Connect one subscriber, which keeps what comes."""
    await people.do(
        "connect", group="one", kind="realtime", port=port, count=1, record=1, token=common_token(), channel=CHANNEL
    )


# P3: ingest


_measured: dict[Options, Series] = {}
"""P3 and P11 are two figures of the same measurements: a run of both takes them once."""


async def ingest(row: str, options: Options, folder: Path) -> AsyncIterator[Result]:
    """Measure the writers with no server, with ours, and with the incumbent."""
    series = Series()
    async with database(folder, options.postgres) as there, crowd(folder) as people:
        theirs = await incumbent_database(there, folder)
        await there.pgbench(WRITERS, 1)  # warm
        variants = {
            ALONE: partial(ingest_alone, there, options),
            OURS: partial(ingest_served, there, server, people, folder, options),
            INCUMBENT: partial(ingest_served, theirs, incumbent, people, folder, options),
        }
        async for result in alternate(row, options, variants, series):
            yield result
    _measured[options] = series


async def ingest_once(row: str, options: Options, folder: Path) -> AsyncIterator[Result]:
    if options not in _measured:
        async for result in ingest(row, options, folder):
            yield result
        return
    for target, results in _measured[options].results.items():
        for turn, result in enumerate(results):
            yield {"row": row, "turn": turn, "target": target, **result}


async def p3(options: Options, folder: Path) -> AsyncIterator[Result]:
    """Measure 8 writers, one row per transaction, one subscriber."""
    async for result in ingest_once("P3", options, folder):
        yield result
    series = _measured[options]
    yield summary(
        "P3",
        f"commits per second, {WRITERS} writers, one row per transaction, one subscriber",
        series.figures("per_second", 0),
        [bar(series.ratio(OURS, ALONE, "per_second"), 0.85, f" × {ALONE}", least=True)],
        intact=series.intact(OURS),
        ratios={INCUMBENT: round(series.ratio(OURS, INCUMBENT, "per_second"), 2)},
        incumbent_in_all={
            key: sum(series.values(INCUMBENT, key)) for key in ("transactions", "lost", "doubled", "disordered")
        },
    )


async def ingest_alone(there: Database, options: Options) -> Result:
    await there.doorbell(on=False)
    await there.tidy()
    saturation, postgres_before = Saturation(), cpu_seconds(there.pid)
    rate, number = await there.pgbench(WRITERS, options.seconds(5))
    shares = saturation.report()
    await all_reaped()
    await there.doorbell(on=True)
    return {
        "per_second": round(rate),
        "transactions": number,
        "postgres_us_per_message": round((cpu_seconds(there.pid) - postgres_before) / number * 1e6, 1),
        **shares,
    }


async def ingest_served(there: Database, opener: Opener, people: Child, folder: Path, options: Options) -> Result:
    await there.tidy()
    async with opener(folder, there.url) as served:
        await connect_one(people, served.port)
        await asyncio.sleep(0.5)
        await people.do("mark", group="one")
        before, postgres_before = cpu_seconds(served.pid), cpu_seconds(there.pid)
        saturation, begun = Saturation(people.pid), time.monotonic()
        rate, number = await there.pgbench(WRITERS, options.seconds(5))
        ended = time.monotonic()
        shares = saturation.report()
        report = await people.do("wait", group="one", frames=number, seconds=30, quiet=3)
        await all_counted(there)
        spent, postgres_spent = cpu_seconds(served.pid) - before, cpu_seconds(there.pid) - postgres_before
        await people.do("close", group="one")
    read = report["read"][0]
    return {
        "per_second": round(rate),
        "delivered_per_second": round(read["distinct"] / max(report["last"] - begun, 0.001)),
        "transactions": number,
        "lost": number - read["distinct"],
        "doubled": read["doubled"],
        "disordered": read["disordered"],
        "behind_at_the_end_s": round(max(0.0, report["last"] - ended), 3),
        "server_us_per_message": round(spent / number * 1e6, 1),
        "postgres_us_per_message": round(postgres_spent / number * 1e6, 1),
        **shares,
        "intact": read["distinct"] == number and not (read["doubled"] or read["disordered"]),
    }


async def all_counted(there: Database, seconds: float = 10) -> None:
    """Wait until the audience of every message is written down, and the writers' backends are gone."""
    connection = await asyncpg.connect(there.url)
    deadline = time.monotonic() + seconds
    await all_reaped()
    while time.monotonic() < deadline and await connection.fetchval(
        "SELECT EXISTS (SELECT FROM realtime.messages WHERE ws_audience_count = 0)"
    ):
        await asyncio.sleep(0.2)
    await connection.close()
    await all_reaped()


# P11: what a message costs PostgreSQL


async def p11(options: Options, folder: Path) -> AsyncIterator[Result]:
    """Measure the same; PostgreSQL's CPU from the insert to the counters, which without a server are not written."""
    async for result in ingest_once("P11", options, folder):
        yield result
    series = _measured[options]
    yield summary(
        "P11",
        f"PostgreSQL's CPU per message in µs, insert to counters, {WRITERS} writers, one row per transaction",
        series.figures("postgres_us_per_message", 1),
        [bar(series.median(OURS, "postgres_us_per_message"), 200, " µs")],
        intact=series.intact(OURS),
        ratios={INCUMBENT: round(series.ratio(OURS, INCUMBENT, "postgres_us_per_message"), 3)},
    )


# P4: one large statement


async def p4(options: Options, folder: Path) -> AsyncIterator[Result]:
    """Measure one statement that publishes 60 000 rows; 10 000 for the incumbent, which would need a minute for more."""
    rows, fewer = (6000, 1000) if options.quick else (60_000, 10_000)
    series = Series()
    async with database(folder, options.postgres) as there, crowd(folder) as people:
        theirs = await incumbent_database(there, folder)
        variants = {
            OURS: partial(publish_many, there, server, people, folder, rows),
            INCUMBENT: partial(publish_many, theirs, incumbent, people, folder, fewer),
        }
        async for result in alternate("P4", options, variants, series):
            yield result
    yield summary(
        "P4",
        f"messages per second from the commit to the last receipt, {rows} rows of one statement (incumbent: {fewer})",
        series.figures("per_second_after_commit", 0),
        [bar(series.median(OURS, "per_second_after_commit"), 40_000, " per second", least=True)],
        intact=series.intact(OURS),
        in_all=series.figures("per_second_in_all", 0),
        ratios={INCUMBENT: round(series.ratio(OURS, INCUMBENT, "per_second_after_commit"), 1)},
        incumbent_in_all={key: sum(series.values(INCUMBENT, key)) for key in ("rows", "lost", "doubled", "disordered")},
    )


async def publish_many(there: Database, opener: Opener, people: Child, folder: Path, rows: int) -> Result:
    await there.tidy()
    async with opener(folder, there.url) as served:
        await connect_one(people, served.port)
        connection = await asyncpg.connect(there.url)
        await asyncio.sleep(0.5)
        await people.do("mark", group="one")
        saturation, before, begun = Saturation(people.pid), cpu_seconds(served.pid), time.monotonic()
        await connection.execute(
            f"SELECT count(realtime.publish('{CHANNEL}', 'tick', jsonb_build_object('w', 0, 'n', n, "
            f"'text', 'forty characters of what happened to it'))) FROM generate_series(1, {rows}) n"
        )
        committed, postgres_before = time.monotonic(), cpu_seconds(there.pid)
        report = await people.do("wait", group="one", frames=rows, seconds=60, quiet=3)
        shares = saturation.report()
        spent, postgres_spent = cpu_seconds(served.pid) - before, cpu_seconds(there.pid) - postgres_before
        await connection.close()
        await people.do("close", group="one")
    read, last = report["read"][0], report["last"]
    return {
        "rows": rows,
        "statement_s": round(committed - begun, 3),
        "after_commit_s": round(last - committed, 3),
        "per_second_after_commit": round(read["distinct"] / max(last - committed, 0.001)),
        "per_second_in_all": round(read["distinct"] / max(last - begun, 0.001)),
        "server_us_per_message": round(spent / rows * 1e6, 1),
        "postgres_us_per_message_after_commit": round(postgres_spent / rows * 1e6, 1),
        "lost": rows - read["distinct"],
        "doubled": read["doubled"],
        "disordered": read["disordered"],
        **shares,
        "intact": read["distinct"] == rows and not (read["doubled"] or read["disordered"]),
    }
