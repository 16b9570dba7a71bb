"""What the connections of this server may do, and what they are told of it: derived from the settings once, read by all.

What lives here: numbers. Admission is admission.py's; what HTTP may cost is bounds.py's.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass
from math import inf
from typing import Self

from insforge_realtime.config import Config
from insforge_realtime.protocol.session import Timing

PATH = "/socket.io/"
ENVELOPE_BYTES = 64 * 1024
"""How much larger than its payload a frame may be, so that a payload a little over the limit gets an answer."""
HIGH_WATER = 1024 * 1024
"""Of a buffer without a limit, in bytes."""
RESERVED_FILES = 256
"""How many of the files that this process may open are not for sockets of clients: the database's and the webhooks' are."""
UNLIMITED = 2**31 - 1
"""What the open packet says where nothing is limited: every client can read it as a number."""


@dataclass(frozen=True, slots=True)
class MaxBytes:
    """How large one message may be, in bytes; None for no limit.

    Args:
        admitted: of a client that was let in.
        stranger: of one that was not, or not yet: enough for a CONNECT.
    """

    admitted: int | None
    stranger: int | None

    def of(self, admitted: bool) -> int | None:
        """Return that of a client that was let in, or was not."""
        return self.admitted if admitted else self.stranger


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one connection.

    Args:
        paths: where this server is found, whether a proxy leaves its prefix on the path or takes it off.
        upgrades: what a client that polls may change to.
        timing: the intervals of a session.
        max_payload: what the open packet says, in bytes.
        message: of a message over a WebSocket, or of the attachments of one.
        body: of a body of long-polling.
        max_buffered_bytes: what may be unsent, in bytes; 0 for no limit.
        high_water: above how many unsent bytes a connection is full.
    """

    paths: frozenset[str]
    upgrades: tuple[str, ...]
    timing: Timing
    max_payload: int
    message: MaxBytes
    body: MaxBytes
    max_buffered_bytes: int
    high_water: int

    @classmethod
    def of(cls, config: Config) -> Self:
        """Return the limits as configured."""
        limit, stranger, buffered = config.max_payload_bytes, config.max_connect_bytes, config.max_buffered_bytes
        max_payload = limit or UNLIMITED
        max_message = limit + ENVELOPE_BYTES if limit else None
        return cls(
            paths=frozenset(prefix + path for prefix in ("", config.root_path) for path in (PATH, PATH.rstrip("/"))),
            upgrades=tuple(transport for transport in config.transports if transport == "websocket"),
            timing=_timing(config),
            max_payload=max_payload,
            message=MaxBytes(max_message, stranger or max_message),
            body=MaxBytes(max_payload, stranger or max_payload),
            max_buffered_bytes=buffered,
            high_water=max(buffered // 4, 1) if buffered else HIGH_WATER,
        )


def _timing(config: Config) -> Timing:
    refusals = config.max_refused_connects or inf
    return Timing(config.ping_interval, config.ping_timeout, config.connect_timeout, refusals)


def max_sockets(config: Config) -> int:
    """Return how many sockets there may be, as configured or as the limit of open files leaves; 0 for no limit."""
    if config.max_sockets is not None:
        return config.max_sockets
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 0 if files == resource.RLIM_INFINITY else max(files - RESERVED_FILES, files // 2)
