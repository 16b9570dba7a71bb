"""uvicorn's HTTP connection, with a deadline: a socket that says nothing, or a header a minute, is closed.

uvicorn itself waits for ever for the first request of a connection, and anybody can open sockets.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from insforge_realtime.web.wheel import Wheel

REQUEST_SECONDS = 20.0
"""How long a new connection has for its first request, headers and all."""


def http_class(wheel: Wheel, seconds: float = REQUEST_SECONDS) -> type[asyncio.Protocol]:
    """The class to give to uvicorn as `http=`.

    Args:
        wheel: the timer of all connections.
        seconds: the deadline.
    """

    class RealtimeHttp(HttpToolsProtocol):
        upgraded = False

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            wheel.schedule(self, asyncio.get_running_loop().time() + seconds)

        def handle_websocket_upgrade(self) -> None:
            self.upgraded = True
            super().handle_websocket_upgrade()

        def tick(self, now: float) -> float | None:
            """The deadline has come: has there been a request?"""
            if self.cycle is None and not self.upgraded and not self.transport.is_closing():
                self.transport.close()
            return None

    made: type[Any] = RealtimeHttp
    return made
