"""Clients that ask and take the time: a process of its own. `python -m benchmarks.callers`, by rows/ only.

crowd.py counts what comes and reads nothing; here every packet is looked at, by as few instructions as will do. All times
are of this process's clock: who commits, who asks and who receives is the same process.

Commands are lines of JSON on stdin, each answered by one line on stdout:

    {"do": "enter", "port": n, "count": n}                connect so many users, each with a token of their own
    {"do": "subscribe"}                                   all of them at once, each to their own chat
    {"do": "publish", "window": n, "seconds": s}          all of them as fast as they can, with n publishes unanswered
    {"do": "listen", "port": n, "count": n, "url": dsn, "connections": n}   subscribe so many to the room, and connect
    {"do": "tick", "rate": r, "seconds": s}               commit at fixed times, and take the time until each has it
    {"do": "leave"}
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

import asyncpg
import uvloop

from benchmarks.crowd import read_packets
from benchmarks.identities import WATCHER, chat, token_of, user
from benchmarks.latencies import Ticks
from benchmarks.lines import say, told
from benchmarks.processes import CHANNEL

AT_ONCE = 50
"""How many connections are made at the same time."""
Answer = dict[str, Any]


class Caller(asyncio.Protocol):
    """A Socket.IO client that calls and is called: one future for each ack, and `heard` for every event."""

    def __init__(self) -> None:
        self.heard: Callable[[bytes, float], None] = lambda packet, at: None
        self.answered = 0.0
        """When the last ack came."""
        self._rest = b""
        self._acks: dict[bytes, asyncio.Future[Any]] = {}
        self._calls = 0
        self._entered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._upgraded = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        lost = ConnectionError("closed by the server")
        for waiting in (self._entered, *self._acks.values()):
            if not waiting.done():
                waiting.set_exception(lost)

    def data_received(self, data: bytes) -> None:
        at = time.monotonic()
        data = self._rest + data
        if not self._upgraded:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self._rest = head
                return
            self._upgraded = True
        packets, self._rest = read_packets(data)
        for packet in packets:
            if packet.startswith(b"42"):
                self.heard(packet, at)
            elif packet.startswith(b"43"):
                self._answer(packet, at)
            elif packet.startswith(b"0"):
                self.send(self._greeting)
            elif packet.startswith(b"40") and not self._entered.done():
                self._entered.set_result(None)
            elif packet.startswith(b"44"):
                self._entered.set_exception(ConnectionError(packet.decode()))

    def _answer(self, packet: bytes, at: float) -> None:
        number, _, arguments = packet[2:].partition(b"[")
        self.answered = at
        waiting = self._acks.pop(number)
        if not waiting.done():
            waiting.set_result(json.loads(b"[" + arguments)[0])

    def send(self, packet: str) -> None:
        """Send a text frame; its mask is zero."""
        payload = packet.encode()
        size = len(payload)
        head = b"\x81%c" % (0x80 | size) if size < 126 else b"\x81\xfe" + size.to_bytes(2, "big")
        self.transport.write(head + b"\0\0\0\0" + payload)

    def call(self, event: str, data: Answer) -> asyncio.Future[Any]:
        """Send an event; the future is its ack."""
        self._calls += 1
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._acks[b"%d" % self._calls] = answer
        self.send(f"42{self._calls}{json.dumps([event, data])}")
        return answer

    async def enter(self, token: str) -> None:
        self._greeting = "40" + json.dumps({"token": token})
        self.transport.write(
            b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        await self._entered

    async def subscribe(self, channel: str) -> None:
        answer = await self.call("realtime:subscribe", {"channel": channel})
        if not answer["ok"]:
            raise RuntimeError(f"{channel}: {answer}")


async def enter(port: int, token: str) -> Caller:
    _, caller = await asyncio.get_running_loop().create_connection(Caller, "127.0.0.1", port)
    async with asyncio.timeout(60):
        await caller.enter(token)
    return caller


class Tape:
    """What the watcher of many chats has heard: each is an event `42["tick",{"n":number,"w":writer,…}]`."""

    def __init__(self) -> None:
        self.events = self.doubled = self.disordered = 0
        self._last: dict[int, int] = {}
        self._seen: set[tuple[int, int]] = set()

    def heard(self, packet: bytes, at: float) -> None:
        name, data = json.loads(packet[2:])
        if name != "tick":
            return
        writer, number = data["w"], data["n"]
        self.events += 1
        self.doubled += (writer, number) in self._seen
        self._seen.add((writer, number))
        self.disordered += number < self._last.get(writer, 0)
        self._last[writer] = number

    def report(self) -> Answer:
        return {"distinct": len(self._seen), "doubled": self.doubled, "disordered": self.disordered}


class Callers:
    """All of them, and the commands."""

    def __init__(self) -> None:
        self._port = 0
        self._callers: list[Caller] = []
        self._connections: list[asyncpg.Connection[asyncpg.Record]] = []

    async def run(self) -> None:
        say({"pid": os.getpid()})
        async for command in told():
            commands: dict[str, Callable[..., Awaitable[Answer]]] = {
                "enter": self.enter,
                "subscribe": self.subscribe,
                "publish": self.publish,
                "listen": self.listen,
                "tick": self.tick,
                "leave": self.leave,
            }
            print(json.dumps(await commands[command.pop("do")](**command)), flush=True)

    async def enter(self, port: int, count: int) -> Answer:
        self._port = port
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(number: int) -> Caller:
            async with gate:
                return await enter(port, token_of(user(number)))

        self._callers = list(await asyncio.gather(*(one(number) for number in range(count))))
        return {"entered": count}

    async def subscribe(self) -> Answer:
        """Every chat's owner subscribes; then all leave, so that the next burst finds the server as this one did."""
        begun = time.monotonic()
        asked = [caller.subscribe(chat(number)) for number, caller in enumerate(self._callers)]
        await asyncio.gather(*asked)
        seconds = max(caller.answered for caller in self._callers) - begun
        leave = [c.call("realtime:unsubscribe", {"channel": chat(number)}) for number, c in enumerate(self._callers)]
        await asyncio.gather(*leave)
        return {"seconds": seconds}

    async def publish(self, window: int, seconds: float) -> Answer:
        """Every chat's owner writes to it; a watcher hears all chats."""
        tape, watcher = Tape(), await enter(self._port, token_of(WATCHER))
        watcher.heard = tape.heard
        for number, caller in enumerate(self._callers):
            await caller.subscribe(chat(number))
            await watcher.subscribe(chat(number))
        begun = time.monotonic()
        writers = [Writer(number, caller, begun + seconds) for number, caller in enumerate(self._callers)]
        await asyncio.gather(*(writer.write() for writer in writers for _ in range(window)))
        acknowledged, last = sum(writer.acknowledged for writer in writers), max(c.answered for c in self._callers)
        await all_heard(tape, acknowledged)
        watcher.transport.abort()
        refused = sum(writer.refused for writer in writers)
        return {"acknowledged": acknowledged, "refused": refused, "seconds": last - begun, **tape.report()}

    async def listen(self, port: int, count: int, url: str, connections: int) -> Answer:
        await self.enter(port, count)
        for caller in self._callers:
            await caller.subscribe(CHANNEL)
        self._connections = [await asyncpg.connect(url) for _ in range(connections)]
        return {"listening": count}

    async def tick(self, rate: float, seconds: float) -> Answer:
        ticks = Ticks(round(rate * seconds), rate, len(self._callers))
        for number, caller in enumerate(self._callers):
            caller.heard = ticks.listener(number)
        return await ticks.run(self._connections, CHANNEL)

    async def leave(self) -> Answer:
        for caller in self._callers:
            caller.transport.abort()
        self._callers = []
        for connection in self._connections:
            await connection.close()
        self._connections = []
        return {}


class Writer:
    """One client that publishes numbered messages until the time is over."""

    def __init__(self, number: int, caller: Caller, until: float) -> None:
        self.acknowledged = self.refused = 0
        self._number, self._caller, self._until = number, caller, until
        self._sent = 0

    async def write(self) -> None:
        """One publish after the other; several of these at a time make the window."""
        channel = chat(self._number)
        while time.monotonic() < self._until:
            self._sent += 1
            payload = {"w": self._number, "n": self._sent, "text": "forty characters of what happened to it"}
            answer = await self._caller.call(
                "realtime:publish", {"channel": channel, "event": "tick", "payload": payload}
            )
            self.acknowledged += answer["ok"]
            self.refused += not answer["ok"]


async def all_heard(tape: Tape, number: int) -> None:
    """Until the watcher has heard so many, or nothing more for two seconds."""
    quiet_since, events = time.monotonic(), tape.events
    while tape.events < number and time.monotonic() < quiet_since + 2:
        await asyncio.sleep(0.05)
        if tape.events != events:
            quiet_since, events = time.monotonic(), tape.events
    await asyncio.sleep(0.1)  # for what should not come


if __name__ == "__main__":
    uvloop.run(Callers().run())
