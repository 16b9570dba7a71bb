"""The measurements: each row yields one object per measurement, and its summary at the end. README.md defines them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg

from benchmarks import webhooks
from benchmarks.growth import GROWTH
from benchmarks.machine import cpu_seconds, spread
from benchmarks.measuring import Options, Result, undisturbed
from benchmarks.processes import (
    CHANNEL,
    Child,
    Database,
    crowd,
    database,
    server,
    socketio_peer,
    token,
    write_loop,
)

SUBSCRIBERS = 1000
TEXT = "x" * 100


# P1, P2: fan-out


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


# P10: the doorbell


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


ROWS: dict[str, Callable[[Options, Path], AsyncIterator[Result]]] = {
    "P1": p1,
    "P2": p2,
    "P3": p3,
    "P4": p4,
    "P10": p10,
    "W1": webhooks.w1,
    "W2": webhooks.w2,
    **GROWTH,
}
