"""The street down: each page of the feed goes to the rooms, and what was sent is counted.

What lives here: what goes out in one write, and how fast. What may not: who is in a room, and how bytes reach a socket.

Consecutive messages of a channel go out in one write. Only consecutive ones: a client of two channels gets their
messages in the order in which they were written. And not too many bytes at once: one write larger than what a socket may
leave unsent would close everybody in the room.

Within a burst and after it, sockets get a moment to drain. The rows wait in the database; a client that reads as fast as
its network allows is not cut off for a burst that we could have sent more slowly. It is a moment, not a guarantee: a socket
that does not drain in it is to be closed, not to be waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import groupby
from operator import attrgetter

import structlog

from insforge_realtime.metrics import Metrics
from insforge_realtime.model import Message
from insforge_realtime.rooms import Rooms

BURST = 500
"""How many messages make a page a burst, after which sockets are given a moment."""
BURST_CHARS = 256 * 1024
"""How much text makes a burst, too; no more goes out in one write, except that a larger message goes alone."""
EASE_SECONDS = 0.05

_channel = attrgetter("channel")

log = structlog.get_logger("insforge_realtime.delivery")


class Congestion:
    """Knows which sinks have lately been given more than their network took at once."""

    def __init__(self) -> None:
        self._fresh: set[object] = set()
        self._eased = asyncio.Event()

    def filled(self, sink: object) -> None:
        """Note that a sink's buffer has grown past its high-water mark."""
        self._fresh.add(sink)
        self._eased.clear()

    def drained(self, sink: object) -> None:
        """Note that it has shrunk again, or that the sink is gone."""
        self._fresh.discard(sink)
        if not self._fresh:
            self._eased.set()

    async def ease(self, seconds: float) -> None:
        """Give those that filled up since the last call a moment. A sink that does not use it gets no second one."""
        if not self._fresh:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._eased.wait()
        except TimeoutError:
            self._fresh.clear()


class Delivery:
    """Writes messages to rooms.

    Args:
        rooms: whom to write to.
        count: called with a message's seq and its audience.
        congestion: which sinks need a moment to drain.
        metrics: where deliveries are counted.
    """

    def __init__(
        self, rooms: Rooms, count: Callable[[int, int], None], congestion: Congestion, metrics: Metrics
    ) -> None:
        self._rooms = rooms
        self._count = count
        self._congestion = congestion
        self._metrics = metrics

    async def __call__(self, messages: list[Message]) -> None:
        """Deliver one page, in order."""
        unpaused = 0
        for channel, together, size in _runs(messages):
            if unpaused and unpaused + size > BURST_CHARS:
                await self._congestion.ease(EASE_SECONDS)
                unpaused = 0
            unpaused += size
            try:
                audience = await self._rooms.broadcast(channel, [message.event for message in together])
            except Exception:
                # One room's failure is not the others': the feed goes on.
                log.exception("delivery failed", channel=channel)
                self._metrics.delivery_failures += 1
                continue
            self._metrics.deliveries += audience * len(together)
            for message in together:
                self._count(message.seq, audience)
        if len(messages) >= BURST or unpaused >= BURST_CHARS // 2:
            await self._congestion.ease(EASE_SECONDS)


def _runs(messages: list[Message]) -> Iterator[tuple[str, list[Message], int]]:
    """Yield what goes out in one write: consecutive messages of a channel, up to `BURST_CHARS`; and how much text it is."""
    for channel, group in groupby(messages, _channel):
        run: list[Message] = []
        size = 0
        for message in group:
            if run and size + len(message.event) > BURST_CHARS:
                yield channel, run, size
                run, size = [], 0
            run.append(message)
            size += len(message.event)
        yield channel, run, size
