"""The HTTP side of the server: health, and an honest answer to who asks for a transport that is not offered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse

Health = Callable[[], dict[str, Any]]
"""Tells how the feed does: `state`, `reason`, `lagMs` and counts. Live means state `live`."""


def make_api(version: str, health: Health) -> FastAPI:
    """The HTTP application.

    Args:
        version: of this package.
        health: asked at every request.
    """
    api = FastAPI(title="InsForge Realtime", version=version, docs_url=None, redoc_url=None, openapi_url=None)

    @api.get("/api/health")
    async def get_health() -> JSONResponse:
        """200 while the feed is live, 503 with the reason while it is not."""
        feed = health()
        live = feed["state"] == "live"
        body = {"status": "ok" if live else "unavailable", "version": version, "feed": feed}
        return JSONResponse(body, 200 if live else 503)

    @api.api_route("/socket.io/", methods=["GET", "POST"])
    async def other_transport() -> JSONResponse:
        """Engine.IO's code for a transport that this server does not have."""
        return JSONResponse({"code": 0, "message": "Transport unknown: this server speaks WebSocket"}, 400)

    return api
