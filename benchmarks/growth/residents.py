"""Connections that stay: idle ones that answer heartbeats, or a few that are in very many rooms. A process of its own,
`python -m benchmarks.growth.residents`, by the rows G2 and G5 only.

Commands are lines of JSON on stdin, each answered by one line on stdout:

    {"do": "connect", "port": n, "count": n, "token": t}     so many more
    {"do": "subscribe", "channels": [c, …]}                  the first of them by the first connection, and so on, in turn
    {"do": "mark"}                                           forget which events came so far
    {"do": "wait", "events": n, "seconds": s}                until all together have had so many
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import uvloop

from benchmarks.clients import WebSocketClient
from benchmarks.lines import say, told

AT_ONCE = 50
"""How many connections are made at the same time, and how many subscribes one connection has under way."""


class Residents:
    """All of them."""

    def __init__(self) -> None:
        self._clients: list[WebSocketClient] = []
        self._events = 0

    async def run(self) -> None:
        say({})
        async for command in told():
            say(await self._do(command))

    async def _do(self, command: dict[str, Any]) -> dict[str, Any]:
        match command["do"]:
            case "connect":
                await self._connect(command["port"], command["count"], command["token"])
            case "subscribe":
                await self._subscribe(command["channels"])
            case "mark":
                self._events = 0
            case "wait":
                deadline = time.monotonic() + command["seconds"]
                while self._events < command["events"] and time.monotonic() < deadline:
                    await asyncio.sleep(0.02)
        return {"events": self._events, "closed": sum(client.closed for client in self._clients)}

    async def _connect(self, port: int, count: int, token: str) -> None:
        gate = asyncio.Semaphore(AT_ONCE)

        async def one() -> WebSocketClient:
            async with gate, asyncio.timeout(60):
                return await WebSocketClient.connect(port, token, self._on_event)

        self._clients += await asyncio.gather(*(one() for _ in range(count)))

    async def _subscribe(self, channels: list[str]) -> None:
        """Each connection one part, in pieces, so that nobody waits for an answer while it could ask."""
        gate = asyncio.Semaphore(AT_ONCE * 4)

        async def one(number: int, channel: str) -> None:
            async with gate:
                await self._clients[number % len(self._clients)].subscribe(channel)

        await asyncio.gather(*(one(number, channel) for number, channel in enumerate(channels)))

    def _on_event(self, event: bytes) -> None:
        if event.startswith(b'["tick"'):
            self._events += 1


if __name__ == "__main__":
    uvloop.run(Residents().run())
