"""Feeds that run for the length of a block, and what they delivered."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from insforge_realtime.model import Message
from insforge_realtime.pg.database import Database
from insforge_realtime.pg.feed import Feed


class Listener:
    """A feed, what it delivered, and when it had lost track.

    Args:
        url: of the database.
        options: as for `Feed`.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self.messages: list[Message] = []
        self.payloads: list[dict[str, Any]] = []
        self.arrived: list[float] = []
        """When, by the monotonic clock."""
        self.gaps: list[tuple[float, str]] = []
        """When, by the same clock, and why it could not tell what was missed."""
        self.feed = Feed(Database(url), self._deliver, lost_track=self._lost_track, **options)

    async def _deliver(self, messages: list[Message]) -> None:
        self.arrived += [time.monotonic()] * len(messages)
        self.messages += messages
        self.payloads += [json.loads(message.event)[1] for message in messages]

    def _lost_track(self, reason: str) -> None:
        self.gaps.append((time.monotonic(), reason))

    @property
    def names(self) -> list[str]:
        """The events' names."""
        return [json.loads(message.event)[0] for message in self.messages]

    @property
    def ids(self) -> list[str]:
        return [payload["meta"]["messageId"] for payload in self.payloads]

    @property
    def numbers(self) -> list[Any]:
        """What the payloads have as `n`; None where they have none."""
        return [payload.get("n") for payload in self.payloads]

    def forget(self) -> None:
        """Begin anew with what is delivered from now on."""
        for each in (self.messages, self.payloads, self.arrived):
            each.clear()


@contextlib.asynccontextmanager
async def listening(*urls: str, fallback: float = 0.0, **options: Any) -> AsyncIterator[list[Listener]]:
    """Run a feed for each URL. Without a fallback, unless one is given, nothing arrives by chance."""
    listeners = [Listener(url, fallback=fallback, **options) for url in urls]
    tasks = [asyncio.create_task(listener.feed.run()) for listener in listeners]
    try:
        async with asyncio.timeout(20):
            for listener in listeners:
                await listener.feed.ready.wait()
        yield listeners
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
