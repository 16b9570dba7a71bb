"""The public face for Python servers: what somebody else's application imports.

    Realtime      this server inside a Python server: made before the loop runs, started by a lifespan
    create_app    a complete ASGI application, for any ASGI server

What lives here: signatures that stay. The parts are wired in app.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import structlog
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount

from insforge_realtime import config as configuration
from insforge_realtime import logs, typos
from insforge_realtime.app import Application
from insforge_realtime.config import Config
from insforge_realtime.errors import NOT_RUNNING, ConfigError, Unavailable
from insforge_realtime.web.answers import NoSniff
from insforge_realtime.web.transports.fast_websocket import websocket_class

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

log = structlog.get_logger("insforge_realtime")


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
        self.websocket_class = websocket_class(lambda: self._running.fast if self._running else None)
        """For uvicorn: `uvicorn.run(app, ws=realtime.websocket_class)`. Other WebSockets of the application still work."""

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
            InvalidRequest: an empty or reserved event name, or a payload that is not JSON (bytes, keys other than strings).
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
        return self._application.gateway.disconnect(user_id)

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
        await send({"type": "websocket.close", "code": NOT_RUNNING.code})
    elif scope["type"] == "http":
        answer = JSONResponse({"code": "UNAVAILABLE", "message": Unavailable.default}, 503)
        await NoSniff(answer)(scope, receive, send)


def create_app(config: Config | None = None) -> Starlette:
    """Return a complete ASGI application: `uvicorn --factory insforge_realtime:create_app`, or hypercorn, or granian.

    Args:
        config: complete; None reads the environment.

    Raises:
        ConfigError: a setting is missing or wrong.
    """
    realtime = Realtime(config)
    return Starlette(routes=[Mount("/", realtime.asgi)], lifespan=realtime.lifespan)
