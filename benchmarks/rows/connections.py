"""The measurements P8 and P9: what a connected client costs in memory, and what connecting costs in CPU time."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import statistics
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

from benchmarks.database import CHANNEL
from benchmarks.load.identities import common_token
from benchmarks.load.launch import crowd
from benchmarks.machine import Saturation, cpu_seconds, pss_bytes
from benchmarks.measuring import NODE, OURS, PYTHON, Options, Result, Series, alternate, bar, summary
from benchmarks.peers import launch
from benchmarks.processes import Child
from benchmarks.rows.servers import ours_and_incumbent
from benchmarks.server import Server

CLIENTS, STEP, PER_CHANNEL = 5000, 1000, 100
SETTLED = 30.0
"""Seconds from the last connect until memory is read. For up to 20 s after a handshake our server keeps what spoke HTTP."""


@contextlib.asynccontextmanager
async def all_servers(folder: Path, options: Options) -> AsyncIterator[dict[str, Server]]:
    async with contextlib.AsyncExitStack() as stack:
        both = await stack.enter_async_context(ours_and_incumbent(folder, options))
        yield {
            **{name: one.server for name, one in both.items()},
            NODE: await stack.enter_async_context(launch.socketio(folder)),
            PYTHON: await stack.enter_async_context(launch.python_socketio(folder)),
        }


# P8: memory


async def p8(options: Options, folder: Path) -> AsyncIterator[Result]:
    """Measure 5 000 clients, each another user, 100 to a channel. All servers at the same time: memory does not mind."""
    count, step = (200, 100) if options.quick else (CLIENTS, STEP)
    series = Series()
    for turn in range(options.repeat):
        place = folder / f"turn-{turn}"
        place.mkdir(mode=0o711)
        async with all_servers(place, options) as servers:
            for name, result in (await fill(servers, place, count, step, 1 if options.quick else SETTLED)).items():
                series.results.setdefault(name, []).append(result)
                yield {"row": "P8", "turn": turn, "target": name, **result}
    yield summary(
        "P8",
        f"KB of memory (PSS) per connected and subscribed client, at {count} clients, {PER_CHANNEL} to a channel",
        series.figures("kb_per_client", 2),
        [bar(series.median(OURS, "kb_per_client"), 5, " KB")],
        ratios={name: round(series.ratio(OURS, name, "kb_per_client"), 3) for name in servers if name != OURS},
        curves={name: median_curve([result["samples"] for result in series.results[name]]) for name in servers},
    )


async def fill(servers: dict[str, Server], folder: Path, count: int, step: int, settled: float) -> dict[str, Result]:
    """Connect the clients step by step, and return how the servers grow; each has a crowd of its own, for the limit of open
    files."""
    async with contextlib.AsyncExitStack() as stack:
        crowds: dict[str, Child] = {}
        for name in servers:
            crowds[name] = await stack.enter_async_context(crowd(folder))
        await asyncio.sleep(1)
        samples = {name: [[0, pss_bytes(running.pid)]] for name, running in servers.items()}
        for first in range(0, count, step):
            await asyncio.gather(
                *(connect_users(crowds[name], running.port, first, step) for name, running in servers.items())
            )
            await asyncio.sleep(settled if first + step == count else 1)
            for name, running in servers.items():
                samples[name].append([first + step, pss_bytes(running.pid)])
    return {name: grown(points) for name, points in samples.items()}


async def connect_users(people: Child, port: int, first: int, number: int) -> None:
    await people.do(
        "connect", group=f"from {first}", kind="realtime", port=port, count=number, record=0, own=True,
        first_user=first, per_channel=PER_CHANNEL, channel=CHANNEL,
    )  # fmt: skip


def grown(points: list[list[int]]) -> Result:
    (_, empty), (count, full) = points[0], points[-1]
    return {
        "clients": count,
        "kb_per_client": round((full - empty) / count / 1024, 3),
        "empty_mb": round(empty / 2**20, 1),
        "samples": [[clients, round((pss - empty) / 2**20, 2)] for clients, pss in points],
    }


def median_curve(curves: list[list[list[float]]]) -> list[list[float]]:
    """Return the median of curves with the same abscissae, in MB above the empty server."""
    return [[points[0][0], statistics.median(point[1] for point in points)] for points in zip(*curves, strict=True)]


# P9: connecting

_users = itertools.count()


async def p9(options: Options, folder: Path) -> AsyncIterator[Result]:
    """Measure 2 000 connects, 50 at a time, each with a token of its own; and ours once more, with one token for all."""
    count = 100 if options.quick else 2000
    series = Series()
    async with all_servers(folder, options) as servers, crowd(folder) as people:
        variants = {name: partial(connect, people, running, count, own=True) for name, running in servers.items()}
        variants[f"{OURS}, one token"] = partial(connect, people, servers[OURS], count, own=False)
        for running in servers.values():  # JIT, caches
            await connect(people, running, count // 4, own=True)
        async for result in alternate("P9", options, variants, series):
            yield result
    yield summary(
        "P9",
        "server CPU per connect in µs: TCP, WebSocket handshake, Socket.IO CONNECT with a JWT that was never seen before",
        series.figures("us_per_connect", 1),
        [bar(series.median(OURS, "us_per_connect"), 300, " µs")],
        ratios={name: round(series.ratio(OURS, name, "us_per_connect"), 3) for name in servers if name != OURS},
    )


async def connect(people: Child, running: Server, count: int, *, own: bool) -> Result:
    # New users in every turn: a token that was seen before might be remembered.
    first = next(_users) * count
    saturation, before = Saturation(people.pid), cpu_seconds(running.pid)
    answer = await people.do(
        "connect", group="new", kind="socketio", port=running.port, count=count, record=0, own=own, first_user=first,
        token=common_token(), channel=CHANNEL,
    )  # fmt: skip
    shares = saturation.report()
    await asyncio.sleep(0.3)
    spent = cpu_seconds(running.pid) - before
    await people.do("close", group="new")
    await asyncio.sleep(1)  # until the server has cleaned up
    return {"connects": answer["connected"], "us_per_connect": round(spent / count * 1e6, 1), **shares}
