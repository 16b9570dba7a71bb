"""What a client's request must look like before anybody acts on it: types, names, sizes. Pure.

Whether it is *allowed* is PostgreSQL's business. What passes here is safe to hand on: text of a bounded length without
control characters, and a payload that is an object.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import orjson

from insforge_realtime.config import Config
from insforge_realtime.errors import InvalidRequest, PayloadTooLarge
from insforge_realtime.protocol import socketio

RESERVED = socketio.RESERVED_EVENTS | {"error"}
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
LONGEST_ECHO = 1024
"""Names longer than this are not repeated in an answer."""


@dataclass(frozen=True, slots=True)
class Command:
    """One event that a client emitted. Anything that is JSON can be in it."""

    name: str | float
    data: list[Any]
    ack_id: int | None

    @property
    def claimed_channel(self) -> str | None:
        """The channel that an error is about, if the command names one that can be named back."""
        channel = self.data[0].get("channel") if self.data and isinstance(self.data[0], dict) else None
        return channel if isinstance(channel, str) and len(channel) <= LONGEST_ECHO else None


class Form:
    """Reads commands, within the limits of a configuration. Every method raises InvalidRequest or PayloadTooLarge."""

    def __init__(self, config: Config) -> None:
        self._name_bytes = config.max_name_bytes
        self._payload_bytes = config.max_payload_bytes

    def channel(self, command: Command) -> str:
        """The channel that a command is about."""
        return self._name(_object(command).get("channel"), "channel")

    def publication(self, command: Command) -> tuple[str, str, str]:
        """The channel, event name and payload (as JSON text) of a publish."""
        return self.channel(command), self._event(command), self._payload(command)

    def _event(self, command: Command) -> str:
        name = self._name(_object(command).get("event"), "event")
        if is_reserved(name):
            raise InvalidRequest(f"The event name {name!r} is reserved")
        return name

    def _name(self, value: object, what: str) -> str:
        limit = self._name_bytes
        if not isinstance(value, str) or not value:
            raise InvalidRequest(f"The {what} must be a non-empty string")
        if limit and len(value.encode()) > limit:
            raise InvalidRequest(f"The {what} is longer than {limit} bytes")
        if CONTROL.search(value):
            raise InvalidRequest(f"The {what} contains a control character")
        return value

    def _payload(self, command: Command) -> str:
        payload = _object(command).get("payload")
        if not isinstance(payload, dict):
            raise InvalidRequest("The payload must be an object")
        try:
            text = orjson.dumps(payload, default=_refuse_binary)
        except orjson.JSONEncodeError as error:
            # Only what `default` raises has a cause.
            reason = "The payload contains binary data" if error.__cause__ else "The payload is nested too deeply"
            raise InvalidRequest(reason) from error
        if self._payload_bytes and len(text) > self._payload_bytes:
            raise PayloadTooLarge(f"The payload is larger than {self._payload_bytes} bytes")
        return text.decode()


def is_reserved(event: str) -> bool:
    """Whether an event name belongs to Socket.IO or to this server. `realtime.is_well_formed` in SQL agrees."""
    return event in RESERVED or event.startswith(("realtime:", "presence:"))


def _object(command: Command) -> dict[str, Any]:
    if not command.data or not isinstance(command.data[0], dict):
        raise InvalidRequest("The data must be an object")
    return command.data[0]


def _refuse_binary(value: object) -> None:
    raise TypeError("attachments are not JSON")
