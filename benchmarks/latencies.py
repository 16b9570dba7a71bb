"""From the commit to the receipt: messages that are due at fixed times, whatever became of those before.

A message whose turn has come is committed even if the ones before it are still on their way, and its delay counts from when
it was due, too: a server that stalls cannot hide what it kept waiting (coordinated omission).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncpg

    Connection = asyncpg.Connection[asyncpg.Record]

PATIENCE = 3.0
"""Seconds without any receipt, after which the rest is lost."""


def percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank percentile of sorted values: the least one that `share` of all do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def distribution(seconds: list[float]) -> dict[str, float]:
    """p50, p90, p99 and the greatest, in ms."""
    ordered = sorted(seconds)
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {name: round(percentile(ordered, share) * 1e3, 3) for name, share in shares.items()} if ordered else {}


class Ticks:
    """`number` messages at `rate` per second to so many listeners."""

    def __init__(self, number: int, rate: float, listeners: int) -> None:
        self._number, self._rate = number, rate
        self._committed: dict[int, float] = {}
        self._heard: list[list[tuple[int, float]]] = [[] for _ in range(listeners)]
        self._receipts = 0

    def listener(self, index: int) -> Callable[[bytes, float], None]:
        """What a socket does with an event `42["tick",{"n": number,…}]`."""
        heard = self._heard[index]

        def hear(packet: bytes, at: float) -> None:
            start = packet.find(b'"n":') + 4
            heard.append((int(packet[start : packet.find(b",", start)]), at))
            self._receipts += 1

        return hear

    async def run(self, connections: list[Connection], channel: str) -> dict[str, Any]:
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
        await self._all_heard()
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

    async def _all_heard(self) -> None:
        quiet_since, before = time.monotonic(), -1
        while self._receipts < self._number * len(self._heard) and time.monotonic() < quiet_since + PATIENCE:
            if self._receipts != before:
                quiet_since, before = time.monotonic(), self._receipts
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.1)  # for what should not come

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
