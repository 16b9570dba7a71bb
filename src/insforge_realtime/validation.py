"""What a client's request must look like before anybody acts on it: types, names, sizes. Pure.

Whether it is *allowed* is PostgreSQL's business. What passes here is safe to hand on: text of a bounded length without
control characters, and a payload that is an object, of a bounded length even after PostgreSQL has written it out.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from insforge_realtime.config import MessageSettings
from insforge_realtime.errors import InvalidRequest, PayloadTooLarge
from insforge_realtime.protocol import socketio
from insforge_realtime.protocol.session import Emit

RESERVED = socketio.RESERVED_EVENTS | {"error"}
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
LONGEST_ECHO = 1024
"""Names longer than this are not repeated in an answer."""
EXPONENT = re.compile(r"[eE]\+?(-?)0*([0-9]+)")
LONGEST_INTEGER, LONGEST_FRACTION = 309, 16384
"""The digits of the largest double, and one more than PostgreSQL's numeric can have after its point."""
STEEPEST_GROWTH = LONGEST_FRACTION // len("1e-16383")
"""The most bytes that PostgreSQL makes of one."""


Command = Emit
"""One event that a client emitted. It can contain any JSON."""


def claimed_channel(command: Command) -> str | None:
    """Return the channel that an error is about, if the command names one that can be echoed."""
    channel = command.data[0].get("channel") if command.data and isinstance(command.data[0], dict) else None
    return channel if isinstance(channel, str) and len(channel) <= LONGEST_ECHO else None


class Validator:
    """Reads commands, within the limits of a configuration. Every method raises InvalidRequest or PayloadTooLarge."""

    def __init__(self, config: MessageSettings) -> None:
        self._name_bytes = config.max_name_bytes
        self._payload_bytes = config.max_payload_bytes

    def channel(self, command: Command) -> str:
        """Return the channel that a command is about."""
        return self._name(_object(command).get("channel"), "channel")

    def publication(self, command: Command) -> tuple[str, str, str]:
        """Return the channel, event name and payload (as JSON text) of a publish."""
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
        if command.payload is None or not isinstance(payload, dict):
            raise InvalidRequest("The payload must be an object")
        _refuse_what_is_not_plain(payload)
        if self._payload_bytes:
            self._refuse_too_large(command.payload)
        return command.payload

    def _refuse_too_large(self, text: str) -> None:
        limit = self._payload_bytes
        room = limit - (len(text) if text.isascii() else len(text.encode()))
        if room < 0:
            raise PayloadTooLarge(f"The payload is larger than {limit} bytes")
        if len(text) * STEEPEST_GROWTH > room and outgrows(text, room):
            raise PayloadTooLarge(
                f"The payload is larger than {limit} bytes once its exponents (1e300) are written out"
            )


def outgrows(text: str, room: int) -> bool:
    """Return whether PostgreSQL may add more than `room` bytes to a payload's numbers: it writes 1e300 with 301 digits."""
    for exponent in EXPONENT.finditer(_outside_strings(text)):
        room -= _zeros(*exponent.groups())
        if room < 0:
            return True
    return False


def _zeros(minus: str, digits: str) -> int:
    most = LONGEST_FRACTION if minus else LONGEST_INTEGER
    return most if len(digits) > 5 else min(int(digits), most)


def _outside_strings(text: str) -> str:
    """Return JSON without the contents of its strings: every second piece between quotes, if escaped quotes do not count."""
    if "\\" in text:
        text = text.replace("\\\\", "").replace('\\"', "")
    return "".join(text.split('"')[::2])


def _refuse_what_is_not_plain(payload: dict[str, Any]) -> None:
    """Refuse attachments, and more levels than every reader can be expected to parse: orjson refuses to write them."""
    try:
        orjson.dumps(payload, default=_refuse_binary)
    except orjson.JSONEncodeError as error:
        # Only what `default` raises has a cause.
        reason = "The payload contains binary data" if error.__cause__ else "The payload is nested too deeply"
        raise InvalidRequest(reason) from error


def is_reserved(event: str) -> bool:
    """Return whether an event name belongs to Socket.IO or to this server. `realtime.is_well_formed` in SQL agrees."""
    return event in RESERVED or event.startswith(("realtime:", "presence:"))


def _object(command: Command) -> dict[str, Any]:
    if not command.data or not isinstance(command.data[0], dict):
        raise InvalidRequest("The data must be an object")
    return command.data[0]


def _refuse_binary(value: object) -> None:
    raise TypeError("attachments are not JSON")
