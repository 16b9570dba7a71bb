"""Connections that stay: idle ones that answer heartbeats, or a few that are in very many rooms. A process of its own,
`python -m benchmarks.growth.residents`, by the rows G2 and G5 only. Commands (control.py):

    {"do": "connect", "port": n, "count": n, "token": t}     so many more
    {"do": "subscribe", "channels": [c, …]}                  the first of them by the first connection, and so on, in turn
    {"do": "mark"}                                           forget which events came so far
    {"do": "wait", "events": n, "seconds": s}                until all together have had so many
"""

from __future__ import annotations

import uvloop

from benchmarks.control import Answer, Command, obey
from benchmarks.load.clients import WebSocketClient
from benchmarks.timing import few_at_a_time, until

SUBSCRIBES_AT_ONCE = 200
"""How many are under way at the same time, so that no connection waits for an answer while it could call again."""


class Residents:
    """All of them."""

    def __init__(self) -> None:
        self._clients: list[WebSocketClient] = []
        self._events = 0

    async def do(self, command: Command) -> Answer:
        match command["do"]:
            case "connect":
                port, token = command["port"], command["token"]
                connects = (WebSocketClient.connect(port, token, self._on_event) for _ in range(command["count"]))
                self._clients += await few_at_a_time(connects)
            case "subscribe":
                await self._subscribe(command["channels"])
            case "mark":
                self._events = 0
            case "wait":
                await until(lambda: self._events >= command["events"], command["seconds"])
        return {"events": self._events, "closed": sum(client.closed for client in self._clients)}

    async def _subscribe(self, channels: list[str]) -> None:
        """Have each connection subscribe to its part, in turn."""
        subscribes = (self._clients[n % len(self._clients)].subscribe(channel) for n, channel in enumerate(channels))
        await few_at_a_time(subscribes, SUBSCRIBES_AT_ONCE)

    def _on_event(self, event: bytes) -> None:
        if event.startswith(b'["tick"'):
            self._events += 1


if __name__ == "__main__":
    uvloop.run(obey(Residents().do, {}))
