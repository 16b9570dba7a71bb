"""Who comes in, who goes out, and who is told of it: the hub and the presence, kept together.

What always holds, for everybody in a room, once what is queued has gone out:

    the members of the snapshot in one's ack, and the joins and leaves since, make the members that are there
    nobody is told of somebody twice, nor of themselves

Presence events wait a little for others to the same room, and the more people hear of them the longer: someone who comes
and goes all the time costs a room a few writes a second, and nothing at all while coming and going cancel each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
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
"""How much longer, after the last one, for each who hears of it: 0.25 s in a room of a thousand."""
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
        """Everybody who is in a room, in the order of arrival, for a snapshot."""
        self._hub.seal(channel)
        return self._presence.members(channel)

    def enter(self, channel: str, sink: Sink, member: Member, acknowledge: Callable[[], None]) -> None:
        """Come in: the ack first, then the others are told, then one hears what they do.

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
        """Go out; with the last of a member's sockets the others are told."""
        self._hub.leave(channel, sink)
        member = self._presence.leave(channel, presence_id)
        if member is not None and self._hub.cancel(channel, presence_id) is None:
            self._announce("presence:leave", channel, member)

    def _announce(self, name: str, channel: str, member: Member) -> None:
        meta = {"channel": channel, "messageId": str(uuid4()), "senderType": "system", "timestamp": iso_now()}
        self._hub.queue(channel, socketio.event(name, {"member": member.json, "meta": meta}), member)
        if not self._flushing:
            self._flushing = True
            tasks.start(self._flush(), "presence")

    async def _flush(self) -> None:
        """Until nothing is queued any more."""
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
        for written in self._hub.fan_out(channel, ()):
            if written == SLICE:
                await asyncio.sleep(0)
