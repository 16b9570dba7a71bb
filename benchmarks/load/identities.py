"""Who the clients are: users, their tokens, their chats.

User n has a token of their own, and chat n is theirs; rows/chats.sql has the same ids.
"""

from __future__ import annotations

from benchmarks.server import SECRET
from insforge_realtime.auth import mint

WATCHER = "5eedffff-0000-4000-8000-000000000000"
"""A member of the first chats, beside their owners."""


def user(number: int) -> str:
    return f"5eed0000-0000-4000-8000-{number:012x}"


def chat(number: int) -> str:
    return f"chat:c4a70000-0000-4000-8000-{number:012x}"


def token_of(subject: str) -> str:
    """Return a user's token, good for longer than any benchmark."""
    return mint(SECRET, subject=subject, role="authenticated", ttl=24 * 3600)


def common_token() -> str:
    """Return what a whole crowd comes in with: one user, so that a thousand sockets are one entry of the presence."""
    return token_of(user(1))


def as_user(command: dict[str, object], number: int) -> dict[str, object]:
    """Return the crowd's `connect` for socket `number`: a user of its own, in a channel of `per_channel` users."""
    first, per_channel = command.get("first_user", 0), command.get("per_channel", 1)
    assert isinstance(first, int)
    assert isinstance(per_channel, int)
    number += first
    return {**command, "token": token_of(user(number)), "channel": f"{command.get('channel')}-{number // per_channel}"}
