"""What all connections of this server share, and whether one more may come in.

What lives here: the limits, the sums, and the refusals of a handshake. What one connection does is in websocket.py.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import orjson

from insforge_realtime.commands import Commands
from insforge_realtime.config import Config
from insforge_realtime.delivery import Congestion
from insforge_realtime.protocol import engineio
from insforge_realtime.protocol.session import Timing
from insforge_realtime.web.wheel import Wheel

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from websockets.http11 import Request

ENVELOPE_BYTES = 64 * 1024
"""How much larger than its payload a frame may be, so that a payload a little over the limit gets an answer."""


class Doorway:
    """One for each server.

    Args:
        config: the limits.
        commands: what to do with what clients send.
        congestion: told of sinks that fill up.
        wheel: the timer.
    """

    def __init__(self, config: Config, commands: Commands, congestion: Congestion, wheel: Wheel) -> None:
        self.config = config
        self.commands = commands
        self.congestion = congestion
        self.wheel = wheel
        self.timing = Timing(config.ping_interval, config.ping_timeout, config.connect_timeout)
        self.connections: set[object] = set()
        self.slow_consumers = 0
        """How many connections were cut off because they read too slowly."""
        self.closing = False
        self._tasks: set[asyncio.Task[None]] = set()
        limit = config.max_payload_bytes
        self.max_message_bytes = limit + ENVELOPE_BYTES if limit else None
        self.high_water = max(config.max_buffered_bytes // 4, 1) if config.max_buffered_bytes else 1024 * 1024

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something to its end, and keep a reference until then: the event loop has only a weak one."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def refusal(self, request: Request) -> tuple[HTTPStatus, str] | None:
        """Why a handshake is refused, with the codes of the Engine.IO protocol; or None."""
        asked = parse_qs(request.path.partition("?")[2])
        if asked.get("EIO") != [engineio.REVISION]:
            return HTTPStatus.BAD_REQUEST, _error(5, "Unsupported protocol version")
        if asked.get("transport") != ["websocket"]:
            return HTTPStatus.BAD_REQUEST, _error(0, "Transport unknown")
        if "sid" in asked:
            return HTTPStatus.BAD_REQUEST, _error(1, "Session ID unknown")
        if not self.config.allows_origin(request.headers.get("Origin")):
            return HTTPStatus.FORBIDDEN, _error(4, "Origin not allowed")
        if self.closing or self._is_full:
            return HTTPStatus.SERVICE_UNAVAILABLE, _error(4, "Too many connections, try again later")
        return None

    @property
    def _is_full(self) -> bool:
        limit = self.config.max_connections
        return bool(limit) and len(self.connections) > limit


def _error(code: int, message: str) -> str:
    return orjson.dumps({"code": code, "message": message}).decode()
