"""The measurements P5 and P6: how fast clients subscribe and publish, judged by policies that look things up."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.database import all_reaped
from benchmarks.load.launch import callers
from benchmarks.machine import Saturation, cpu_seconds
from benchmarks.measuring import INCUMBENT, OURS, Options, Result, Series, alternate, bar, summary
from benchmarks.processes import Child
from benchmarks.rows.servers import Served, ours_and_incumbent

CHATS = Path(__file__).with_name("chats.sql")
"""The application whose policies judge."""
BURSTS = 5
WINDOWS = (1, 16)


@dataclass(frozen=True)
class Occupied(Served):
    """A server, its database, and clients that are signed in to it and have no other."""

    clients: Child


@contextlib.asynccontextmanager
async def both(folder: Path, options: Options, count: int) -> AsyncIterator[dict[str, Occupied]]:
    """Run ours and the incumbent, each with `count` clients, on the same application."""
    async with contextlib.AsyncExitStack() as stack:
        # A client may send 100 messages a second by default, and these send as fast as they can.
        servers = ours_and_incumbent(folder, options, tables=CHATS.read_text(), max_messages_per_second=0)
        occupied = {}
        for name, one in (await stack.enter_async_context(servers)).items():
            clients = await stack.enter_async_context(callers(folder))
            await clients.do("enter", port=one.server.port, count=count)
            occupied[name] = Occupied(one.server, one.database, clients)
        yield occupied


async def p5(options: Options, folder: Path) -> AsyncIterator[Result]:
    """Measure 1 000 clients that subscribe at the same moment, each to a chat that is theirs alone."""
    count = 100 if options.quick else 1000
    series = Series()
    async with both(folder, options, count) as served:
        variants = {name: partial(subscribe, one, count) for name, one in served.items()}
        for one in variants.values():  # connections to the database, plans
            await one()
        async for result in alternate("P5", options, variants, series):
            yield result
    yield summary(
        "P5",
        f"subscribes per second under row-level security, {count} clients at once",
        series.figures("per_second", 0),
        [bar(series.ratio(OURS, INCUMBENT, "per_second"), 10, f" × {INCUMBENT}", least=True)],
        server_us=series.figures("server_us", 1),
        postgres_us=series.figures("postgres_us", 1),
    )


async def subscribe(served: Occupied, count: int) -> Result:
    """Subscribe in five bursts; the rate is that of all of them together."""
    before, postgres_before = cpu_seconds(served.server.pid), cpu_seconds(served.database.pid)
    saturation = Saturation(served.clients.pid)
    seconds = [(await served.clients.do("subscribe"))["seconds"] for _ in range(BURSTS)]
    shares = saturation.report()
    spent = cpu_seconds(served.server.pid) - before
    postgres_spent = cpu_seconds(served.database.pid) - postgres_before
    number = count * BURSTS
    return {
        "per_second": round(number / sum(seconds)),
        "subscribes": number,
        "burst_s": round(statistics.median(seconds), 3),
        "server_us": round(spent / number * 1e6, 1),
        "postgres_us": round(postgres_spent / number * 1e6, 1),
        **shares,
    }


async def p6(options: Options, folder: Path) -> AsyncIterator[Result]:
    """Measure 20 clients that publish, each to a chat of their own; what counts is acknowledged, and reaches a watcher."""
    series = Series()
    async with both(folder, options, 20) as served:
        variants = {
            f"{name}, window {window}": partial(publish, one, window, options.seconds(4))
            for window in WINDOWS
            for name, one in served.items()
        }
        for name in served:  # connections to the database, plans
            await publish(served[name], 1, 0.5)
        async for result in alternate("P6", options, variants, series):
            yield result
    alone, wide = (f"{OURS}, window {window}" for window in WINDOWS)
    yield summary(
        "P6",
        "client publishes per second under row-level security, 20 clients, each with one (or 16) unanswered",
        series.figures("per_second", 0),
        [bar(series.ratio(alone, f"{INCUMBENT}, window 1", "per_second"), 10, f" × {INCUMBENT}", least=True)],
        intact=series.intact(alone) and series.intact(wide),
        ratios={f"{INCUMBENT}, window 16": round(series.ratio(wide, f"{INCUMBENT}, window 16", "per_second"), 2)},
        server_us=series.figures("server_us", 1),
        postgres_us=series.figures("postgres_us", 1),
        disordered_by_peers={
            name: sum(series.values(name, "disordered")) for name in series.results if name.startswith(INCUMBENT)
        },
    )


async def publish(served: Occupied, window: int, seconds: float) -> Result:
    await served.database.tidy()
    before, postgres_before = cpu_seconds(served.server.pid), cpu_seconds(served.database.pid)
    saturation = Saturation(served.clients.pid)
    report = await served.clients.do("publish", window=window, seconds=seconds)
    shares = saturation.report()
    await all_reaped()
    spent = cpu_seconds(served.server.pid) - before
    postgres_spent = cpu_seconds(served.database.pid) - postgres_before
    number = report["acknowledged"]
    return {
        "per_second": round(number / report["seconds"]),
        "acknowledged": number,
        "refused": report["refused"],
        "lost": number - report["distinct"],
        "doubled": report["doubled"],
        "disordered": report["disordered"],
        "server_us": round(spent / max(number, 1) * 1e6, 1),
        "postgres_us": round(postgres_spent / max(number, 1) * 1e6, 1),
        **shares,
        "intact": report["distinct"] == number and not (report["doubled"] or report["disordered"] or report["refused"]),
    }
