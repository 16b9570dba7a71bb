"""`Realtime` in an application of somebody's own, which uvicorn serves in the test's process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from fastapi import FastAPI, WebSocket

from insforge_realtime import Realtime
from support.databases import free_port, wait_until
from support.servers import SECRET


def realtime_for(database: str, **settings: Any) -> Realtime:
    return Realtime(database_url=database, jwt_secret=SECRET, **settings)


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """The signals are pytest's."""
        yield


@contextlib.asynccontextmanager
async def serving(app: Any, **options: Any) -> AsyncIterator[str]:
    """uvicorn, in this event loop; yields `127.0.0.1:port`."""
    port = free_port()
    config = uvicorn.Config(app, port=port, log_config=None, timeout_graceful_shutdown=2, **options)
    server = _Uvicorn(config)
    running = asyncio.create_task(server.serve())
    await wait_until(lambda: server.started or running.done())
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await running


def application(realtime: Realtime, path: str = "/") -> FastAPI:
    """Somebody's own, with a route and a WebSocket of its own."""
    app = FastAPI(lifespan=realtime.lifespan)

    @app.get("/mine")
    async def mine() -> dict[str, str]:
        return {"whose": "mine"}

    @app.websocket("/mine/echo")
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text((await websocket.receive_text()).upper())
        await websocket.close()

    app.mount(path, realtime.asgi)
    return app
