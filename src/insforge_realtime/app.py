"""The only place that builds things: every part is made here, given what it needs, started and stopped.

config → authenticator ─┐
         authorizer ────┤
         store ─────────┼→ commands → doorway → ASGI application, and a WebSocket class for uvicorn
         hub, presence ─┘
         feed → delivery → hub, counters
           └─ wakes → webhooks

    Application   the parts, for one run inside an event loop
    Realtime      the same for people who have a Python server of their own: made before the loop runs, started by a lifespan
    create_app    a complete ASGI application, for any ASGI server
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self

import structlog
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount

from insforge_realtime import __version__, logs, tasks, typos
from insforge_realtime import config as configuration
from insforge_realtime.auth import Authenticator
from insforge_realtime.commands import Commands
from insforge_realtime.config import Config
from insforge_realtime.delivery import Congestion, Delivery
from insforge_realtime.errors import ConfigError, Unavailable
from insforge_realtime.hub import Hub
from insforge_realtime.pg.coalescer import Coalescer
from insforge_realtime.pg.deliveries import DeliveryQueue
from insforge_realtime.pg.feed import Feed
from insforge_realtime.pg.migrate import require_current
from insforge_realtime.pg.rls import Authorizer
from insforge_realtime.pg.stats import Counters
from insforge_realtime.pg.store import MessageStore, SystemPublisher
from insforge_realtime.presence import Presence
from insforge_realtime.rooms import Rooms
from insforge_realtime.web.answers import NoSniff
from insforge_realtime.web.api import make_api
from insforge_realtime.web.doorway import Doorway
from insforge_realtime.web.websocket import websocket_class
from insforge_realtime.web.wheel import Wheel
from insforge_realtime.webhooks.guard import Guard
from insforge_realtime.webhooks.hosts import Hosts
from insforge_realtime.webhooks.request import Signer
from insforge_realtime.webhooks.sender import Sender
from insforge_realtime.webhooks.worker import Webhooks

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

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
        assert config.database_url is not None
        dsn, pooled = config.database_url, config.listen_url is not None
        links, limit, most = config.db_connections, config.policy_timeout, config.max_pending_per_user
        self.config = config
        self.hub = Hub()
        self.presence = Presence()
        self.counters = Counters(dsn, pooled=pooled)
        self.authorizer = Authorizer(dsn, links=links, limit=limit, pooled=pooled, most=most)
        self.store = MessageStore(dsn, links=links, limit=limit, pooled=pooled, most=most)
        self.webhooks = _make_webhooks(config, dsn, pooled=pooled)
        self.publisher = SystemPublisher(dsn, pooled=pooled, largest=config.max_buffered_bytes)
        self._links: list[Coalescer[Any, Any]] = [self.authorizer.coalescer, self.store.coalescer]
        if publishes:
            self._links.append(self.publisher.coalescer)
        congestion = Congestion()
        self.feed = Feed(
            config.listen_url or dsn,
            Delivery(self.hub, self.counters.add, congestion),
            fallback=config.feed_fallback_seconds,
            webhooks=self.webhooks.wake,
            lost_track=lambda _: self.doorway.recall(),
            trail=config.feed_trail_seconds,
            largest=config.max_buffered_bytes,
        )
        self.commands = Commands(
            config,
            Authenticator(config),
            self.authorizer,
            self.store,
            Rooms(self.hub, self.presence),
            self.feed.nudge,
        )
        self.wheel = Wheel(asyncio.get_running_loop())
        self.doorway = Doorway(config, self.commands, self.hub, congestion, self.wheel)
        self.asgi = make_api(__version__, self.health, self.doorway)
        self.broken: str | None = None
        """The part that has ended although nobody told it to. Nobody is let in any more."""
        self._break_down = break_down

    def health(self) -> dict[str, Any]:
        """How the feed does. It is live only as long as it does not lag behind by too much."""
        feed, lag, limit = self.feed.health, self.feed.lag_seconds, self.config.max_lag_seconds
        behind = feed.state == "live" and 0 < limit < lag
        return {
            "state": "down" if self.broken else "behind" if behind else feed.state,
            "reason": f"broken: {self.broken}" if self.broken else "too far behind" if behind else feed.reason,
            "lagMs": round(lag * 1000),
            "connections": len(self.doorway.connections),
            "channels": self.hub.rooms,
            "sockets": len(self.doorway.sockets),
            "unauthenticated": self.doorway.sockets.waiting + self.doorway.sessions.waiting,
            "gaveWay": self.doorway.sockets.gave_way + self.doorway.sessions.gave_way,
            "slowConsumers": self.doorway.slow_consumers,
            "undeliverable": feed.undeliverable,
            "oversized": feed.oversized,
            "gaps": feed.gaps,
            "lastGap": feed.last_gap,
        }

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Everything that runs beside the doors. At the end, clients are sent home, and webhooks in flight may end.

        Raises:
            NotMigratedError: the database is there, and `migrate` must run first. (Losing the schema later ends nothing.)
        """
        patience = asyncio.get_running_loop().time() + FIRST_CONTACT_SECONDS
        assert self.config.database_url is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(patience):
                await require_current(self.config.database_url)
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
            self.doorway.shut()
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
        self.doorway.shut()
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
            log.warning("serving without the database; it is being tried again", reason=self.feed.health.reason)


def _make_webhooks(config: Config, dsn: str, *, pooled: bool) -> Webhooks:
    guard = Guard(config.webhook_allow_networks)
    lease = config.webhook_timeout + config.webhook_lease_margin
    return Webhooks(
        DeliveryQueue(dsn, lease=lease, pooled=pooled, networks=guard.fingerprint, direct=config.listen_url),
        Sender(guard, Signer(config.webhook_keys), timeout=config.webhook_timeout),
        Hosts(
            per_host=config.webhook_concurrency_per_host,
            failures=config.webhook_breaker_failures,
            now=asyncio.get_running_loop().time,
        ),
        concurrency=config.webhook_concurrency,
        delays=config.webhook_retry_delays,
    )


class Realtime:
    """This server inside a Python server of yours: clients at one path of it, and messages from your own code.

        realtime = Realtime(database_url="postgresql://…", jwt_secret="…")
        app = FastAPI(lifespan=realtime.lifespan)
        app.mount("/", realtime.asgi)                       # after your own routes

    Args:
        database_url, jwt_secret: the settings that everybody needs; left out, they are read from the environment.
        config: complete, in place of all settings.
        settings: any others, by the names of the fields of `Config`. They win over the environment.

    Raises:
        ConfigError: a setting is missing or wrong, or there is none of this name.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        database_url: str | None = None,
        jwt_secret: str | None = None,
        **settings: object,
    ) -> None:
        settings |= {"database_url": database_url, "jwt_secret": jwt_secret}
        if config is not None and any(value is not None for value in settings.values()):
            raise ConfigError("Realtime takes a complete Config or settings, not both")
        self._reads_the_environment = config is None
        self._config = (config or configuration.load(**settings)).ready_to_serve()
        self._running: Application | None = None
        self.websocket_class = websocket_class(lambda: self._running.doorway if self._running else None)
        """The fast door: `uvicorn.run(app, ws=realtime.websocket_class)`. Other WebSockets of the application still work."""

    @contextlib.asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """Runs as long as the application does: give it to FastAPI or Starlette, or enter it in a lifespan of your own."""
        if self._running is not None:
            raise RuntimeError("this Realtime is running already")
        logs.use_logging_of_the_application(self._config)
        if self._reads_the_environment:
            typos.warn()
        self._running = Application(self._config, publishes=True)
        try:
            async with self._running.running():
                yield
        finally:
            self._running = None

    async def asgi(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application to mount: `/socket.io/` and `/api/health`."""
        if self._running is None:
            await _not_running(scope, receive, send)
        else:
            await self._running.asgi(scope, receive, send)

    async def publish(self, channel: str, event: str, payload: Mapping[str, Any]) -> str | None:
        """Publish a message as the system, as a trigger would, and return its id once it is committed.

        Args:
            channel: its name; there must be an enabled channel for it.
            event: its name.
            payload: whatever JSON can say, and what it says of dates, UUIDs, enumerations and dataclasses. NaN and
                infinities become null, as in JavaScript.

        Returns:
            the id; None where no enabled channel matches, so that a disabled channel breaks nothing.

        Raises:
            InvalidRequest: an empty or reserved event name, or a payload that is not JSON (bytes, keys that are no strings).
            PayloadTooLarge: more than REALTIME_MAX_BUFFERED_BYTES: whoever got it would be cut off as a slow reader.
            Unavailable: the database cannot be reached; if it broke away meanwhile, the message may have been committed.
            InternalError: a trigger on realtime.messages raised; the log has what.
            ConfigError: the lifespan does not run.
        """
        return (await self.publish_many([(channel, event, payload)]))[0]

    async def publish_many(self, messages: Iterable[tuple[str, str, Mapping[str, Any]]]) -> list[str | None]:
        """Publish messages in one statement: all of them, in this order, or none.

        Args:
            messages: (channel, event, payload), as for `publish`.

        Returns:
            the ids, in the same order.

        Raises:
            the same as `publish` does; then none is published.
        """
        application = self._application
        ids = await application.publisher.publish(messages)
        application.feed.nudge()
        return ids

    def disconnect(self, user_id: str) -> int:
        """End a user's connections to this server for good: those clients do not come back by themselves.

        Args:
            user_id: the claim `sub` of their tokens, which stay valid.

        Returns:
            how many they were.
        """
        return self._application.doorway.disconnect(user_id)

    @property
    def _application(self) -> Application:
        if self._running is None:
            raise ConfigError(
                "Realtime is not running: give its lifespan to your application, lifespan=realtime.lifespan"
            )
        return self._running


async def _not_running(scope: Scope, receive: Receive, send: Send) -> None:
    """Say so to whoever asks; the operator finds it in the log."""
    log.error("request before the lifespan of Realtime has run; pass lifespan=realtime.lifespan to your application")
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1013})
    elif scope["type"] == "http":
        answer = JSONResponse({"code": "UNAVAILABLE", "message": Unavailable.default}, 503)
        await NoSniff(answer)(scope, receive, send)


def create_app(config: Config | None = None) -> Starlette:
    """A complete ASGI application: `uvicorn --factory insforge_realtime.app:create_app`, or hypercorn, or granian.

    Args:
        config: complete; None reads the environment.

    Raises:
        ConfigError: a setting is missing or wrong.
    """
    realtime = Realtime(config)
    return Starlette(routes=[Mount("/", realtime.asgi)], lifespan=realtime.lifespan)
