"""G1: subscribers of one room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import asyncpg

from benchmarks.database import CHANNEL, Connection, database
from benchmarks.growth.curve import measure, point, summarise
from benchmarks.growth.probe import Probe, probe
from benchmarks.load.identities import common_token
from benchmarks.load.launch import crowd
from benchmarks.machine import cpu_seconds
from benchmarks.measuring import Options, Result
from benchmarks.processes import Child
from benchmarks.server import server
from benchmarks.timing import paced

TEXT = "x" * 100
DELIVERIES, PER_SECOND = 30_000, 20_000
"""How many deliveries one measurement has, unless that takes more than 150 messages; and how many a second at most."""


async def g1(options: Options, folder: Path) -> AsyncIterator[Result]:
    """Measure a room of 1 … 10 000 sockets: CPU per delivery, and how long it holds up a second, quiet room."""
    sizes = (1, 10, 50) if options.quick else (1, 10, 100, 1_000, 10_000)
    points: list[Result] = []
    async with (
        database(folder, options.postgres) as there,
        crowd(folder) as people,
        server(folder, there.url) as ours,
        probe(there, ours) as quiet,
    ):
        connection = await asyncpg.connect(there.url)
        room = Room(people, quiet, connection)
        for size in sizes:
            await room.grow(ours.port, size)
            figures = await measure(options, partial(once, room, ours.pid))
            points.append(point("G1", "subscribers", size, {**figures, **await held_up(room)}))
            yield points[-1]
        await connection.close()
    yield summarise(
        "G1",
        "subscribers",
        points,
        {
            "server_us_per_delivery": ("server CPU per delivery, µs", sizes[-1] if options.quick else 100),
            "longest_echo_ms": (
                "the longest wait for another request's answer, ms",
                sizes[-1] if options.quick else 1000,
            ),
        },
        intact=all(one["lost"] == 0 for one in points),
    )


class Room:
    """The room that grows: a group of the crowd for each of its sizes."""

    def __init__(self, people: Child, quiet: Probe, connection: Connection) -> None:
        self.size = 0
        self.quiet = quiet
        self._people = people
        self._connection = connection
        self._groups: dict[str, int] = {}

    async def grow(self, port: int, size: int) -> None:
        group, count = str(size), size - self.size
        await self._people.do(
            "connect",
            group=group,
            kind="realtime",
            port=port,
            count=count,
            record=0,
            token=common_token(),
            channel=CHANNEL,
        )
        self._groups[group] = count
        self.size = size

    async def publish(self, messages: int) -> int:
        """Publish at a rate that leaves the server time for other things.

        Returns:
            How many deliveries did not come; less than zero if there were too many.
        """
        for group in self._groups:
            await self._people.do("mark", group=group)
        pause = max(0.02, self.size / PER_SECOND)
        async for number in paced(pause, messages):
            await self._connection.execute(
                "SELECT realtime.publish($1, 'tick', jsonb_build_object('n', $2::int, 'w', 0, 'text', $3::text))",
                CHANNEL,
                number,
                TEXT,
            )
        came = 0
        for group, count in self._groups.items():
            report = await self._people.do("wait", group=group, frames=messages * count, seconds=30)
            came += report["frames"]
        return messages * self.size - came


async def once(room: Room, pid: int) -> dict[str, float]:
    messages = max(5, min(150, DELIVERIES // room.size))
    before = cpu_seconds(pid)
    lost = await room.publish(messages)
    spent = cpu_seconds(pid) - before
    return {"server_us_per_delivery": spent / (messages * room.size) * 1e6, "lost": abs(lost)}


async def held_up(room: Room) -> dict[str, float]:
    """Return, for while the room gets messages, how long the simplest request waits, which is how long the event loop is
    held; and how long a message to a quiet room takes, which comes behind the others in the order of the feed."""
    echoes: list[float] = []

    async def ask() -> None:
        while True:
            echoes.append(await room.quiet.echo())
            await asyncio.sleep(0.003)

    asking = asyncio.create_task(ask())
    try:
        await room.publish(10)
    finally:
        asking.cancel()
    publishing = asyncio.create_task(room.publish(5))
    latencies = await room.quiet.latencies(20, 0.05)
    await publishing
    return {"longest_echo_ms": round(max(echoes), 2), "longest_quiet_latency_ms": round(max(latencies), 2)}
