"""Who is in the room: channels → sinks. Pure and synchronous: it writes to sinks and knows nothing else.

What lives here: join, leave, and the fan-out, a plain loop without await over bytes that were made once. What may not: slow
sinks, which close themselves (nobody is waited for); members (presence.py); time (rooms.py).

Two kinds of event go to a room. Messages (`fan_out`) are written at once, all consecutive ones of a channel in one call.
Presence events (`queue`) wait, so that a thousand clients that join together cost each of them a few writes instead of a
thousand. A room's queue goes out before any message of that room, and a sink that joined while events were queued gets only
the later ones: the earlier ones were in the snapshot it was given. Of two queued events that undo each other neither goes
out (`cancel`), as long as nobody came in between: a newcomer would need the second.

A room is written to by one writer at a time. A writer that comes while another one pauses between two slices first writes
the rest of that: so no sink gets events in another order than the others.

A room is written by a *plan*: its sinks in slices, and for each slice the bare streams, so that the loop that it is all
about touches nothing else. A plan is made at the first event after a sink came, went, or changed its stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from math import inf
from typing import Protocol

from insforge_realtime.metrics import Metrics
from insforge_realtime.model import Member
from insforge_realtime.protocol import engineio, socketio
from insforge_realtime.protocol.frames import text_frame

SLICE = 1000
"""After how many sinks `fan_out` lets its caller give the event loop a turn."""
LOOK_BACK = 64
"""Among how many queued events `cancel` looks for one to take back."""


class Batch:
    """Consecutive events of one channel, encoded at most once for each transport.

    Args:
        events: texts like `["UPDATE_order",{…}]`.
    """

    def __init__(self, events: Sequence[str]) -> None:
        self.events = events

    @cached_property
    def packets(self) -> list[str]:
        """One Engine.IO packet for each event."""
        return [engineio.MESSAGE + socketio.event_packet(event) for event in self.events]

    @cached_property
    def size(self) -> int:
        """How long these are together, in characters."""
        return sum([len(packet) for packet in self.packets])

    @cached_property
    def websocket(self) -> bytes:
        """All of them as WebSocket frames, ready to be written."""
        return b"".join([text_frame(packet.encode()) for packet in self.packets])


class Stream(Protocol):
    """What takes the bytes of WebSocket frames as they are: a transport."""

    def write(self, data: bytes, /) -> object:
        """Write now, or as soon as can be. Must not raise."""


class Sink(Protocol):
    """What the hub needs of a connection."""

    @property
    def stream(self) -> Stream | None:
        """Where frames may be written to without asking; None if it takes batches only. See `Hub.streams_changed`."""

    def deliver(self, batch: Batch) -> None:
        """Write the batch now, or close yourself. Must not raise."""


class _Slice:
    """A part of a room."""

    __slots__ = ("others", "sinks", "streams")

    def __init__(self, sinks: list[Sink]) -> None:
        self.sinks = sinks
        self.streams: list[Stream] = []
        self.others: list[Sink] = []
        for sink in sinks:
            stream = sink.stream
            if stream is None:
                self.others.append(sink)
            else:
                self.streams.append(stream)


class _Room:
    __slots__ = ("about", "flushed", "newest", "plan", "queue", "sealed", "sinks", "streams", "writing")

    def __init__(self) -> None:
        self.sinks: dict[Sink, int] = {}
        """Sink → how many events the room had had when it joined, in the order of joining."""
        self.newest = 0
        """The greatest of these numbers."""
        self.queue: list[str] = []
        self.about: list[Member] = []
        """The member that each of them is about."""
        self.flushed = 0
        self.sealed = 0
        """What was queued before this must go out: somebody was given a snapshot with it."""
        self.writing: Iterator[int] | None = None
        """The rest of a fan-out that has not reached all sinks yet."""
        self.plan: list[_Slice] | None = None
        self.streams = 0
        """The last of the hub's changes of streams that the plan knows."""


class Hub:
    """All rooms of this node. A room exists while somebody is in it.

    Args:
        metrics: where the bytes that are written are counted.
    """

    def __init__(self, metrics: Metrics | None = None) -> None:
        self._metrics = metrics or Metrics()
        self._rooms: dict[str, _Room] = {}
        self._queued: set[str] = set()
        self._streams = 0

    def streams_changed(self) -> None:
        """Make plans anew: some sink's `stream` is another one than before."""
        self._streams += 1

    def join(self, channel: str, sink: Sink) -> None:
        """Put a sink into a room; it gets every event from now on, and none from before."""
        room = self._rooms.get(channel)
        if room is None:
            room = self._rooms[channel] = _Room()
        if sink not in room.sinks:
            room.sinks[sink] = room.newest = room.flushed + len(room.queue)
            room.plan = None

    def leave(self, channel: str, sink: Sink) -> None:
        """Take a sink out of a room; the last one out closes it."""
        room = self._rooms.get(channel)
        if room is None or room.sinks.pop(sink, None) is None:
            return
        room.plan = None
        if not room.sinks:
            del self._rooms[channel]
            self._queued.discard(channel)

    def queue(self, channel: str, event: str, about: Member) -> None:
        """Let an event wait for the next `fan_out` to its room."""
        room = self._rooms.get(channel)
        if room is not None:
            room.queue.append(event)
            room.about.append(about)
            self._queued.add(channel)

    def cancel(self, channel: str, presence_id: str) -> Member | None:
        """Take back the last queued event about a member, if nobody has come since: it and its opposite are nothing.

        Returns:
            the member that it was about; None if it goes out, as its opposite must, too.
        """
        room = self._rooms.get(channel)
        if room is None:
            return None
        newcomer = next(reversed(room.sinks.values())) - room.flushed  # it is told of nothing that was queued before
        first = max(newcomer, room.sealed - room.flushed, len(room.queue) - LOOK_BACK, 0)
        for at in range(len(room.queue) - 1, first - 1, -1):
            if room.about[at].presence_id == presence_id:
                del room.queue[at]
                if not room.queue:
                    self._queued.discard(channel)
                return room.about.pop(at)
        return None

    def seal(self, channel: str) -> None:
        """Take back nothing of what is queued: somebody in the room is given a snapshot."""
        room = self._rooms.get(channel)
        if room is not None:
            room.sealed = room.flushed + len(room.queue)

    @property
    def queued(self) -> bool:
        """Whether any event waits."""
        return bool(self._queued)

    def waiting(self) -> list[str]:
        """Return the rooms with queued events, except those that are being written to."""
        return [channel for channel in self._queued if self._rooms[channel].writing is None]

    def fan_out(self, channel: str, events: Sequence[str]) -> Iterator[int]:
        """Write events to everybody in a room.

        A generator, so that a room of many thousands does not hold up the event loop: it yields between two slices,
        and a sink that leaves meanwhile gets nothing more.

        Yields:
            how many sinks a slice was written to; their sum is the audience.
        """
        room = self._rooms.get(channel)
        if room is None:
            return
        if room.writing is not None:
            for _ in room.writing:
                yield 0
        begun = room.flushed
        if room.queue:
            events = [*room.queue, *events]
            room.queue, room.about = [], []
            self._queued.discard(channel)
        room.flushed += len(events)
        mine = room.writing = self._write(room, Batch(events), begun)
        try:
            yield from mine
        finally:
            if room.writing is mine:
                room.writing = None

    def _write(self, room: _Room, batch: Batch, begun: int) -> Iterator[int]:
        plan = self._plan(room)
        later: dict[int, Batch] = {}
        for part in plan:
            if room.plan is plan and room.streams == self._streams and room.newest <= begun:
                written = self._write_at_once(part.streams, batch) if part.streams else 0
                others = part.others
            else:
                written, others = 0, part.sinks
            if others:
                written += self._write_one_by_one(room, others, batch, begun, later)
            yield written

    def _write_at_once(self, streams: list[Stream], batch: Batch) -> int:
        """Write a batch to streams, the hottest loop of the server, and return how many they were."""
        frames = batch.websocket
        for stream in streams:
            stream.write(frames)
        self._metrics.delivered_bytes += len(streams) * len(frames)
        return len(streams)

    def _write_one_by_one(
        self, room: _Room, sinks: list[Sink], batch: Batch, begun: int, made: dict[int, Batch]
    ) -> int:
        """Deliver to each sink that is still there what came since it joined, and return how many they were."""
        written = 0
        for sink in sinks:
            missed = room.sinks.get(sink, inf) - begun
            if missed < max(len(batch.events), 1):  # else it has left, or come back meanwhile
                sink.deliver(batch if missed <= 0 else _rest(batch, int(missed), made))
                written += 1
        if written:
            self._metrics.delivered_bytes += written * batch.size
        return written

    def _plan(self, room: _Room) -> list[_Slice]:
        if room.plan is None or room.streams != self._streams:
            sinks = list(room.sinks)
            room.plan = [_Slice(sinks[at : at + SLICE]) for at in range(0, len(sinks), SLICE)]
            room.streams = self._streams
        return room.plan

    def audience(self, channel: str) -> int:
        """Return how many sinks are in a room."""
        room = self._rooms.get(channel)
        return len(room.sinks) if room else 0

    @property
    def rooms(self) -> int:
        """How many rooms there are."""
        return len(self._rooms)


def _rest(batch: Batch, start: int, made: dict[int, Batch]) -> Batch:
    if start not in made:
        made[start] = Batch(batch.events[start:])
    return made[start]
