"""Messages at fixed times, and how long each takes to every listener. What commits and what hears is one process, with one
clock.

A message is committed when its time has come, whatever became of those before it, on whichever connection is idle. So a
server that stalls cannot hide what it kept waiting.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from benchmarks.database import Connection
from benchmarks.figures import distribution
from benchmarks.timing import until_quiet

PATIENCE = 3.0
"""Seconds without any receipt, after which the rest is lost."""


class Ticks:
    """`number` messages at `rate` per second to so many listeners."""

    def __init__(self, number: int, rate: float, listeners: int) -> None:
        self._number, self._rate = number, rate
        self._committed: dict[int, float] = {}
        self._heard: list[list[tuple[int, float]]] = [[] for _ in range(listeners)]
        self._receipts = 0

    def listener(self, index: int) -> Callable[[bytes, float], None]:
        """Return what a socket calls with an event `["tick",{"n": number,…}]` and the time."""
        heard = self._heard[index]

        def hear(event: bytes, at: float) -> None:
            start = event.find(b'"n":') + 4
            heard.append((int(event[start : event.find(b",", start)]), at))
            self._receipts += 1

        return hear

    async def run(self, connections: list[Connection], channel: str) -> dict[str, Any]:
        """Publish all of them, and return what became of them."""
        # Not asyncpg's pool: it resets a connection after each use, at the price of a second statement.
        idle: asyncio.Queue[Connection] = asyncio.Queue()
        for connection in connections:
            idle.put_nowait(connection)
        begun = time.monotonic() + 0.05
        due = [begun + number / self._rate for number in range(self._number)]
        late: list[float] = []
        commits = []
        for number, at in enumerate(due):
            if (left := at - time.monotonic()) > 0:
                await asyncio.sleep(left)
            late.append(time.monotonic() - at)
            commits.append(asyncio.create_task(self._commit(idle, channel, number)))
        await asyncio.gather(*commits)
        await until_quiet(lambda: self._receipts, self._number * len(self._heard), PATIENCE)
        return self._report(due, late)

    async def _commit(self, idle: asyncio.Queue[Connection], channel: str, number: int) -> None:
        connection = await idle.get()
        await connection.execute(
            "SELECT realtime.publish($1, 'tick', jsonb_build_object('n', $2::int, 'w', 0, 'text', repeat('x', 100)))",
            channel,
            number,
        )
        self._committed[number] = time.monotonic()
        idle.put_nowait(connection)

    def _report(self, due: list[float], late: list[float]) -> dict[str, Any]:
        receipts = [receipt for heard in self._heard for receipt in heard]
        numbers = set(range(self._number))
        last = max(self._committed.values())
        return {
            "messages": self._number,
            "receipts": len(receipts),
            "lost": sum(len(numbers - {number for number, _ in heard}) for heard in self._heard),
            "committed_per_second": round(self._number / (last - due[0])),
            "from_commit_ms": distribution([at - self._committed[number] for number, at in receipts]),
            "from_due_ms": distribution([at - due[number] for number, at in receipts]),
            "commit_ms": distribution([self._committed[number] - due[number] for number in sorted(numbers)]),
            "late_ms": distribution(late),
            "intact": len(receipts) == self._number * len(self._heard)
            and all({number for number, _ in heard} == numbers for heard in self._heard),
        }
