"""Clients that call and take the time: a process of its own, `python -m benchmarks.load.callers`, by rows/ only.

crowd.py counts what comes and reads nothing; here every packet is looked at. All times are of this process's clock: what
commits, what calls and what receives is the same process. Commands (control.py):

    {"do": "enter", "port": n, "count": n}                connect so many users, each with a token of their own
    {"do": "subscribe"}                                   all of them at once, each to their own chat
    {"do": "publish", "window": n, "seconds": s}          all of them as fast as they can, with n publishes unanswered
    {"do": "listen", "port": n, "count": n, "url": dsn, "connections": n}   subscribe so many to the room, and connect
    {"do": "tick", "rate": r, "seconds": s}               commit at fixed times, and take the time until each has it
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import asyncpg
import uvloop

from benchmarks.control import Answer, Command, obey
from benchmarks.database import CHANNEL, Connection
from benchmarks.load.clients import WebSocketClient
from benchmarks.load.identities import WATCHER, chat, token_of, user
from benchmarks.load.tally import Tally
from benchmarks.load.ticks import Ticks
from benchmarks.timing import few_at_a_time, until_quiet

QUIET = 2.0
"""Seconds in which the watcher hears nothing, after which the rest is lost."""


class Caller(WebSocketClient):
    """A client with a clock: it knows when each event came, and when its last ack did."""

    answered = 0.0
    """When the last ack came."""
    _at = 0.0

    def listen(self, hear: Callable[[bytes, float], None]) -> None:
        """Have every event from now on heard, and when it came."""
        self.on_event = lambda event: hear(event, self._at)

    def data_received(self, data: bytes) -> None:
        self._at = time.monotonic()
        super().data_received(data)

    def _acknowledge(self, ack: bytes) -> None:
        self.answered = self._at
        super()._acknowledge(ack)


class Callers:
    """All of them, and the commands."""

    def __init__(self) -> None:
        self._port = 0
        self._callers: list[Caller] = []
        self._connections: list[Connection] = []
        self._commands: dict[str, Callable[..., Awaitable[Answer]]] = {
            "enter": self.enter,
            "subscribe": self.subscribe,
            "publish": self.publish,
            "listen": self.listen,
            "tick": self.tick,
        }

    async def do(self, command: Command) -> Answer:
        return await self._commands[command.pop("do")](**command)

    async def enter(self, port: int, count: int) -> Answer:
        self._port = port
        tokens = (token_of(user(number)) for number in range(count))
        self._callers = await few_at_a_time(Caller.connect(port, token) for token in tokens)
        return {"entered": count}

    async def subscribe(self) -> Answer:
        """Every chat's owner subscribes; then all leave, so that the next burst finds the server as this one did."""
        begun = time.monotonic()
        await asyncio.gather(*(caller.subscribe(chat(number)) for number, caller in enumerate(self._callers)))
        seconds = max(caller.answered for caller in self._callers) - begun
        leave = [c.call("realtime:unsubscribe", {"channel": chat(number)}) for number, c in enumerate(self._callers)]
        await asyncio.gather(*leave)
        return {"seconds": seconds}

    async def publish(self, window: int, seconds: float) -> Answer:
        """Every chat's owner writes to it; a watcher hears all chats."""
        tally = Tally()
        watcher = await Caller.connect(self._port, token_of(WATCHER), tally.take)
        for number, caller in enumerate(self._callers):
            await caller.subscribe(chat(number))
            await watcher.subscribe(chat(number))
        begun = time.monotonic()
        writers = [Writer(number, caller, begun + seconds) for number, caller in enumerate(self._callers)]
        await asyncio.gather(*(writer.write() for writer in writers for _ in range(window)))
        acknowledged, last = sum(writer.acknowledged for writer in writers), max(c.answered for c in self._callers)
        await until_quiet(lambda: tally.events, acknowledged, QUIET)
        watcher.abort()
        refused = sum(writer.refused for writer in writers)
        return {"acknowledged": acknowledged, "refused": refused, "seconds": last - begun, **tally.report()}

    async def listen(self, port: int, count: int, url: str, connections: int) -> Answer:
        await self.enter(port, count)
        for caller in self._callers:
            await caller.subscribe(CHANNEL)
        self._connections = [await asyncpg.connect(url) for _ in range(connections)]
        return {"listening": count}

    async def tick(self, rate: float, seconds: float) -> Answer:
        ticks = Ticks(round(rate * seconds), rate, len(self._callers))
        for number, caller in enumerate(self._callers):
            caller.listen(ticks.listener(number))
        return await ticks.run(self._connections, CHANNEL)


class Writer:
    """One client that publishes numbered messages until the time is over."""

    def __init__(self, number: int, caller: Caller, until: float) -> None:
        self.acknowledged = self.refused = 0
        self._number, self._caller, self._until = number, caller, until
        self._sent = 0

    async def write(self) -> None:
        """Publish one after the other; several of these at a time make the window."""
        channel = chat(self._number)
        while time.monotonic() < self._until:
            self._sent += 1
            payload = {"w": self._number, "n": self._sent, "text": "forty characters of what happened to it"}
            answer = await self._caller.call(
                "realtime:publish", {"channel": channel, "event": "tick", "payload": payload}
            )
            self.acknowledged += answer["ok"]
            self.refused += not answer["ok"]


if __name__ == "__main__":
    uvloop.run(obey(Callers().do, {}))
