"""`insforge-realtime serve`: the application behind uvicorn, with the fast WebSocket, until SIGTERM.

What lives here: signals, the order of start and shutdown, and why a start would be refused. What the process needs of the
machine (sockets, descriptors, a certificate) is in process/.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
from collections.abc import AsyncIterator, Callable
from typing import Any

import structlog
import uvicorn

from insforge_realtime import tasks
from insforge_realtime._version import __version__
from insforge_realtime.app import Application
from insforge_realtime.auth import Authenticator
from insforge_realtime.config import Config
from insforge_realtime.errors import ConfigError, RealtimeError
from insforge_realtime.logs import tell_of_the_loop
from insforge_realtime.process import descriptors
from insforge_realtime.process.listening import listen, places, reachable
from insforge_realtime.process.tls import tls_context
from insforge_realtime.web.bounds import Bounds
from insforge_realtime.web.listener import http_class
from insforge_realtime.web.transports.fast_websocket import websocket_class

GRACEFUL_SECONDS = 4
"""How long a shutdown waits for sockets to close before it cuts them."""
KEEP_ALIVE_SECONDS = 75
"""How long an HTTP connection may be idle. Longer than the longest poll: closing one just when the client posts on it
costs that client its session."""

log = structlog.get_logger("insforge_realtime")


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: those end the process by the signal, and we want exit status 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


async def serve(config: Config, *, ready: Callable[[str], None] = lambda url: None) -> None:
    """Serve until SIGTERM or SIGINT, then close in good order.

    Args:
        config: complete.
        ready: called with the server's URL once it accepts connections.

    Raises:
        ConfigError: the address cannot be listened on, or the certificate cannot be used.
        RealtimeError: a part of the server ended by a bug of ours, and all of it after that, in good order.
    """
    tls = tls_context(config)
    limit = descriptors.raise_limit()
    application = Application(config, break_down=lambda: _stop(server, application))
    listeners = listen(config.host, config.port)
    where = places(listeners)  # while they are open
    server = _Server(
        uvicorn.Config(
            application.asgi,
            http=http_class(application.wheel, Bounds.of(config), lambda: application.fast),
            ws=websocket_class(lambda: application.fast),
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # ours, in web/proxies.py, are the fast WebSocket's, too
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=GRACEFUL_SECONDS,
            ssl_context_factory=None if tls is None else lambda *_: tls,
        )
    )
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(tell_of_the_loop)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop, server, application)
    async with application.running(), _watching():
        serving = asyncio.create_task(server.serve(sockets=listeners))
        while not server.started and not serving.done():
            await asyncio.sleep(0.005)
        if not server.should_exit:  # a signal may have come meanwhile
            log.info("serving", address=", ".join(where), version=__version__, tls=tls is not None, descriptors=limit)
            ready(f"{'http' if tls is None else 'https'}://{reachable(listeners)}{config.root_path}")
        await serving
    log.info("stopped")
    if application.broken is not None:
        raise RealtimeError(f"a part of the server has ended: {application.broken}; the log says why")


@contextlib.asynccontextmanager
async def _watching() -> AsyncIterator[None]:
    watch = tasks.start(descriptors.watch(), "watch over descriptors")
    try:
        yield
    finally:
        watch.cancel()


def refusals(config: Config) -> list[ConfigError]:
    """Return why `serve` would end before it has begun, whatever the database has.

    An address in use is not among the reasons: the server may be running. Changes nothing.
    """
    found = []
    for attempt in (tls_context, Authenticator, _try_to_listen):
        try:
            attempt(config)
        except ConfigError as error:
            found.append(error)
    return found


def _try_to_listen(config: Config) -> None:
    try:
        for listener in listen(config.host, config.port):
            listener.close()
    except ConfigError as error:
        if not (isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE):
            raise


def _stop(server: uvicorn.Server, application: Application) -> None:
    """Close sockets while webhooks in flight end. A second signal ends the wait."""
    log.info("shutting down")
    application.gateway.shut()
    application.webhooks.stop(at_once=server.should_exit)
    server.force_exit = server.should_exit
    server.should_exit = True
