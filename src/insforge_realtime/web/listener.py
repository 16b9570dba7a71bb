"""A new connection, until its first bytes show what it is: a WebSocket of ours goes to FastWebSocket, all else to uvicorn.

uvicorn would come to the same end: it reads the request, writes it down again, and has the WebSocket's protocol read that.
But it makes a crowd of objects for it that refer to each other, and they stay until the garbage collector has looked at
everything. So only what is whole and in order is taken here, and nothing is refused: whatever else comes is uvicorn's
business, within the bounds of bounded.py.

A silent socket is closed. uvicorn itself waits for ever for the first request of a connection, and anybody can open
sockets.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from insforge_realtime.protocol import handshake
from insforge_realtime.web.admission import log_eviction
from insforge_realtime.web.counted import CountedHttp
from insforge_realtime.web.timer_wheel import TimerWheel
from insforge_realtime.web.transports.fast_websocket import FastWebSocket

if TYPE_CHECKING:
    from collections.abc import Callable

    from uvicorn.config import Config as UvicornConfig
    from uvicorn.server import ServerState

    from insforge_realtime.web.bounds import Bounds
    from insforge_realtime.web.transports.fast_websocket import FastEndpoint


class NewConnection(asyncio.Protocol):
    """One connection before its first bytes.

    Args:
        endpoint: where WebSockets come in; None where every one is uvicorn's.
        wheel: the timer of all connections.
        bounds: what the connection may ask of us.
        config, server_state, app_state: uvicorn's.
    """

    __slots__ = ("_bounds", "_due", "_endpoint", "_parts", "_transport", "_wheel")

    def __init__(
        self,
        endpoint: FastEndpoint | None,
        wheel: TimerWheel,
        bounds: Bounds,
        config: UvicornConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
    ) -> None:
        self._endpoint = endpoint
        self._wheel = wheel
        self._bounds = bounds
        self._parts = config, server_state, app_state
        self._due = 0.0
        """When its first request must be here."""
        self._transport: asyncio.Transport | None = None
        """None when it is no longer ours to close."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._endpoint is not None and not self._endpoint.admission.accept(self, transport):
            self._transport.abort()
            return
        self._parts[1].connections.add(self)  # type: ignore[arg-type]
        self._due = asyncio.get_running_loop().time() + self._bounds.request_seconds
        self._wheel.schedule(self, self._due)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._endpoint is not None:
            self._endpoint.admission.sockets.release(self)
        self._parts[1].connections.discard(self)
        self._transport = None

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        transport, self._transport = self._transport, None
        self._parts[1].connections.discard(self)
        asking = self._asking(data)
        if asking is None or self._endpoint is None:
            self._to_uvicorn(transport, data)
            return
        websocket = FastWebSocket(self._endpoint, *self._parts)
        self._endpoint.admission.sockets.hand_over(self, websocket)
        websocket.connection_made(transport)
        transport.set_protocol(websocket)
        websocket.begin(*asking)

    def _asking(self, data: bytes) -> tuple[handshake.Request, bytes] | None:
        """Return the handshake that this is, and what follows it; None if it is not one of ours, or not within bounds."""
        if self._endpoint is None or len(data) > self._bounds.head_bytes:
            return None
        asking = handshake.read(data)
        if asking is None or asking[0].size > self._bounds.headers:
            return None
        if asking[0].path not in self._endpoint.limits.paths:
            return None
        return asking

    def shutdown(self) -> None:
        """Close, unless somebody else has the socket: uvicorn shuts down."""
        if self._transport is not None:
            self._transport.close()

    def evict(self) -> None:
        """Be gone: another socket gets the place."""
        if self._transport is not None:
            log_eviction("silent", self._transport)
            self._transport.abort()

    def _to_uvicorn(self, transport: asyncio.Transport, data: bytes) -> None:
        paths = self._endpoint.limits.paths if self._endpoint is not None else ()
        http = CountedHttp(self._bounds, self._wheel, paths, self._due, *self._parts)
        if self._endpoint is not None:
            http.admission = self._endpoint.admission
            http.admission.sockets.hand_over(self, http)
        http.connection_made(transport)
        transport.set_protocol(http)
        http.data_received(data)

    def tick(self, now: float) -> float | None:
        """Close: the deadline has come, and the client has sent nothing."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.close()
        return None


def http_class(
    wheel: TimerWheel, bounds: Bounds, endpoint: Callable[[], FastEndpoint | None] = lambda: None
) -> type[asyncio.Protocol]:
    """Return the class to give to uvicorn as `http=`.

    Args:
        wheel: the timer of all connections.
        bounds: what each of them may ask of us.
        endpoint: called at each connection; while there is none, every WebSocket is uvicorn's.
    """

    class RealtimeHttp(NewConnection):
        __slots__ = ()

        def __init__(
            self, config: UvicornConfig, server_state: ServerState, app_state: dict[str, Any], _loop: object = None
        ) -> None:
            super().__init__(endpoint(), wheel, bounds, config, server_state, app_state)

    return RealtimeHttp
