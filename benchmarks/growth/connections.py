"""G5: connections that are idle, with the heartbeats of the default settings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

from benchmarks.database import database
from benchmarks.growth.curve import measure, point, summarise
from benchmarks.growth.probe import Probe, describe, probe
from benchmarks.load.identities import common_token
from benchmarks.load.launch import residents
from benchmarks.machine import cpu_seconds, pss_bytes
from benchmarks.measuring import Options, Result
from benchmarks.processes import Child
from benchmarks.server import server

PING_INTERVAL = 25
"""The default. (The other benchmarks switch heartbeats off.)"""
ROOMS = 1000
"""How many rooms the idle connections share; each is in one."""


async def g5(options: Options, folder: Path) -> AsyncIterator[Result]:
    """Measure 0 … 10 000 idle connections: what they cost in themselves, and one subscriber of another room."""
    sizes = (0, 100) if options.quick else (0, 100, 1_000, 10_000)
    points: list[Result] = []
    async with (
        database(folder, options.postgres) as there,
        residents(folder) as people,
        server(folder, there.url, ping_interval=PING_INTERVAL) as ours,
        probe(there, ours) as quiet,
    ):
        for before, size in zip((0, *sizes), sizes, strict=False):
            await join(people, ours.port, before, size)
            figures = await measure(options, partial(publish, quiet, ours.pid, options))
            idle = await idle_cost(ours.pid, 2.0 if options.quick else PING_INTERVAL)
            memory = pss_bytes(ours.pid)
            closed = (await people.do("mark"))["closed"]
            points.append(
                point("G5", "idle connections", size, {**figures, **idle, "server_bytes": memory, "closed": closed})
            )
            if size >= 10_000:  # fewer cost less than the variation of the idle server
                points[-1] |= heartbeat_cost(points)
            yield points[-1]
    yield summarise(
        "G5",
        "idle connections",
        points,
        {
            "server_us_per_message": ("server CPU per message to one subscriber, µs", 0),
            "latency_p50_ms": ("latency from commit to receipt, p50, ms", 0),
            "latency_p99_ms": ("the same, p99, ms", 0),
        },
        intact=all(one["closed"] == 0 for one in points),
    )


async def join(people: Child, port: int, before: int, size: int) -> None:
    if size > before:
        await people.do("connect", port=port, count=size - before, token=common_token())
        await people.do("subscribe", channels=[f"bench-idle-{n % ROOMS}" for n in range(size)])


async def publish(quiet: Probe, pid: int, options: Options) -> dict[str, float]:
    """Publish 100 messages a second to the one subscriber, and return what each costs."""
    messages = round(options.seconds(3) * 100)
    spent = cpu_seconds(pid)
    latencies = await quiet.latencies(messages, 0.01)
    return {"server_us_per_message": (cpu_seconds(pid) - spent) / messages * 1e6, **describe(latencies)}


async def idle_cost(pid: int, seconds: float) -> dict[str, float]:
    """Return the CPU while nothing is published: one heartbeat for everybody."""
    spent = cpu_seconds(pid)
    await asyncio.sleep(seconds)
    return {"idle_cpu_ms_per_second": round((cpu_seconds(pid) - spent) / seconds * 1000, 2)}


def heartbeat_cost(points: list[Result]) -> dict[str, float]:
    """Return what of the idle cost is heartbeats."""
    empty, full = points[0], points[-1]
    per_second = (full["idle_cpu_ms_per_second"] - empty["idle_cpu_ms_per_second"]) * 1000
    return {"server_us_per_heartbeat": round(per_second * PING_INTERVAL / full["size"], 1)}
