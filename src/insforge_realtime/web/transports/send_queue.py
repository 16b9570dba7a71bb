"""Packets that wait for a transport that does not take them at once: long-polling between two polls, ASGI's `send`.

(The fast WebSocket has none: its packets wait in the buffer of the socket.) Full and over the limit mean here what they mean
there: a full sink asks for a moment to drain, and one that is over the limit is a slow consumer.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from insforge_realtime.web.gateway import Gateway


class SendQueue:
    """The unsent packets of one connection, in order.

    Args:
        gateway: has the limits, and hears when it is full.
    """

    __slots__ = ("_full", "_gateway", "_packets", "_size")

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._packets: deque[str] = deque()
        self._size = 0
        self._full = False

    def __bool__(self) -> bool:
        return bool(self._packets)

    def add(self, packets: Sequence[str], size: int) -> bool:
        """Append packets of this many characters in all. False when too much waits: no packet is by itself too much."""
        limit = self._gateway.config.max_buffered_bytes
        if limit and self._size + size - max(map(len, packets), default=0) > limit:
            return False
        self._packets.extend(packets)
        self._size += size
        if not self._full and self._size > self._gateway.high_water:
            self._full = True
            self._gateway.congestion.filled(self)
        return True

    def take(self, size: float, number: float = inf) -> list[str]:
        """Take out the first ones, up to this many characters and this many packets, but at least one if there is one."""
        taken: list[str] = []
        while self._packets and (not taken or (len(self._packets[0]) <= size and len(taken) < number)):
            packet = self._packets.popleft()
            size -= len(packet)
            self._size -= len(packet)
            taken.append(packet)
        if self._full and self._size <= self._gateway.high_water // 4:
            self._drained()
        return taken

    def clear(self) -> None:
        """Forget them all."""
        self._packets.clear()
        self._size = 0
        self._drained()

    def _drained(self) -> None:
        self._full = False
        self._gateway.congestion.drained(self)
