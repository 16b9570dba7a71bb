"""The other Python server: python-socketio on uvicorn, as its documentation puts them together. Started by launch.py only.

    JWT_SECRET=… python -m benchmarks.peers.python_socketio ROOM

Clients bring a token, which is verified; a subscribe joins a room. Prints {"port": n} once it listens. Each line on stdin
is a JSON array of payloads, emitted to ROOM one after the other. The end of stdin is its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from typing import Any

import jwt
import socketio
import uvicorn

from benchmarks.control import lines, write
from benchmarks.machine import many_files


def make_server(secret: str) -> Any:
    """Return a Socket.IO server whose clients prove who they are, and may subscribe to anything."""
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
    """Emit what comes on stdin, until it ends."""
    async for payloads in lines():
        for payload in payloads:
            await server.emit("tick", payload, room=room)


class _Uvicorn(uvicorn.Server):
    """uvicorn without its signal handlers: SIGTERM ends a peer at once, whoever is still connected."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


async def main(room: str, secret: str) -> None:
    many_files()
    server = make_server(secret)
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    serving = _Uvicorn(
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
    write({"port": listener.getsockname()[1]})
    await emit_lines(server, room)
    serving.force_exit = serving.should_exit = True
    await running


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(sys.argv[1], os.environ["JWT_SECRET"]))
