"""The subscribers: a process of its own with raw sockets that count frames, `python -m benchmarks.load.crowd`, by rows only.

Nothing here decodes what it gets while it measures: a client library would cost more than the server that is measured.
A frame is counted by its header. The first `record` sockets of a group also keep their bytes, which are read afterwards:
was anything lost, doubled, out of order? Commands (control.py):

    {"do": "connect", "group": g, "kind": "realtime" | "socketio" | "plain", "port": n, "count": n, "record": n,
     "token": t, "channel": c}                           "own": true: each socket is another user (identities.py)
    {"do": "mark", "group": g}                           forget what was counted so far
    {"do": "wait", "group": g, "frames": n, "seconds": s}   until all sockets together have had so many frames; with
                                                         "quiet": s, or until none has come for so long
    {"do": "close", "group": g}
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any, cast

import uvloop

from benchmarks.control import Answer, Command, obey
from benchmarks.load.identities import as_user
from benchmarks.load.tally import Tally
from benchmarks.load.wire import HANDSHAKE, read_packets, text_frame
from benchmarks.timing import few_at_a_time


class Subscriber(asyncio.Protocol):
    """One socket: while it connects, it waits for what has to come; then it counts."""

    __slots__ = ("_carry", "_early", "_skip", "chunks", "closed", "frames", "group", "news", "transport")

    def __init__(self, group: Group, *, record: bool) -> None:
        self.group = group
        self.frames = 0
        self.closed = False
        self.chunks: list[bytes] | None = [] if record else None
        self.news = asyncio.Event()
        self._early: bytes | None = b""
        self._carry = b""
        self._skip = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self.news.set()

    def data_received(self, data: bytes) -> None:
        if self._early is None:
            self._count(data)
        else:
            self._early += data
            self.news.set()

    def _count(self, data: bytes) -> None:
        """Count the frames that end in this piece of the stream."""
        group = self.group
        group.bytes += len(data)
        group.last = time.monotonic()
        if self.chunks is not None:
            self.chunks.append(data)
        if self._carry:
            data, self._carry = self._carry + data, b""
        end = len(data)
        at = self._skip
        if at > end:
            self._skip = at - end
            return
        frames = 1 if at else 0
        self._skip = 0
        while end - at >= 2:
            size = data[at + 1]
            head = 2
            if size == 126:
                head = 4
                size = int.from_bytes(data[at + 2 : at + 4], "big")
            elif size == 127:
                head = 10
                size = int.from_bytes(data[at + 2 : at + 10], "big")
            if end - at < head:
                break
            at += head + size
            if at > end:
                self._skip = at - end
                break
            frames += 1
        if at < end:
            self._carry = data[at:]
        self.frames += frames
        group.frames += frames
        if group.frames >= group.target:
            group.reached.set()

    async def until(self, text: bytes) -> None:
        """While connecting, wait until this has come; raises ConnectionError where it cannot any more."""
        while text not in (self._early or b""):
            if self.closed:
                raise ConnectionError(f"closed while waiting for {text!r}, after {self._early!r}")
            self.news.clear()
            await self.news.wait()

    def begin_to_count(self, after: bytes = b"") -> None:
        """Count from here on, beginning with what has come already behind `after`."""
        early, self._early = self._early or b"", None
        if after:
            early = early[early.index(after) + len(after) :]
        if early:
            self._count(early)

    def send(self, packet: str) -> None:
        self.transport.write(text_frame(packet.encode()))


@dataclass
class Group:
    """The sockets that are connected to one server."""

    sockets: list[Subscriber] = field(default_factory=list)
    frames: int = 0
    bytes: int = 0
    last: float = 0.0
    target: float = float("inf")
    reached: asyncio.Event = field(default_factory=asyncio.Event)

    def mark(self) -> None:
        """Forget what was counted so far."""
        self.frames = self.bytes = 0
        self.last = 0.0
        self.target = float("inf")
        self.reached.clear()
        for subscriber in self.sockets:
            subscriber.frames = 0
            if subscriber.chunks is not None:
                subscriber.chunks = []

    async def wait(self, frames: int, seconds: float, quiet: float | None = None) -> None:
        """Wait until so many frames have come, at most so many seconds, or until nothing has come for `quiet` seconds."""
        self.target = frames
        deadline = time.monotonic() + seconds
        while self.frames < frames and (left := deadline - time.monotonic()) > 0:
            before = self.frames
            try:
                async with asyncio.timeout(min(left, quiet or left)):
                    await self.reached.wait()
            except TimeoutError:
                if self.frames == before:
                    break
        await asyncio.sleep(0.1)  # for what should not come

    def report(self) -> dict[str, Any]:
        per_socket = [subscriber.frames for subscriber in self.sockets]
        return {
            "frames": self.frames,
            "bytes": self.bytes,
            "last": self.last,
            "least": min(per_socket),
            "most": max(per_socket),
            "closed": sum(subscriber.closed for subscriber in self.sockets),
            "read": [read(b"".join(s.chunks)) for s in self.sockets if s.chunks is not None],
        }


def read(stream: bytes) -> dict[str, int]:
    """Return the tally of a stream of frames."""
    tally = Tally()
    for packet in read_packets(stream)[0]:
        if packet.startswith(b"42"):
            tally.take(packet[2:])
    return tally.report()


class Crowd:
    """All groups, and the commands."""

    def __init__(self) -> None:
        self._groups: dict[str, Group] = {}

    async def do(self, command: Command) -> Answer:
        name = command["group"]
        match command["do"]:
            case "connect":
                return await self._connect(name, command)
            case "mark":
                self._groups[name].mark()
                return {}
            case "wait":
                group = self._groups[name]
                await group.wait(command["frames"], command["seconds"], command.get("quiet"))
                return group.report()
            case "close":
                for subscriber in self._groups.pop(name).sockets:
                    subscriber.transport.abort()
                return {}
        raise ValueError(command)

    async def _connect(self, name: str, command: Command) -> Answer:
        group = self._groups[name] = Group()

        async def one(number: int) -> Subscriber:
            own = as_user(command, number) if command.get("own") else command
            async with asyncio.timeout(60):
                return await connect(group, own, record=number < command["record"])

        group.sockets = await few_at_a_time(map(one, range(command["count"])))
        return {"connected": len(group.sockets)}


async def connect(group: Group, command: Command, *, record: bool) -> Subscriber:
    """Connect one socket, get through the handshake of its kind of server, and begin to count."""
    loop = asyncio.get_running_loop()
    _, subscriber = await loop.create_connection(lambda: Subscriber(group, record=record), "127.0.0.1", command["port"])
    if command["kind"] == "plain":
        subscriber.begin_to_count()
        return subscriber
    subscriber.transport.write(HANDSHAKE)
    await subscriber.until(b"pingInterval")
    token = command.get("token")
    subscriber.send("40" + (json.dumps({"token": token}) if token else ""))
    await subscriber.until(b'40{"sid"')
    if command["kind"] == "realtime":
        subscriber.send("420" + json.dumps(["realtime:subscribe", {"channel": command["channel"]}]))
        await subscriber.until(b'430[{"ok":true')
    subscriber.begin_to_count(after=b"\r\n\r\n")
    return subscriber


if __name__ == "__main__":
    uvloop.run(obey(Crowd().do, {}))
