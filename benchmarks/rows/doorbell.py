"""The measurement P10: what the doorbell costs an application's own commits."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import asyncpg

from benchmarks.machine import spread
from benchmarks.measuring import Options, Result, undisturbed
from benchmarks.processes import Database, database, server


async def p10(options: Options, folder: Path) -> AsyncIterator[Result]:
    """What the doorbell costs 8 and 32 writers while the feed is awake."""
    rates: dict[tuple[int, bool], list[float]] = {}
    ratios: dict[int, list[float]] = {8: [], 32: []}
    # A short fallback, so that the feed is awake soon where nobody rings.
    async with database(folder, options.postgres) as there, server(folder, there.url, feed_fallback_seconds=0.05):
        listener = await asyncpg.connect(there.url)
        await there.pgbench(8, 1)  # warm
        for turn in range(options.repeat):
            for writers in (8, 32):
                pair: dict[bool, float] = {}
                for bell in (False, True)[:: 1 if turn % 2 == 0 else -1]:
                    result = await undisturbed(options, partial(commit_rate, there, listener, writers, bell, options))
                    pair[bell] = result["per_second"]
                    rates.setdefault((writers, bell), []).append(result["per_second"])
                    yield {"row": "P10", "turn": turn, "writers": writers, "doorbell": bell, **result}
                ratios[writers].append(pair[True] / pair[False])
        await listener.close()
    yield {
        "row": "P10",
        "summary": "commits per second with the doorbell and without it, feed awake",
        **{
            f"{writers} writers": {
                "with": spread(rates[writers, True], 0),
                "without": spread(rates[writers, False], 0),
                "ratio": spread(ratios[writers]),
            }
            for writers in ratios
        },
        "bar": ">= 0.95 each",
        "met": all(statistics.median(values) >= 0.95 for values in ratios.values()),
    }


async def commit_rate(
    there: Database, listener: asyncpg.Connection[asyncpg.Record], writers: int, bell: bool, options: Options
) -> Result:
    rings: list[object] = []

    def heard(*ring: object) -> None:
        rings.append(ring[-1])

    await there.doorbell(on=bell)
    await there.tidy()
    await listener.add_listener("realtime", heard)
    await asyncio.sleep(0.5)
    rate, number = await there.pgbench(writers, options.seconds(6))
    await listener.remove_listener("realtime", heard)
    return {"per_second": round(rate), "transactions": number, "rings": len(rings)}
