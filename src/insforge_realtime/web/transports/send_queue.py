"""Packets that wait for a transport that does not take them at once: long-polling between two polls, ASGI's `send`.

What lives here: the queue, and what its two transports have in common. (The fast WebSocket has none: its packets wait
in the buffer of the socket.) Full and over the limit mean here what they mean there: a full sink gets a moment to
drain, and one that is over the limit is a slow consumer.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from math import inf
from typing import TYPE_CHECKING, ClassVar

from insforge_realtime.web.admission import log_eviction

if TYPE_CHECKING:
    from collections.abc import Sequence

    from insforge_realtime.delivery import Congestion
    from insforge_realtime.hub import Batch
    from insforge_realtime.web.limiters import ConnectionLimiter
    from insforge_realtime.web.limits import Limits, MaxBytes


class SendQueue:
    """The unsent packets of one connection, in order.

    Args:
        limits: how many characters may wait, and above how many it is full.
        congestion: told when it is full.
    """

    __slots__ = ("_congestion", "_full", "_limits", "_packets", "_size")

    def __init__(self, limits: Limits, congestion: Congestion) -> None:
        self._limits = limits
        self._congestion = congestion
        self._packets: deque[str] = deque()
        self._size = 0
        self._full = False

    def __bool__(self) -> bool:
        return bool(self._packets)

    def add(self, packets: Sequence[str], size: int) -> bool:
        """Append packets. Return False, and append none, when too much waits: no packet is by itself too much.

        Args:
            packets: in order.
            size: how many characters they are in all.
        """
        limit = self._limits.max_buffered_bytes
        if limit and self._size + size - max(map(len, packets), default=0) > limit:
            return False
        self._packets.extend(packets)
        self._size += size
        if not self._full and self._size > self._limits.high_water:
            self._full = True
            self._congestion.filled(self)
        return True

    def take(self, size: float, number: float = inf) -> list[str]:
        """Take out the first packets, and return them: at least one if there is one.

        Args:
            size: how many characters at most.
            number: how many packets at most.
        """
        taken: list[str] = []
        while self._packets and (not taken or (len(self._packets[0]) <= size and len(taken) < number)):
            packet = self._packets.popleft()
            size -= len(packet)
            self._size -= len(packet)
            taken.append(packet)
        if self._full and self._size <= self._limits.high_water // 4:
            self._drained()
        return taken

    def clear(self) -> None:
        """Forget them all."""
        self._packets.clear()
        self._size = 0
        self._drained()

    def _drained(self) -> None:
        self._full = False
        self._congestion.drained(self)


class QueuedTransport(ABC):
    """The half of a transport that queues what it is given, and reads when it may. The other half says how packets leave.

    Args:
        limits: of the queue.
        congestion: told when the queue is full.
        limiter: counts it.
        max_bytes: of one message, or of one body.
    """

    __slots__ = ("_limit", "_limiter", "_max_bytes", "_queue", "_readable")

    kind: ClassVar[str]
    """What it is, for the log."""
    stream = None

    def __init__(self, limits: Limits, congestion: Congestion, limiter: ConnectionLimiter, max_bytes: MaxBytes) -> None:
        self._queue = SendQueue(limits, congestion)
        self._limiter = limiter
        self._max_bytes = max_bytes
        self._limit = max_bytes.stranger
        self._readable = asyncio.Event()
        self._readable.set()

    def deliver(self, batch: Batch) -> None:
        """Queue events."""
        self._add(batch.packets, batch.size)

    def send(self, packet: str) -> None:
        """Queue one packet."""
        self._add((packet,), len(packet))

    def pause_reading(self) -> None:
        """Stop reading, behind the packet that is being taken in."""
        self._readable.clear()

    def resume_reading(self) -> None:
        """Go on reading."""
        self._readable.set()

    def admit(self, admitted: bool) -> None:
        """Take from the client what clients may send; or, as from a stranger, no more than a CONNECT."""
        self._limit = self._max_bytes.of(admitted)
        (self._limiter.authenticated if admitted else self._limiter.unauthenticated)(self)

    def evict(self) -> None:
        """Be gone: another connection gets the place."""
        log_eviction(self.kind)
        self.cut()

    @abstractmethod
    def cut(self) -> None:
        """End now, whatever is unsent."""

    @abstractmethod
    def _add(self, packets: Sequence[str], size: int) -> None:
        """Queue packets of so many characters in all, and wake up whatever sends them."""
