"""The measurement P10: what the doorbell costs an application's own commits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import asyncpg

from benchmarks.database import Connection, Database, database
from benchmarks.machine import Saturation
from benchmarks.measuring import Options, Result, Series, alternate, bar, summary
from benchmarks.server import server


async def p10(options: Options, folder: Path) -> AsyncIterator[Result]:
    """Measure what the doorbell costs 8 and 32 writers while the feed is awake."""
    series = Series()
    # A short fallback, so that the feed is awake soon where nobody rings.
    async with database(folder, options.postgres) as there, server(folder, there.url, feed_fallback_seconds=0.05):
        listener = await asyncpg.connect(there.url)
        await there.pgbench(8, 1)  # warm
        for writers in (8, 32):
            variants = {
                named(writers, bell): partial(commit_rate, there, listener, writers, bell, options)
                for bell in (False, True)
            }
            async for result in alternate("P10", options, variants, series):
                yield result
        await listener.close()
    ratios = {writers: series.ratio(named(writers, True), named(writers, False), "per_second") for writers in (8, 32)}
    yield summary(
        "P10",
        "commits per second with the doorbell and without it, feed awake",
        series.figures("per_second", 0),
        [bar(ratio, 0.95, f" × without it, {writers} writers", least=True) for writers, ratio in ratios.items()],
    )


def named(writers: int, bell: bool) -> str:
    return f"{writers} writers, {'with' if bell else 'without'}"


async def commit_rate(there: Database, listener: Connection, writers: int, bell: bool, options: Options) -> Result:
    rings: list[object] = []

    def heard(*ring: object) -> None:
        rings.append(ring[-1])

    await there.doorbell(on=bell)
    await there.tidy()
    await listener.add_listener("realtime", heard)
    await asyncio.sleep(0.5)
    saturation = Saturation()
    rate, number = await there.pgbench(writers, options.seconds(4))
    shares = saturation.report()
    await listener.remove_listener("realtime", heard)
    return {"per_second": round(rate), "transactions": number, "rings": len(rings), **shares}
