"""The measurements P1 and P2: what one delivery costs the server, beside a C loop and the usual servers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg

from benchmarks.machine import cpu_seconds, spread
from benchmarks.measuring import Options, Result, undisturbed
from benchmarks.peers import socketio_peer, write_loop
from benchmarks.processes import CHANNEL, Child, crowd, database, server, token

SUBSCRIBERS = 1000
TEXT = "x" * 100


class Target:
    """Something that writes messages to a room of sockets: its name, its process, and how to make it write."""

    name: str
    pid: int

    async def publish(self, first: int, number: int) -> None:
        """Send the messages `first` … `first + number - 1`, together."""
        raise NotImplementedError


class Ours(Target):
    name = "insforge-realtime"

    def __init__(self, pid: int, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self.pid = pid
        self._connection = connection

    async def publish(self, first: int, number: int) -> None:
        payloads = [json.dumps({"n": n, "w": 0, "text": TEXT}) for n in range(first, first + number)]
        await self._connection.execute(
            f"SELECT realtime.publish('{CHANNEL}', 'tick', p::jsonb) FROM unnest($1::text[]) p", payloads
        )


def peer_payload(number: int) -> str:
    """What a peer has to send for its frames to be as long as ours, which have spaces in them and `meta`."""
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


class SocketIO(Target):
    name = "socket.io"

    def __init__(self, child: Child) -> None:
        self.pid = child.pid
        self._child = child

    async def publish(self, first: int, number: int) -> None:
        self._child.send(f"[{','.join(peer_payload(n) for n in range(first, first + number))}]")


class WriteLoop(Target):
    name = "c loop"

    def __init__(self, child: Child) -> None:
        self.pid = child.pid
        self._child = child

    async def publish(self, first: int, number: int) -> None:
        self._child.send(*(f'42["tick",{peer_payload(n)}]' for n in range(first, first + number)))


@contextlib.asynccontextmanager
async def fan_out_targets(folder: Path, options: Options, people: Child, count: int) -> AsyncIterator[list[Target]]:
    """All three, each with its own `count` sockets of the crowd. Only one of them works at a time."""
    async with contextlib.AsyncExitStack() as stack:
        there = await stack.enter_async_context(database(folder, options.postgres))
        ours = await stack.enter_async_context(server(folder, there.url))
        node = await stack.enter_async_context(socketio_peer(folder))
        loop = await stack.enter_async_context(write_loop(folder, count))
        connection = await asyncpg.connect(there.url)
        stack.push_async_callback(connection.close)
        for target, kind, port in (
            (Ours.name, "realtime", ours.port),
            (SocketIO.name, "socketio", (await node.line())["port"]),
            (WriteLoop.name, "plain", (await loop.line())["port"]),
        ):
            await people.ask(
                do="connect", group=target, kind=kind, port=port, count=count, record=1, token=token(), channel=CHANNEL
            )
        await loop.line()
        yield [Ours(ours.pid, connection), SocketIO(node), WriteLoop(loop)]


async def fan_out(
    row: str, options: Options, folder: Path, *, together: int, bars: dict[str, float]
) -> AsyncIterator[Result]:
    """`together` messages per commit to 1 000 subscribers, 50 messages a second."""
    count = 100 if options.quick else SUBSCRIBERS
    ticks, pause = round(options.seconds(6) * 50 / together), together / 50
    costs: dict[str, list[float]] = {}
    intact = True
    async with crowd(folder) as people:
        await people.line()
        async with fan_out_targets(folder, options, people, count) as targets:
            for target in targets:  # warm: JIT, plans, caches
                await fan_out_once(target, people, ticks // 4 + 1, pause, together, count)
            for turn in range(options.repeat):
                for target in targets[turn % 3 :] + targets[: turn % 3]:
                    once = partial(fan_out_once, target, people, ticks, pause, together, count)
                    result = await undisturbed(options, once)
                    costs.setdefault(target.name, []).append(result["us_per_delivery"])
                    intact = intact and result["intact"]
                    yield {"row": row, "turn": turn, **result}
    medians = {name: statistics.median(values) for name, values in costs.items()}
    ratios = {name: round(medians[Ours.name] / medians[name], 3) for name in bars}
    yield {
        "row": row,
        "summary": "server CPU per delivery, in µs",
        **{name: spread(values) for name, values in costs.items()},
        "ratios": ratios,
        "bars": {f"x {name}": f"<= {bar}" for name, bar in bars.items()},
        "intact": intact,
        "met": intact and all(ratios[name] <= bar for name, bar in bars.items()),
    }


async def fan_out_once(
    target: Target, people: Child, ticks: int, pause: float, together: int, count: int
) -> dict[str, Any]:
    messages = ticks * together
    await asyncio.sleep(0.3)
    await people.ask(do="mark", group=target.name)
    before, crowd_before = cpu_seconds(target.pid), cpu_seconds(people.pid)
    begun = due = time.monotonic()
    for tick in range(ticks):
        await target.publish(1_000_001 + tick * together, together)
        due += pause
        await asyncio.sleep(max(0.0, due - time.monotonic()))
    report = await people.ask(do="wait", group=target.name, frames=messages * count, seconds=30)
    seconds = max(report["last"], due) - begun
    spent, crowd_spent = cpu_seconds(target.pid) - before, cpu_seconds(people.pid) - crowd_before
    read = report["read"][0]
    return {
        "target": target.name,
        "messages": messages,
        "subscribers": count,
        "us_per_delivery": round(spent / (messages * count) * 1e6, 3),
        "server_cpu_share": round(spent / seconds, 3),
        "crowd_cpu_share": round(crowd_spent / seconds, 3),
        "bytes_per_delivery": round(report["bytes"] / max(report["frames"], 1), 1),
        "intact": report["least"] == report["most"] == messages == read["distinct"]
        and not (read["doubled"] or read["disordered"] or report["closed"]),
    }


async def p1(options: Options, folder: Path) -> AsyncIterator[Result]:
    """Fan-out, one message per commit."""
    async for result in fan_out("P1", options, folder, together=1, bars={WriteLoop.name: 1.6, SocketIO.name: 0.5}):
        yield result


async def p2(options: Options, folder: Path) -> AsyncIterator[Result]:
    """Fan-out, ten messages per commit."""
    async for result in fan_out("P2", options, folder, together=10, bars={SocketIO.name: 0.15}):
        yield result
