"""The only place that builds things: every part is made here, given what it needs, started and stopped.

config → authenticator ─┐
         authorizer ────┤
         store ─────────┼→ commands → connections → endpoints of the transports → ASGI application, and classes for uvicorn
         rooms ─────────┘
         feed → delivery → rooms, counters
           └─ wakes → webhooks
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import structlog

from insforge_realtime import tasks
from insforge_realtime._version import __version__
from insforge_realtime.auth import Authenticator
from insforge_realtime.commands import Commands
from insforge_realtime.config import Config
from insforge_realtime.delivery import Congestion, Delivery
from insforge_realtime.hub import Hub
from insforge_realtime.metrics import Metrics
from insforge_realtime.pg.authorizer import Authorizer
from insforge_realtime.pg.coalescer import Coalescer
from insforge_realtime.pg.counters import Counters
from insforge_realtime.pg.database import Database
from insforge_realtime.pg.deliveries import DeliveryQueue
from insforge_realtime.pg.feed import Feed
from insforge_realtime.pg.migrate import require_current
from insforge_realtime.pg.publishers import ClientPublisher, SystemPublisher
from insforge_realtime.presence import Presence
from insforge_realtime.rooms import Rooms
from insforge_realtime.web.admission import Admission
from insforge_realtime.web.application import make_api
from insforge_realtime.web.connection import Connection
from insforge_realtime.web.gateway import Gateway
from insforge_realtime.web.limits import Limits, max_sockets
from insforge_realtime.web.timer_wheel import TimerWheel
from insforge_realtime.web.transports.asgi_websocket import WebSocketEndpoint
from insforge_realtime.web.transports.fast_websocket import FastEndpoint
from insforge_realtime.web.transports.polling_endpoint import PollingEndpoint
from insforge_realtime.webhooks.guard import Guard
from insforge_realtime.webhooks.hosts import Hosts
from insforge_realtime.webhooks.request import Signer
from insforge_realtime.webhooks.sender import Sender
from insforge_realtime.webhooks.worker import Webhooks

if TYPE_CHECKING:
    pass

FIRST_CONTACT_SECONDS = 3.0

log = structlog.get_logger("insforge_realtime")


class Application:
    """One server, wired. Must be made inside a running event loop.

    Args:
        config: complete, as `Config.ready_to_serve` checks.
        publishes: whether messages come from Python code, too.
        break_down: called when a part has ended: the process should, too.
    """

    def __init__(
        self, config: Config, *, publishes: bool = False, break_down: Callable[[], None] = lambda: None
    ) -> None:
        self._database = _database(config)
        self.config = config
        self.metrics = Metrics()
        self.hub = Hub(self.metrics)
        self.rooms = Rooms(self.hub, Presence())
        self.counters = Counters(self._database)
        self.authorizer = Authorizer(self._database, self.metrics.subscribe_batches)
        self.store = ClientPublisher(self._database, self.metrics.publish_batches)
        self.webhooks = _make_webhooks(config, self._database)
        self.publisher = SystemPublisher(self._database, largest=config.max_buffered_bytes)
        self._links: list[Coalescer[Any, Any]] = [self.authorizer.coalescer, self.store.coalescer]
        if publishes:
            self._links.append(self.publisher.coalescer)
        congestion = Congestion()
        self.feed = self._make_feed(congestion)
        self.commands = Commands(
            config, Authenticator(config), self.authorizer, self.store, self.rooms, self.feed.nudge, self.metrics
        )
        self.wheel = TimerWheel(asyncio.get_running_loop())
        self.gateway = Gateway(config.max_connections)
        self._serve_http(congestion)
        self.broken: str | None = None
        """The part that has ended although nobody told it to. Nobody is let in any more."""
        self._break_down = break_down

    def _make_feed(self, congestion: Congestion) -> Feed:
        return Feed(
            self._database,
            Delivery(self.rooms, self.counters.add, congestion, self.metrics),
            fallback=self.config.feed_fallback_seconds,
            webhooks=self.webhooks.wake,
            lost_track=lambda _: self.gateway.recall(),
            trail=self.config.feed_trail_seconds,
            largest=self.config.max_buffered_bytes,
            metrics=self.metrics,
        )

    def _serve_http(self, congestion: Congestion) -> None:
        """Make what is behind the port: the ASGI application, and the endpoint of the fast WebSockets."""
        config, clock, limits = self.config, asyncio.get_running_loop().time, Limits.of(self.config)
        self.admission = Admission(config, self.gateway, max_sockets(config), clock, self.metrics)
        connect = partial(Connection, self.gateway, self.admission, self.commands, limits, self.wheel, self.metrics)
        shared = (self.gateway, self.admission, connect, limits, congestion, self.wheel)
        self.fast = FastEndpoint(*shared, self.hub)
        polling, websocket = PollingEndpoint(*shared), WebSocketEndpoint(*shared)
        self.asgi = make_api(config, __version__, self.health, polling=polling, websocket=websocket)

    def health(self) -> dict[str, Any]:
        """Return how the feed does. It is live only as long as it does not lag behind by too much."""
        feed, metrics = self.feed.health, self.metrics
        lag, limit = self.feed.lag_seconds, self.config.max_lag_seconds
        behind = feed.state == "live" and 0 < limit < lag
        return {
            "state": "down" if self.broken else "behind" if behind else feed.state,
            "reason": f"broken: {self.broken}" if self.broken else "too far behind" if behind else feed.reason,
            "lagMs": round(lag * 1000),
            "connections": len(self.gateway.connections),
            "channels": self.hub.rooms,
            "sockets": len(self.admission.sockets),
            "unauthenticated": self.admission.sockets.waiting + self.admission.sessions.waiting,
            "gaveWay": metrics.connections_evicted,
            "slowConsumers": metrics.slow_consumers,
            "undeliverable": metrics.messages_undeliverable,
            "oversized": metrics.messages_oversized,
            "gaps": metrics.feed_gaps,
            "lastGap": feed.last_gap,
        }

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Everything that runs beside the doors. At the end, clients are sent home, and webhooks in flight may end.

        Raises:
            NotMigratedError: the database is there, and `migrate` must run first. (Losing the schema later ends nothing.)
        """
        patience = asyncio.get_running_loop().time() + FIRST_CONTACT_SECONDS
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(patience):
                await require_current(self._database)
        parts = [
            self._part(name, work)
            for name, work in (
                ("feed", self.feed.run()),
                *((link.name, link.run()) for link in self._links),
                ("counters", self.counters.run()),
                ("webhooks", self.webhooks.run()),
                ("wheel", self.wheel.run()),
            )
        ]
        try:
            await self._first_contact(patience)
            yield self
        finally:
            self.gateway.shut()
            self.webhooks.stop()
            await self.webhooks.ended()
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)

    def _part(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin what runs as long as the server does. None of it ends by itself, except by a bug."""
        task = tasks.start(work, name)
        task.add_done_callback(self._part_ended)
        return task

    def _part_ended(self, task: asyncio.Task[None]) -> None:
        """Without any of its parts the server would be there and not do what it says: a new one has all of them."""
        if task.cancelled() or self.broken is not None:
            return
        self.broken = task.get_name()
        log.error("a part of the server has ended, so the server ends", part=self.broken)
        self.gateway.shut()
        self._break_down()

    async def _first_contact(self, patience: float) -> None:
        """Wait for the database, but not long: without it the server can at least say that it is away.

        Args:
            patience: until when, by the loop's clock.
        """
        try:
            async with asyncio.timeout_at(patience):
                await self.feed.ready.wait()
                while not all(link.live for link in self._links):
                    await asyncio.sleep(0.005)
        except TimeoutError:
            log.warning("serving without the database; retrying", reason=self.feed.health.reason)


def _database(config: Config) -> Database:
    assert config.database_url is not None
    return Database(
        config.database_url,
        listen_url=config.listen_url,
        connections=config.db_connections,
        policy_timeout=config.policy_timeout,
        max_pending_per_user=config.max_pending_per_user,
    )


def _make_webhooks(config: Config, database: Database) -> Webhooks:
    guard = Guard(config.webhook_allow_networks)
    lease = config.webhook_timeout + config.webhook_lease_margin
    return Webhooks(
        DeliveryQueue(database, lease=lease, networks=guard.fingerprint),
        Sender(guard, Signer(config.webhook_keys), timeout=config.webhook_timeout),
        Hosts(
            per_host=config.webhook_concurrency_per_host,
            failures=config.webhook_breaker_failures,
            now=asyncio.get_running_loop().time,
        ),
        concurrency=config.webhook_concurrency,
        delays=config.webhook_retry_delays,
    )
