"""The server's side of a new connection (web/listener.py, bounded.py, then uvicorn), on a transport that only remembers.

WebSockets at our paths are ours, and nobody has a key. Behind all else is an application that reads every body and answers
with two bytes: what the fuzzer is after is whatever reads the request.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.server import ServerState

from insforge_realtime.auth import Authenticator
from insforge_realtime.commands import Commands
from insforge_realtime.config import Config
from insforge_realtime.delivery import Congestion
from insforge_realtime.hub import Hub
from insforge_realtime.metrics import Metrics
from insforge_realtime.presence import Presence
from insforge_realtime.rooms import Rooms
from insforge_realtime.web.admission import Admission
from insforge_realtime.web.bounds import Bounds
from insforge_realtime.web.connection import Connection
from insforge_realtime.web.gateway import Gateway
from insforge_realtime.web.limits import Limits
from insforge_realtime.web.listener import http_class
from insforge_realtime.web.timer_wheel import TimerWheel
from insforge_realtime.web.transports.fast_websocket import FastEndpoint, websocket_class

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

BOUNDS = Bounds(head_bytes=512, headers=16, pipelined=4, request_seconds=20.0, body_seconds=50.0, answer_seconds=30.0)
"""Small, so that input soon reaches them."""
MOST_UNREAD = 1024 * 1024
"""Bytes of answers that may wait for a client that reads nothing."""
MINUTE = 60.0
TURNS = 8
"""How many turns of the event loop each piece gets."""


class Memory(asyncio.Transport):
    """A socket whose peer reads nothing, and which remembers what was written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.written = bytearray()
        self.closed = self.paused = False
        self._protocol: asyncio.BaseProtocol | None = None

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._protocol is not None
        return self._protocol

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def is_reading(self) -> bool:
        return not self.paused

    def get_write_buffer_size(self) -> int:
        return len(self.written)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


async def _answer(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close"})
        return
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        if not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


class _Errors(logging.Handler):
    """Remembers what uvicorn calls an error: as the application raises nothing, it is the server's own."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._errors = errors

    def emit(self, record: logging.LogRecord) -> None:
        self._errors.append(self.format(record))


async def _endpoint(wheel: TimerWheel) -> FastEndpoint:
    """As app.py makes it, without a database: nobody gets as far."""
    config, hub = Config(jwt_secret=secrets.token_hex()), Hub()  # type: ignore[arg-type]
    nobody: Any = None
    metrics, rooms = Metrics(), Rooms(hub, Presence())
    commands = Commands(config, Authenticator(config), nobody, nobody, rooms, lambda: None, metrics)
    gateway, limits = Gateway(0), Limits.of(config)
    admission = Admission(config, gateway, 0, asyncio.get_running_loop().time, metrics)
    connect = functools.partial(Connection, gateway, admission, commands, limits, wheel, metrics)
    return FastEndpoint(gateway, admission, connect, limits, Congestion(), wheel, hub)


class Listener:
    """What accepts the connections. Made once: an input takes a fraction of a millisecond."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda _, context: self._errors.append(str(context)))
        self._errors: list[str] = []
        logging.getLogger("uvicorn.error").addHandler(_Errors(self._errors))
        self._wheel = TimerWheel(self._loop)
        endpoint = self._loop.run_until_complete(_endpoint(self._wheel))
        self._config = uvicorn.Config(
            _answer, ws=websocket_class(lambda: endpoint), log_config=None, access_log=False, lifespan="off"
        )
        self._config.load()
        self._class: Any = http_class(self._wheel, BOUNDS, lambda: endpoint)
        self._later = self._loop.time()

    def feed(self, pieces: Iterable[bytes]) -> None:
        """One connection, from its beginning to its end.

        Raises:
            Whatever the server raised, in a callback or a task too.
        """
        self._loop.run_until_complete(self._connection(pieces))
        if self._errors:
            raise AssertionError(self._errors.pop())

    async def _connection(self, pieces: Iterable[bytes]) -> None:
        transport, state = Memory(), ServerState()
        protocol = self._class(self._config, state, {})
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        for piece in pieces:
            if transport.closed:
                break
            if not transport.paused:
                transport.get_protocol().data_received(piece)  # type: ignore[attr-defined]
            for _ in range(TURNS):
                await asyncio.sleep(0)
            assert len(transport.written) < MOST_UNREAD
        self._pass()
        transport.get_protocol().connection_lost(None)
        for _ in range(TURNS):
            await asyncio.sleep(0)
        for task in state.tasks.copy():
            task.cancel()
        await asyncio.gather(*state.tasks, return_exceptions=True)

    def _pass(self) -> None:
        """Let every deadline come."""
        self._later += MINUTE
        self._wheel.turn(self._later)


@functools.cache
def listener() -> Listener:
    """The one of this process."""
    return Listener()
