"""The other Python server: python-socketio on uvicorn, as its documentation puts them together. By peers.py only.

    JWT_SECRET=… python -m benchmarks.python_socketio ROOM

Who connects brings a token, which is verified; who subscribes joins a room. Prints one line, {"port": n}, once it listens.
Each line on stdin is a JSON array of payloads, emitted to ROOM one after the other. The end of stdin is its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
from typing import Any

import jwt
import socketio
import uvicorn

from benchmarks.lines import told
from benchmarks.machine import many_files


def make_server(secret: str) -> Any:
    server = socketio.AsyncServer(
        async_mode="asgi", transports=["websocket"], ping_interval=3600, cors_allowed_origins="*"
    )

    async def connect(sid: str, environ: dict[str, Any], auth: dict[str, Any]) -> None:
        try:
            claims = jwt.decode(auth["token"], secret, algorithms=["HS256"])
        except jwt.InvalidTokenError as error:
            raise socketio.exceptions.ConnectionRefusedError(str(error)) from error
        await server.save_session(sid, claims)

    async def subscribe(sid: str, data: dict[str, Any]) -> dict[str, Any]:
        await server.enter_room(sid, data["channel"])
        return {"ok": True, "channel": data["channel"]}

    server.on("connect", connect)
    server.on("realtime:subscribe", subscribe)
    return server


async def emit_lines(server: Any, room: str) -> None:
    async for payloads in told():
        for payload in payloads:
            await server.emit("tick", payload, room=room)


class _Server(uvicorn.Server):
    """uvicorn, without its signal handlers: SIGTERM ends a peer at once, whoever is still connected."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


async def main(room: str, secret: str) -> None:
    many_files()
    server = make_server(secret)
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    serving = _Server(
        uvicorn.Config(
            socketio.ASGIApp(server),
            http="httptools",
            ws="websockets",
            ws_per_message_deflate=False,
            ws_ping_interval=None,
            log_level="warning",
            lifespan="off",
        )
    )
    running = asyncio.create_task(serving.serve(sockets=[listener]))
    while not serving.started:
        await asyncio.sleep(0.01)
    print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
    await emit_lines(server, room)
    serving.force_exit = serving.should_exit = True
    await running


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(sys.argv[1], os.environ["JWT_SECRET"]))
