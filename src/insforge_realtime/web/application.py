"""What this server is over HTTP, as one ASGI application: health, `/socket.io/`, and the headers that all of it needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Route, WebSocketRoute

from insforge_realtime.web.answers import Cors, NoSniff
from insforge_realtime.web.limits import PATH
from insforge_realtime.web.proxies import ForwardedHeaders, RootPath, TrustedProxies

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from insforge_realtime.config import Config

GZIP_BYTES = 1024
"""Answers that are smaller are not worth compressing."""
GZIP_LEVEL = 4
"""Little less dense than 9, at a fraction of the time, which is the event loop's."""

Health = Callable[[], dict[str, Any]]
"""Tells how the feed does: `state`, `reason`, `lagMs` and counts. Live means state `live`."""


def make_api(config: Config, version: str, health: Health, *, polling: ASGIApp, websocket: ASGIApp) -> ASGIApp:
    """Return the ASGI application, without lifespan.

    Args:
        config: whose pages may read, and what proxies do.
        version: of this package.
        health: called at every request for it.
        polling, websocket: what is behind `/socket.io/`.
    """
    # A path with a slash too many is nobody's: a redirect would go wherever the Host header says.
    api = FastAPI(
        title="InsForge Realtime",
        version=version,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )

    @api.api_route("/api/health", methods=["GET", "HEAD"])
    async def get_health() -> JSONResponse:
        """200 while the feed is live, 503 with the reason while it is not."""
        feed = health()
        live = feed["state"] == "live"
        body = {"status": "ok" if live else "unavailable", "version": version, "feed": feed}
        return JSONResponse(body, 200 if live else 503)

    polling = GZipMiddleware(polling, GZIP_BYTES, GZIP_LEVEL)
    for path in (PATH, PATH.rstrip("/")):
        api.router.routes += [Route(path, polling), WebSocketRoute(path, websocket)]

    answers = NoSniff(Cors(api, config.cors_origins))
    return RootPath(ForwardedHeaders(answers, TrustedProxies(config.trusted_proxies)), config.root_path)
