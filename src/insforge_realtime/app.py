"""The only place that builds things: every part is made here, given what it needs, started and stopped.

config → authenticator ─┐
         authorizer ────┤
         store ─────────┼→ commands → doorway (WebSocket class for uvicorn)
         hub, presence ─┘
         feed → delivery → hub, counters
           └─ wakes → webhooks
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import structlog
import uvicorn

from insforge_realtime import __version__
from insforge_realtime.auth import Authenticator
from insforge_realtime.commands import Commands
from insforge_realtime.config import Config
from insforge_realtime.delivery import Congestion, Delivery
from insforge_realtime.errors import ConfigError
from insforge_realtime.hub import Hub
from insforge_realtime.pg.deliveries import DeliveryQueue
from insforge_realtime.pg.feed import Feed
from insforge_realtime.pg.rls import Authorizer
from insforge_realtime.pg.stats import Counters
from insforge_realtime.pg.store import MessageStore
from insforge_realtime.presence import Presence
from insforge_realtime.web.api import make_api
from insforge_realtime.web.doorway import Doorway
from insforge_realtime.web.http import http_class
from insforge_realtime.web.websocket import websocket_class
from insforge_realtime.web.wheel import Wheel
from insforge_realtime.webhooks.guard import Guard
from insforge_realtime.webhooks.hosts import Hosts
from insforge_realtime.webhooks.request import Signer
from insforge_realtime.webhooks.sender import Sender
from insforge_realtime.webhooks.worker import Webhooks

FIRST_CONTACT_SECONDS = 3.0
GRACEFUL_SECONDS = 4
"""How long a shutdown waits for sockets to close before it cuts them."""

log = structlog.get_logger("insforge_realtime")


class Application:
    """One server, wired. Must be made inside a running event loop.

    Args:
        config: complete, as `Config.ready_to_serve` checks.
    """

    def __init__(self, config: Config) -> None:
        assert config.database_url is not None
        dsn, pooled = config.database_url, config.listen_url is not None
        links, limit = config.db_connections, config.policy_timeout
        self.config = config
        self.hub = Hub()
        self.presence = Presence()
        self.counters = Counters(dsn, pooled=pooled)
        self.authorizer = Authorizer(dsn, links=links, limit=limit, pooled=pooled)
        self.store = MessageStore(dsn, links=links, limit=limit, pooled=pooled)
        self.webhooks = _make_webhooks(config, dsn, pooled=pooled)
        congestion = Congestion()
        self.feed = Feed(
            config.listen_url or dsn,
            Delivery(self.hub, self.counters.add, congestion),
            fallback=config.feed_fallback_seconds,
            webhooks=self.webhooks.wake,
        )
        self.commands = Commands(
            config,
            Authenticator(config),
            self.authorizer,
            self.store,
            self.hub,
            self.presence,
            self.feed.nudge,
        )
        self.wheel = Wheel(asyncio.get_running_loop())
        self.doorway = Doorway(config, self.commands, congestion, self.wheel)
        self.api = make_api(__version__, self.health)

    def health(self) -> dict[str, Any]:
        """How the feed does."""
        feed = self.feed.health
        return {
            "state": feed.state,
            "reason": feed.reason,
            "lagMs": round(self.feed.lag_seconds * 1000),
            "connections": len(self.doorway.connections),
            "channels": self.hub.rooms,
            "slowConsumers": self.doorway.slow_consumers,
        }

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Everything that runs beside the doors."""
        tasks = [
            asyncio.create_task(work, name=name)
            for name, work in (
                ("feed", self.feed.run()),
                ("authorizer", self.authorizer.coalescer.run()),
                ("publisher", self.store.coalescer.run()),
                ("counters", self.counters.run()),
                ("webhooks", self.webhooks.run()),
                ("wheel", self.wheel.run()),
            )
        ]
        try:
            await self._first_contact()
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _first_contact(self) -> None:
        """Wait for the database, but not long: without it the server can at least say that it is away."""
        try:
            async with asyncio.timeout(FIRST_CONTACT_SECONDS):
                await self.feed.ready.wait()
                while not (self.authorizer.coalescer.live and self.store.coalescer.live):
                    await asyncio.sleep(0.005)
        except TimeoutError:
            log.warning("serving without the database; it is being tried again", reason=self.feed.health.reason)


def _make_webhooks(config: Config, dsn: str, *, pooled: bool) -> Webhooks:
    return Webhooks(
        DeliveryQueue(dsn, lease=config.webhook_timeout + config.webhook_lease_margin, pooled=pooled),
        Sender(Guard(config.webhook_allow_networks), Signer(config.webhook_keys), timeout=config.webhook_timeout),
        Hosts(
            per_host=config.webhook_concurrency_per_host,
            failures=config.webhook_breaker_failures,
            now=asyncio.get_running_loop().time,
        ),
        concurrency=config.webhook_concurrency,
        delays=config.webhook_retry_delays,
    )


class _Server(uvicorn.Server):
    """uvicorn, without its signal handlers: it would end the process by the signal, and we want exit status 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


async def serve(config: Config, *, ready: Callable[[str], None] = lambda url: None) -> None:
    """Serve until SIGTERM or SIGINT, then close in good order.

    Args:
        config: complete.
        ready: called with the server's URL once it accepts connections.

    Raises:
        ConfigError: the address cannot be listened on.
    """
    application = Application(config)
    listener = _listen(config)
    host, port = listener.getsockname()[:2]
    server = _Server(
        uvicorn.Config(
            application.api,
            http=http_class(application.wheel),
            ws=websocket_class(application.doorway),
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACEFUL_SECONDS,
        )
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop, server, application.webhooks)
    async with application.running():
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started and not serving.done():
            await asyncio.sleep(0.005)
        shown = f"[{host}]" if ":" in host else host
        log.info("serving", address=f"{shown}:{port}", version=__version__)
        ready(f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else shown}:{port}")  # noqa: S104
        await serving
        await application.webhooks.ended()
    log.info("stopped")


def _stop(server: uvicorn.Server, webhooks: Webhooks) -> None:
    """Sockets are closed while webhooks in flight end. A second signal does not wait any more."""
    log.info("shutting down")
    server.force_exit = server.should_exit
    webhooks.stop(at_once=server.should_exit)
    server.should_exit = True


def _listen(config: Config) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
        return socket.create_server((config.host, config.port), family=family, backlog=2048)
    except OSError as error:
        # Python appends what it attempted, which we have just said.
        reason = str(error.strerror or error).partition(" (while")[0]
        raise ConfigError(f"cannot listen on {config.host}:{config.port}: {reason}") from error
