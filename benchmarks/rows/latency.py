"""The measurement P7 and the sweep S2: how long a message takes from the commit to the subscriber, at fixed rates."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.load.launch import callers
from benchmarks.machine import Saturation
from benchmarks.measuring import INCUMBENT, OURS, Options, Result, Series, alternate, bar, summary
from benchmarks.processes import Child
from benchmarks.rows.servers import ours_and_incumbent

CONNECTIONS = 8
"""To the database, so that a commit that is due need not wait for the one before it."""
SHARES = ("p50", "p90", "p99", "max")
RATES = (10, 100, 500, 1000, 2000)
LISTENERS_OF_THE_SWEEP = 10
"""With 50, the clients would need more of a CPU than there is: 2 000 messages a second are 100 000 receipts."""


@contextlib.asynccontextmanager
async def both(folder: Path, options: Options, listeners: int) -> AsyncIterator[dict[str, Child]]:
    """Run ours and the incumbent, each with its listeners: the process that commits and hears."""
    async with contextlib.AsyncExitStack() as stack:
        listening = {}
        for name, one in (await stack.enter_async_context(ours_and_incumbent(folder, options))).items():
            clients = await stack.enter_async_context(callers(folder))
            port, url = one.server.port, one.database.url
            await clients.do("listen", port=port, count=listeners, url=url, connections=CONNECTIONS)
            await clients.do("tick", rate=50, seconds=1)  # plans, caches
            listening[name] = clients
        yield listening


async def tick(clients: Child, rate: float, seconds: float) -> Result:
    saturation = Saturation(clients.pid)
    report = await clients.do("tick", rate=rate, seconds=seconds)
    return {
        "rate": rate,
        **{f"{share}_ms": value for share, value in report.pop("from_commit_ms").items()},
        **{f"due_{share}_ms": value for share, value in report.pop("from_due_ms").items()},
        **report,
        "kept_up": report["committed_per_second"] >= 0.95 * rate,
        **saturation.report(),
    }


async def p7(options: Options, folder: Path) -> AsyncIterator[Result]:
    """Measure 100 messages a second to 50 subscribers."""
    series = Series()
    async with both(folder, options, 50) as listening:
        variants = {name: partial(tick, clients, 100, options.seconds(8)) for name, clients in listening.items()}
        async for result in alternate("P7", options, variants, series):
            yield result
    yield summary(
        "P7",
        "ms from the commit to the receipt, 100 messages a second to 50 subscribers",
        {
            f"{name}, {share}": series.figures(f"{key}_ms")[name]
            for name in (OURS, INCUMBENT)
            for share, key in (*((key, key) for key in SHARES), ("p99 from when it was due", "due_p99"))
        },
        [bar(series.median(OURS, "p50_ms"), 2, " ms (p50)"), bar(series.median(OURS, "p99_ms"), 8, " ms (p99)")],
        intact=series.intact(OURS),
        ratios={f"{INCUMBENT}, {key}": round(series.ratio(OURS, INCUMBENT, f"{key}_ms"), 2) for key in ("p50", "p99")},
        percentiles_from_due={key: series.figures(f"due_{key}_ms") for key in SHARES},
    )


async def s2(options: Options, folder: Path) -> AsyncIterator[Result]:
    """Measure more and more messages a second, to 10 subscribers."""
    series = Series()
    turns = replace(options, repeat=max(1, options.repeat // 2))
    rates = RATES[:2] if options.quick else RATES
    async with both(folder, options, LISTENERS_OF_THE_SWEEP) as listening:
        for rate in rates:
            variants = {
                f"{name}, {rate} per second": partial(tick, clients, rate, options.seconds(4))
                for name, clients in listening.items()
            }
            async for result in alternate("S2", turns, variants, series):
                yield result
    yield summary(
        "S2",
        f"ms from the time a message was due to its receipt (median), by the rate, {LISTENERS_OF_THE_SWEEP} subscribers",
        series.figures("due_p50_ms"),
        [],
        intact=all(series.intact(f"{OURS}, {rate} per second") for rate in rates),
        curves={
            f"{name}, {share}": [
                [rate, series.median(f"{name}, {rate} per second", f"due_{share}_ms")]
                for rate in rates
                if all(one["kept_up"] for one in series.results[f"{name}, {rate} per second"])
            ]
            for name in (OURS, INCUMBENT)
            for share in ("p50", "p99")
        },
    )
