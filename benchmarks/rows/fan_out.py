"""The measurements P1 and P2, and the sweep S1: what one delivery costs a server, ours and its peers, and the C loop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import asyncpg

from benchmarks.database import CHANNEL, Connection
from benchmarks.load.identities import common_token
from benchmarks.load.launch import crowd
from benchmarks.machine import Saturation, cpu_seconds
from benchmarks.measuring import C_LOOP, NODE, OURS, PYTHON, Options, Result, Series, alternate, bar, summary
from benchmarks.peers import launch
from benchmarks.peers.launch import Peer
from benchmarks.processes import Child
from benchmarks.rows.servers import Served, ours_and_incumbent
from benchmarks.timing import paced

SUBSCRIBERS = 1000
SWEEP = (10, 100, 1000, 4000)
TEXT = "x" * 100
MESSAGES_PER_SECOND = 50


class Target:
    """Something that writes messages to a room of sockets: its name, its process, and how to make it write."""

    name: str
    pid: int
    port: int
    pace = 1.0
    """The share of the messages that it gets: python-socketio could not keep up with all, and all would wait for it."""

    async def publish(self, first: int, number: int) -> None:
        """Send the messages `first` … `first + number - 1`, together."""
        raise NotImplementedError


class Committed(Target):
    """A server that delivers what is committed to its database."""

    def __init__(self, name: str, served: Served, connection: Connection) -> None:
        self.name, self.pid, self.port = name, served.server.pid, served.server.port
        self._connection = connection

    async def publish(self, first: int, number: int) -> None:
        payloads = [json.dumps({"n": n, "w": 0, "text": TEXT}) for n in range(first, first + number)]
        await self._connection.execute(
            f"SELECT realtime.publish('{CHANNEL}', 'tick', p::jsonb) FROM unnest($1::text[]) p", payloads
        )


class Fed(Target):
    """A server that emits what it reads on stdin."""

    def __init__(self, name: str, peer: Peer, pace: float = 1.0) -> None:
        self.name, self.pid, self.port, self.pace = name, peer.pid, peer.port, pace
        self.child = peer.child

    async def publish(self, first: int, number: int) -> None:
        self.child.send(f"[{','.join(peer_payload(n) for n in range(first, first + number))}]")


class WriteLoop(Fed):
    """It knows nothing of Socket.IO, so it gets the whole packet."""

    async def publish(self, first: int, number: int) -> None:
        self.child.send(*(f'42["tick",{peer_payload(n)}]' for n in range(first, first + number)))


def peer_payload(number: int) -> str:
    """Return what a peer has to send for its frames to be as long as ours, which have spaces in them and `meta`."""
    data = {
        "n": number,
        "w": 0,
        "text": TEXT,
        "meta": {
            "channel": CHANNEL,
            "messageId": "00000000-0000-4000-8000-000000000000",
            "senderType": "system",
            "timestamp": "2000-01-01T00:00:00.000Z",
        },
    }
    spaces = len(json.dumps(data)) - len(json.dumps(data, separators=(",", ":")))
    return json.dumps({**data, "text": TEXT + "x" * spaces}, separators=(",", ":"))


@contextlib.asynccontextmanager
async def all_targets(folder: Path, options: Options) -> AsyncIterator[list[Target]]:
    """Run ours and the servers that it is compared with. Only one of them works at a time."""
    async with contextlib.AsyncExitStack() as stack:
        targets: list[Target] = []
        for name, one in (await stack.enter_async_context(ours_and_incumbent(folder, options))).items():
            connection = await asyncpg.connect(one.database.url)
            stack.push_async_callback(connection.close)
            targets.append(Committed(name, one, connection))
        targets.append(Fed(NODE, await stack.enter_async_context(launch.socketio(folder))))
        targets.append(Fed(PYTHON, await stack.enter_async_context(launch.python_socketio(folder)), pace=0.2))
        yield targets


async def subscribe_all(people: Child, targets: Sequence[Target], count: int) -> None:
    """Give each of the targets `count` sockets of the crowd."""
    for target in targets:
        kind = "plain" if target.name == C_LOOP else "realtime"
        await people.do(
            "connect", group=target.name, kind=kind, port=target.port, count=count, record=1, token=common_token(),
            channel=CHANNEL,
        )  # fmt: skip


@dataclass(frozen=True)
class Traffic:
    """So many commits of so many messages, `pause` seconds from one to the next, to `count` subscribers."""

    commits: int
    together: int
    pause: float
    count: int


async def fan_out(
    row: str, options: Options, folder: Path, *, together: int, bars: dict[str, float]
) -> AsyncIterator[Result]:
    """Measure `together` messages per commit to 1 000 subscribers, 50 messages a second."""
    count = 100 if options.quick else SUBSCRIBERS
    pause = together / MESSAGES_PER_SECOND
    traffic = Traffic(round(options.seconds(4) / pause), together, pause, count)
    warm_up = Traffic(traffic.commits // 4 + 1, together, pause, count)
    series = Series()
    async with (
        crowd(folder) as people,
        all_targets(folder, options) as targets,
        launch.write_loop(folder, count) as loop,
    ):
        targets.append(WriteLoop(C_LOOP, loop))
        await subscribe_all(people, targets, count)
        await loop.child.line()
        for target in targets:  # JIT, plans, caches
            await fan_out_once(target, people, warm_up)
        variants = {target.name: partial(fan_out_once, target, people, traffic) for target in targets}
        async for result in alternate(row, options, variants, series):
            yield result
    mine = series.median(OURS, "us_per_delivery")
    yield summary(
        row,
        f"server CPU per delivery in µs, {together} message{'s' * (together > 1)} per commit, {count} subscribers",
        series.figures("us_per_delivery"),
        [bar(mine / series.median(name, "us_per_delivery"), limit, f" × {name}") for name, limit in bars.items()],
        intact=series.intact(OURS),
        ratios={
            name: round(mine / series.median(name, "us_per_delivery"), 3) for name in series.results if name != OURS
        },
        **{
            f"{kind}_by_peers": {name: sum(series.values(name, kind)) for name in series.results if name != OURS}
            for kind in ("lost", "disordered")
        },
    )


async def fan_out_once(target: Target, people: Child, traffic: Traffic) -> Result:
    commits = max(1, round(traffic.commits * target.pace))
    pause = traffic.pause / target.pace
    messages = commits * traffic.together
    await asyncio.sleep(0.3)
    await people.do("mark", group=target.name)
    saturation, before = Saturation(people.pid), cpu_seconds(target.pid)
    begun = time.monotonic()
    async for commit in paced(pause, commits):
        await target.publish(1_000_001 + commit * traffic.together, traffic.together)
    report = await people.do("wait", group=target.name, frames=messages * traffic.count, seconds=30, quiet=3)
    seconds = max(report["last"] - begun, commits * pause)
    spent = cpu_seconds(target.pid) - before
    read = report["read"][0]
    return {
        "messages": messages,
        "subscribers": traffic.count,
        "us_per_delivery": round(spent / max(report["frames"], 1) * 1e6, 3),
        "server_cpu_share": round(spent / seconds, 3),
        **saturation.report(),
        "bytes_per_delivery": round(report["bytes"] / max(report["frames"], 1), 1),
        "lost": messages - read["distinct"],
        "disordered": read["disordered"],
        "intact": report["least"] == report["most"] == messages == read["distinct"]
        and not (read["doubled"] or read["disordered"] or report["closed"]),
    }


async def p1(options: Options, folder: Path) -> AsyncIterator[Result]:
    """Measure the fan-out of one message per commit."""
    async for result in fan_out("P1", options, folder, together=1, bars={C_LOOP: 1.6, NODE: 0.5}):
        yield result


async def p2(options: Options, folder: Path) -> AsyncIterator[Result]:
    """Measure the fan-out of ten messages per commit."""
    async for result in fan_out("P2", options, folder, together=10, bars={NODE: 0.15}):
        yield result


# S1: how the cost of a delivery goes with the number of subscribers


async def s1(options: Options, folder: Path) -> AsyncIterator[Result]:
    """Measure one message per commit, to more and more subscribers; at most 20 000 deliveries and 200 messages a second."""
    series = Series()
    turns = Options(max(1, options.repeat // 2), options.quick, options.postgres, options.patience)
    points = SWEEP[:2] if options.quick else SWEEP
    async with all_targets(folder, options) as targets:
        for count in points:
            async with crowd(folder) as people:
                await subscribe_all(people, targets, count)
                rate = min(200, 20_000 / count)
                traffic = Traffic(round(options.seconds(3) * rate), 1, 1 / rate, count)
                variants = {f"{t.name}, {count}": partial(fan_out_once, t, people, traffic) for t in targets}
                async for result in alternate("S1", turns, variants, series):
                    yield result
    curves = {
        target.name: [[count, series.median(f"{target.name}, {count}", "us_per_delivery")] for count in points]
        for target in targets
    }
    yield summary(
        "S1",
        "server CPU per delivery in µs, by the number of subscribers, one message per commit",
        series.figures("us_per_delivery"),
        [],
        intact=all(series.intact(f"{OURS}, {count}") for count in points),
        curves=curves,
    )
