"""When things happen: at a fixed pace, few at a time, once something holds, once nothing more comes. Measures nothing."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


async def paced(pause: float, number: int | None = None) -> AsyncIterator[int]:
    """Yield 0, 1, 2 … at fixed times, `pause` seconds apart; what is late does not make the next one late.

    Args:
        pause: seconds from one to the next; the last one has its pause, too.
        number: how many; None for no end.
    """
    due = time.monotonic()
    for turn in itertools.count() if number is None else range(number):
        yield turn
        due += pause
        await asyncio.sleep(max(0.0, due - time.monotonic()))


async def until(holds: Callable[[], bool], seconds: float, look: float = 0.02) -> None:
    """Wait until something holds, at most so many seconds; look again every `look` seconds."""
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        await asyncio.sleep(look)


async def until_quiet(count: Callable[[], int], expected: int, patience: float) -> None:
    """Wait until the count is what is expected, or has not grown for `patience` seconds; then a moment longer, for what
    should not come."""
    quiet_since, before = time.monotonic(), -1
    while (now := count()) < expected and time.monotonic() < quiet_since + patience:
        if now != before:
            quiet_since, before = time.monotonic(), now
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.1)


async def few_at_a_time(jobs: Iterable[Awaitable[T]], limit: int = 50) -> list[T]:
    """Do all of the jobs, so many at the same time, and return their results in order."""
    gate = asyncio.Semaphore(limit)

    async def one(job: Awaitable[T]) -> T:
        async with gate:
            return await job

    return await asyncio.gather(*map(one, jobs))
