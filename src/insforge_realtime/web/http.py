"""A new connection, until its first bytes tell what it is: a WebSocket of ours goes to its door, all else to uvicorn.

uvicorn would come to the same end: it reads the request, writes it down again, and has the WebSocket's protocol read that.
But it makes a crowd of objects for it that refer to each other, and they stay until the garbage collector has looked at
everything. So only what is whole and in order is taken here, and nothing is refused: whatever else comes is uvicorn's
business.

A socket that says nothing, or a header a minute, is closed. uvicorn itself waits for ever for the first request of a
connection, and anybody can open sockets.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from insforge_realtime.protocol import handshake
from insforge_realtime.web.counted import CountedHttp
from insforge_realtime.web.websocket import Door
from insforge_realtime.web.wheel import Wheel

if TYPE_CHECKING:
    from collections.abc import Callable

    from uvicorn.config import Config as UvicornConfig
    from uvicorn.server import ServerState

    from insforge_realtime.web.doorway import Doorway

REQUEST_SECONDS = 20.0
"""How long a new connection has for its first request, headers and all."""


class Newcomer(asyncio.Protocol):
    """One connection before its first bytes, and its deadline for a little longer."""

    __slots__ = ("_doorway", "_http", "_parts", "_transport")

    def __init__(
        self, doorway: Doorway | None, config: UvicornConfig, server_state: ServerState, app_state: dict[str, Any]
    ) -> None:
        self._doorway = doorway
        self._parts = config, server_state, app_state
        self._transport: asyncio.Transport | None = None
        """None when it is no longer ours to close."""
        self._http: CountedHttp | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._doorway is not None and not self._doorway.let_in(self, transport):
            self._transport.abort()
            return
        self._parts[1].connections.add(self)  # type: ignore[arg-type]

    def connection_lost(self, exc: Exception | None) -> None:
        if self._doorway is not None:
            self._doorway.sockets.leave(self)
        self._parts[1].connections.discard(self)
        self._transport = None

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._parts[1].connections.discard(self)
        asking = None if self._doorway is None else handshake.read(data)
        if asking is None or self._doorway is None or asking[0].path not in self._doorway.paths:
            self._to_uvicorn(self._transport, data)
            return
        door = Door(self._doorway, *self._parts)
        self._doorway.sockets.hand_over(self, door)
        door.connection_made(self._transport)
        self._transport.set_protocol(door)
        self._transport = None
        door.begin(*asking)

    def shutdown(self) -> None:
        """uvicorn shuts down."""
        if self._transport is not None:
            self._transport.close()

    def give_way(self) -> None:
        """Another socket gets the place."""
        if self._transport is not None and self._doorway is not None:
            self._doorway.tell_of_a_place("silent", self._transport)
            self._transport.abort()

    def _to_uvicorn(self, transport: asyncio.Transport, data: bytes) -> None:
        config, server_state, app_state = self._parts
        self._http = CountedHttp(config, server_state, app_state)
        if self._doorway is not None:
            self._http.doorway = self._doorway
            self._doorway.sockets.hand_over(self, self._http)
        self._http.connection_made(transport)
        transport.set_protocol(self._http)
        self._http.data_received(data)

    def tick(self, now: float) -> float | None:
        """The deadline has come: has there been a request?"""
        if self._transport is not None and not self._transport.is_closing() and self._waits():
            self._transport.close()
        return None

    def _waits(self) -> bool:
        """Whether it is still unknown what the client wants. One whose request was an upgrade has another protocol now."""
        if self._http is None or self._transport is None:
            return self._transport is not None
        return self._http.cycle is None and self._transport.get_protocol() is self._http


def http_class(
    wheel: Wheel, doorway: Callable[[], Doorway | None] = lambda: None, *, seconds: float = REQUEST_SECONDS
) -> type[asyncio.Protocol]:
    """The class to give to uvicorn as `http=`.

    Args:
        wheel: the timer of all connections.
        doorway: asked for at each connection; while there is none, every WebSocket is uvicorn's.
        seconds: the deadline.
    """

    class RealtimeHttp(Newcomer):
        __slots__ = ()

        def __init__(
            self, config: UvicornConfig, server_state: ServerState, app_state: dict[str, Any], _loop: object = None
        ) -> None:
            super().__init__(doorway(), config, server_state, app_state)

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            wheel.schedule(self, asyncio.get_running_loop().time() + seconds)

    return RealtimeHttp
