"""`python -m benchmarks.soak [--minutes 10] [--clients 2000]`: samples as JSON lines on stdout, and a summary at the end.

The server has its default settings, PostgreSQL those of production. Exit status 1 where a message was lost, doubled or
out of order; whether memory and latency stayed flat is printed, for the reader to judge.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import time
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from benchmarks.control import write
from benchmarks.database import Database, database
from benchmarks.load.launch import population
from benchmarks.machine import cpu_seconds, describe, many_files, pss_bytes
from benchmarks.processes import Child, temporary_folder
from benchmarks.server import Server, server
from benchmarks.soak.summary import flatness, latency
from benchmarks.soak.traffic import Traffic

ROOMS = [f"bench-{number}" for number in range(100)]
SAMPLE_SECONDS = 5.0
DEFAULT_PING_INTERVAL = 25
"""The other benchmarks have no heartbeats."""


class Soak:
    """One run."""

    def __init__(self, there: Database, ours: Server, people: Child, traffic: Traffic) -> None:
        self._pids = {"server": ours.pid, "postgres": there.pid, "crowd": people.pid}
        self._health = f"http://127.0.0.1:{ours.port}/api/health"
        self._people = people
        self._traffic = traffic
        self._cpu = {name: cpu_seconds(pid) for name, pid in self._pids.items()}
        self._sampled = self.begun = time.monotonic()
        self.samples: list[dict[str, Any]] = []

    async def run(self, seconds: float) -> dict[str, Any]:
        """Run the traffic for so long, then reckon, and return the summary."""
        stopping = asyncio.Event()
        await self._people.do("begin")
        async with asyncio.TaskGroup() as group:
            group.create_task(self._traffic.change(stopping))
            group.create_task(self._traffic.burst(stopping))
            while time.monotonic() - self.begun < seconds:
                await asyncio.sleep(min(SAMPLE_SECONDS, max(0.0, self.begun + seconds - time.monotonic())))
                write(await self._sample(seconds))
            stopping.set()
        ended = time.monotonic()
        stopped = await self._people.do("stop")
        return {**await self._reckon(stopped), **flatness(self.samples, self._traffic.latencies, self.begun, ended)}

    async def _sample(self, seconds: float) -> dict[str, Any]:
        crowd = await self._people.do("report")
        # In a thread: the kernel takes milliseconds for it, which would be taken for latency.
        figures = await asyncio.to_thread(self._figures)
        now = time.monotonic()
        found = latency(self._traffic.latencies, self._sampled, now)
        acks = sorted(crowd.pop("acks_ms"))
        sample = {
            "soak": "sample",
            "seconds": round(now - self.begun, 1),
            **figures,
            "latency_p50_ms": found["p50_ms"],
            "latency_p99_ms": found["p99_ms"],
            "latencies": found["number"],
            "ack_p50_ms": acks[len(acks) // 2] if acks else None,
            "sent": self._traffic.sent + crowd.pop("published"),
            **crowd,
        }
        self._sampled = now
        self.samples.append(sample)
        progress(sample, seconds)
        return sample

    def _figures(self) -> dict[str, Any]:
        passed = time.monotonic() - self._sampled
        cpu = {name: cpu_seconds(pid) for name, pid in self._pids.items()}
        spent = {f"{name}_cpu": round((cpu[name] - self._cpu[name]) / passed, 3) for name in cpu}
        self._cpu = cpu
        with urllib.request.urlopen(self._health, timeout=30) as answer:
            feed = json.load(answer)["feed"]
        return {
            "server_mb": _mb(pss_bytes(self._pids["server"])),
            "postgres_own_mb": _mb(pss_bytes(self._pids["postgres"], "Pss_Anon")),
            "postgres_shared_mb": _mb(pss_bytes(self._pids["postgres"], "Pss_Shmem")),
            **spent,
            "connections": feed["connections"],
            "slow_consumers": feed["slowConsumers"],
        }

    async def _reckon(self, stopped: dict[str, Any]) -> dict[str, Any]:
        """Check that each client that was there all along got everything."""
        totals = await self._traffic.totals()
        verdict = await self._people.do("finish", totals=totals, seconds=60)
        for ledger in self._traffic.ledgers:
            verdict["lost"] += ledger.lost + abs(ledger.missing(totals))
            verdict["doubled"] += ledger.doubled
            verdict["disordered"] += ledger.disordered
        closed = {kind: count for kind, count in stopped["closed"].items() if kind != "slow"}
        right = not (verdict["lost"] or verdict["doubled"] or verdict["disordered"])
        return {
            "soak": "summary",
            "messages": sum(totals.values()),
            "deliveries": stopped["received"],
            **{name: stopped[name] for name in ("moves", "reconnects", "pauses")},
            **verdict,
            "closed": closed,
            "failed": stopped["failed"],
            "intact": right and not closed and not stopped["failed"] and not self._traffic.closed,
        }


def _mb(size: int) -> float:
    return round(size / 1e6, 2)


def progress(sample: dict[str, Any], seconds: float) -> None:
    """Print one line for whoever waits."""
    print(
        f"{sample['seconds']:6.0f} s of {seconds:.0f}: server {sample['server_mb']:.1f} MB, {sample['server_cpu']:.2f} CPU; "
        f"p50 {sample['latency_p50_ms']:.1f} ms, p99 {sample['latency_p99_ms']:.1f} ms; "
        f"{sample['connections']} connections; "
        f"{sample['sent']} sent, {sample['received']} received",
        file=sys.stderr,
        flush=True,
    )


@contextlib.asynccontextmanager
async def soaking(folder: Path, clients: int, postgres: int) -> AsyncIterator[Soak]:
    """Connect everything, with nothing published yet."""
    async with (
        database(folder, postgres) as there,
        server(folder, there.url, ping_interval=DEFAULT_PING_INTERVAL) as ours,
        population(folder) as people,
    ):
        traffic = Traffic(there.url, ROOMS)
        await traffic.prepare()
        await traffic.watch(ours.port)
        await people.do("connect", port=ours.port, clients=clients, rooms=ROOMS)
        yield Soak(there, ours, people, traffic)
        traffic.abort()


async def run(minutes: float, clients: int, postgres: int) -> bool:
    """Run the soak, and return whether nothing was lost, doubled or out of order."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    write({"machine": describe(), "postgres": postgres, "minutes": minutes, "clients": clients})
    with temporary_folder() as folder:
        async with soaking(folder, clients, postgres) as soak:
            summary = await soak.run(minutes * 60)
    write(summary)
    return bool(summary["intact"])


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak", description="Mixed traffic for minutes, sampled."
    )
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=2000)
    parser.add_argument("--postgres", type=int, default=18, help="which major version (default: 18)")
    arguments = parser.parse_args()
    many_files()
    try:
        intact = asyncio.run(run(arguments.minutes, arguments.clients, arguments.postgres))
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise SystemExit(130) from None
    raise SystemExit(0 if intact else 1)


if __name__ == "__main__":
    main()
