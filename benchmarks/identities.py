"""Who the crowd are, where each of its sockets is somebody else.

User n has a token of their own, and chat n is theirs; sql/chats.sql has the same ids.
"""

from __future__ import annotations

from benchmarks.processes import SECRET
from insforge_realtime.auth import mint

WATCHER = "5eedffff-0000-4000-8000-000000000000"
"""A member of the first chats, beside their owners."""


def user(number: int) -> str:
    return f"5eed0000-0000-4000-8000-{number:012x}"


def chat(number: int) -> str:
    return f"chat:c4a70000-0000-4000-8000-{number:012x}"


def token_of(subject: str) -> str:
    return mint(SECRET, subject=subject, role="authenticated", ttl=12 * 3600)


def as_user(command: dict[str, object], number: int) -> dict[str, object]:
    """The crowd's `connect` for its socket `number`, who is a user of their own, in a channel of `per_channel` users."""
    first, per_channel = command.get("first_user", 0), command.get("per_channel", 1)
    assert isinstance(first, int)
    assert isinstance(per_channel, int)
    number += first
    return {**command, "token": token_of(user(number)), "channel": f"{command.get('channel')}-{number // per_channel}"}
