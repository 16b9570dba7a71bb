"""Who is here: channel → members, counted by socket, so that a user with two tabs is one member.

What lives here: the counting. What may not: sockets, events, and when the others are told (rooms.py). Pure.
"""

from __future__ import annotations

from insforge_realtime.model import Member


class Presence:
    """The members of every channel on this node."""

    def __init__(self) -> None:
        self._channels: dict[str, dict[str, tuple[Member, int]]] = {}

    def join(self, channel: str, member: Member) -> bool:
        """Count one more socket of a member, and return whether it is the first: the others should hear of it."""
        members = self._channels.setdefault(channel, {})
        known, sockets = members.get(member.presence_id, (member, 0))
        members[member.presence_id] = (known, sockets + 1)
        return sockets == 0

    def restore(self, channel: str, member: Member) -> None:
        """Put back what the others know of a member: they have never been told that it left."""
        members = self._channels[channel]
        members[member.presence_id] = (member, members[member.presence_id][1])

    def leave(self, channel: str, presence_id: str) -> Member | None:
        """Count one socket less, and return the member if it was the last: the others should hear of it."""
        members = self._channels.get(channel, {})
        if presence_id not in members:
            return None
        member, sockets = members[presence_id]
        if sockets > 1:
            members[presence_id] = (member, sockets - 1)
            return None
        del members[presence_id]
        if not members:
            del self._channels[channel]
        return member

    def members(self, channel: str) -> list[Member]:
        """Return everybody in a channel, in the order of arrival."""
        return [member for member, _ in self._channels.get(channel, {}).values()]
