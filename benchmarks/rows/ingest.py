"""The measurements P3 and P4: how fast what writers commit arrives, row by row and in one large statement."""

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
from benchmarks.processes import CHANNEL, Child, Database, crowd, database, server, token

# P3: ingest


async def p3(options: Options, folder: Path) -> AsyncIterator[Result]:
    """8 writers, one row per transaction, one subscriber."""
    with_us: list[float] = []
    without: list[float] = []
    ratios: list[float] = []
    intact = True
    async with database(folder, options.postgres) as there, crowd(folder) as people:
        await people.line()
        await there.pgbench(8, 1)  # warm
        for turn in range(options.repeat):
            pair: dict[str, float] = {}
            for kind in ("without us", "with us")[:: 1 if turn % 2 == 0 else -1]:
                if kind == "without us":
                    result = await undisturbed(options, partial(ingest_alone, there, options))
                else:
                    result = await undisturbed(options, partial(ingest_served, there, people, folder, options))
                    intact = intact and result["intact"]
                pair[kind] = result["per_second"]
                yield {"row": "P3", "turn": turn, "target": kind, **result}
            with_us.append(pair["with us"])
            without.append(pair["without us"])
            ratios.append(pair["with us"] / pair["without us"])
    yield {
        "row": "P3",
        "summary": "commits per second, 8 writers",
        "with us": spread(with_us, 0),
        "without us": spread(without, 0),
        "ratio": spread(ratios),
        "bar": ">= 0.85",
        "intact": intact,
        "met": intact and statistics.median(ratios) >= 0.85,
    }


async def ingest_alone(there: Database, options: Options) -> Result:
    await there.doorbell(on=False)
    await there.tidy()
    postgres_before = cpu_seconds(there.pid)
    rate, number = await there.pgbench(8, options.seconds(8))
    postgres_spent = cpu_seconds(there.pid) - postgres_before
    return {
        "per_second": round(rate),
        "transactions": number,
        "postgres_us_per_message": round(postgres_spent / number * 1e6, 1),
    }


async def ingest_served(there: Database, people: Child, folder: Path, options: Options) -> Result:
    await there.doorbell(on=True)
    await there.tidy()
    async with server(folder, there.url) as ours:
        await people.ask(
            do="connect",
            group="one",
            kind="realtime",
            port=ours.port,
            count=1,
            record=1,
            token=token(),
            channel=CHANNEL,
        )
        await asyncio.sleep(0.5)
        await people.ask(do="mark", group="one")
        before, postgres_before = cpu_seconds(ours.pid), cpu_seconds(there.pid)
        rate, number = await there.pgbench(8, options.seconds(8))
        ended = time.monotonic()
        report = await people.ask(do="wait", group="one", frames=number, seconds=30)
        spent, postgres_spent = cpu_seconds(ours.pid) - before, cpu_seconds(there.pid) - postgres_before
        await people.ask(do="close", group="one")
    read = report["read"][0]
    return {
        "per_second": round(rate),
        "transactions": number,
        "lost": number - read["distinct"],
        "doubled": read["doubled"],
        "disordered": read["disordered"],
        "behind_at_the_end_s": round(max(0.0, report["last"] - ended), 3),
        "server_us_per_message": round(spent / number * 1e6, 1),
        "postgres_us_per_message": round(postgres_spent / number * 1e6, 1),
        "intact": read["distinct"] == number and not (read["doubled"] or read["disordered"]),
    }


# P4: one large statement


async def p4(options: Options, folder: Path) -> AsyncIterator[Result]:
    """One statement that publishes 60 000 rows."""
    rows = 6000 if options.quick else 60_000
    after: list[float] = []
    in_all: list[float] = []
    intact = True
    async with database(folder, options.postgres) as there, crowd(folder) as people:
        await people.line()
        async with server(folder, there.url) as ours:
            await people.ask(
                do="connect", group="one", kind="realtime", port=ours.port, count=1, record=1, token=token(),
                channel=CHANNEL,
            )  # fmt: skip
            connection = await asyncpg.connect(there.url)
            for turn in range(options.repeat):
                once = partial(publish_many, there, connection, ours.pid, people, rows)
                result = await undisturbed(options, once)
                after.append(result["per_second_after_commit"])
                in_all.append(result["per_second_in_all"])
                intact = intact and result["intact"]
                yield {"row": "P4", "turn": turn, **result}
            await connection.close()
    yield {
        "row": "P4",
        "summary": f"messages per second, {rows} rows of one statement",
        "from the commit to the last receipt": spread(after, 0),
        "in all": spread(in_all, 0),
        "bar": ">= 40000 from the commit on",
        "intact": intact,
        "met": intact and statistics.median(after) >= 40_000,
    }


async def publish_many(
    there: Database, connection: asyncpg.Connection[asyncpg.Record], pid: int, people: Child, rows: int
) -> Result:
    await there.tidy()
    await asyncio.sleep(0.5)
    await people.ask(do="mark", group="one")
    before = cpu_seconds(pid)
    begun = time.monotonic()
    await connection.execute(
        f"SELECT count(realtime.publish('{CHANNEL}', 'tick', jsonb_build_object('w', 0, 'n', n, "
        f"'text', 'forty characters of what happened to it'))) FROM generate_series(1, {rows}) n"
    )
    committed = time.monotonic()
    postgres_before = cpu_seconds(there.pid)
    report = await people.ask(do="wait", group="one", frames=rows, seconds=60)
    spent, postgres_spent = cpu_seconds(pid) - before, cpu_seconds(there.pid) - postgres_before
    read = report["read"][0]
    return {
        "rows": rows,
        "statement_s": round(committed - begun, 3),
        "after_commit_s": round(report["last"] - committed, 3),
        "per_second_after_commit": round(rows / (report["last"] - committed)),
        "per_second_in_all": round(rows / (report["last"] - begun)),
        "server_us_per_message": round(spent / rows * 1e6, 1),
        "postgres_us_per_message_after_commit": round(postgres_spent / rows * 1e6, 1),
        "lost": rows - read["distinct"],
        "intact": read["distinct"] == rows and not (read["doubled"] or read["disordered"]),
    }
