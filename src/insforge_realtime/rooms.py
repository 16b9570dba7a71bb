"""Who comes in, who goes out, and what everybody in a room is told: the hub and the presence as one thing.

What lives here: enter, leave, broadcast, and when presence events go out. What may not: who may come in (commands.py), and
what a message is (delivery.py).

What always holds, for everybody in a room, once what is queued has gone out:

    the members of the snapshot in one's ack, and the joins and leaves since, make the members that are there
    nobody is told of somebody twice, nor of themselves

Presence events wait a little for others to the same room, and the larger the room, the longer: a member who comes and goes
all the time costs it a few writes a second, and nothing at all while coming and going cancel each other.

Whatever writes to a room gives the event loop a turn after each slice of it.

**Several nodes.** An engine that shares rooms between nodes belongs behind this class: its callers need not know of it. It
has to keep both invariants over all nodes, which takes three things: sockets are counted by node, so that the first and the
last of a member's are those of the whole cluster; a snapshot has the members of all nodes, and is sealed against what the
other nodes have queued; and the sockets of a node that died leave. `broadcast` stays local: each node has a feed of its own,
and what it returns is this node's part of an audience that the database adds up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from uuid import uuid4

from insforge_realtime import tasks
from insforge_realtime.clock import iso_now
from insforge_realtime.hub import SLICE, Hub, Sink
from insforge_realtime.model import Member
from insforge_realtime.presence import Presence
from insforge_realtime.protocol import socketio

PAUSE = 0.01
"""How long a presence event waits for others to the same room, in seconds."""
PAUSE_FOR_EACH = 0.00025
"""How much longer, after the last one, for each sink that hears of it: 0.25 s in a room of a thousand."""
LONGEST_PAUSE = 1.0


class Rooms:
    """The rooms of this node, and who is in them.

    Args:
        hub: the sinks.
        presence: the members.
    """

    def __init__(self, hub: Hub, presence: Presence) -> None:
        self._hub = hub
        self._presence = presence
        self._flushing = False
        self._not_before: dict[str, float] = {}
        """When a room may be told of presence again, by the loop's clock."""

    def members(self, channel: str) -> list[Member]:
        """Return everybody in a room for a snapshot, in the order of arrival."""
        self._hub.seal(channel)
        return self._presence.members(channel)

    def enter(self, channel: str, sink: Sink, member: Member, acknowledge: Callable[[], None]) -> None:
        """Put a sink into a room: it gets its ack first, then the others are told, then it hears what they do.

        Args:
            acknowledge: sends the ack, with the members that are there now.
        """
        first = self._presence.join(channel, member)
        known = self._hub.cancel(channel, member.presence_id) if first else None
        if known is not None:
            self._presence.restore(channel, known)
        acknowledge()
        if first and known is None:
            self._announce("presence:join", channel, member)
        self._hub.join(channel, sink)

    def leave(self, channel: str, sink: Sink, presence_id: str) -> None:
        """Take a sink out of a room, and tell the others if it was the last of its member's."""
        self._hub.leave(channel, sink)
        member = self._presence.leave(channel, presence_id)
        if member is not None and self._hub.cancel(channel, presence_id) is None:
            self._announce("presence:leave", channel, member)

    async def broadcast(self, channel: str, events: Sequence[str]) -> int:
        """Write events to everybody in a room, after what waits for it, and return how many sinks that was.

        Args:
            events: as for `hub.Batch`.
        """
        audience = 0
        for written in self._hub.fan_out(channel, events):
            audience += written
            if written == SLICE:
                await asyncio.sleep(0)
        return audience

    def _announce(self, name: str, channel: str, member: Member) -> None:
        meta = {"channel": channel, "messageId": str(uuid4()), "senderType": "system", "timestamp": iso_now()}
        self._hub.queue(channel, socketio.event(name, {"member": member.json, "meta": meta}), member)
        if not self._flushing:
            self._flushing = True
            tasks.start(self._flush(), "presence")

    async def _flush(self) -> None:
        """Tell rooms what is queued for them until nothing is."""
        now = asyncio.get_running_loop().time
        try:
            while True:
                await asyncio.sleep(PAUSE)
                for channel in self._hub.waiting():
                    if self._not_before.get(channel, 0.0) <= now():
                        await self._tell(channel)
                self._not_before = {channel: at for channel, at in self._not_before.items() if at > now()}
                if not self._hub.queued:
                    return
        finally:
            self._flushing = False

    async def _tell(self, channel: str) -> None:
        pause = min(self._hub.audience(channel) * PAUSE_FOR_EACH, LONGEST_PAUSE)
        if pause > PAUSE:
            self._not_before[channel] = asyncio.get_running_loop().time() + pause
        await self.broadcast(channel, ())
