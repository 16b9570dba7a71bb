"""The clients of the soak, in a process of their own: `python -m benchmarks.soak.population`, by `benchmarks.soak` only.

Most stay where they are; some poll, some read slowly at times, some publish and wait for the acks, some change rooms,
some come and go. Commands (control.py):

    {"do": "connect", "port": n, "clients": n, "rooms": [name, …]}
    {"do": "begin"}                                       publishes and changes begin
    {"do": "report"}                                      how it goes; each ack's time since the last report
    {"do": "stop"}                                        they end
    {"do": "finish", "totals": {room: n}, "seconds": s}   each client should have this; which does not?
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from typing import Any

import uvloop

from benchmarks.control import Answer, Command, obey
from benchmarks.load.clients import Client, PollingClient, WebSocketClient
from benchmarks.load.identities import token_of, user
from benchmarks.soak.ledger import FIRST_CLIENT, Ledger
from benchmarks.timing import few_at_a_time, paced, until

USERS = 200
POLLING, SLOW, MOVING, RESTLESS = 0.04, 0.025, 0.05, 0.075
"""The parts of the clients that poll, that stop reading now and then, that change rooms, and that come and go."""
PUBLISHES_PER_SECOND = 10
MOVE_SECONDS, STAY_SECONDS, READ_SECONDS, PAUSE_SECONDS = 5, 15, 20, 8
"""About how long a client is in a room, is connected, reads, and reads nothing."""


class Member:
    """One client: its connection, which may be replaced by another, and what it got."""

    def __init__(self, kind: str, number: int, rooms: list[str]) -> None:
        self.kind = kind
        self.number = number
        self.rooms = rooms
        self.ledger = Ledger(all_along=kind in ("steady", "polling", "slow"))
        self.client: Client = None  # type: ignore[assignment]
        self.published = 0

    async def connect(self, port: int, token: str) -> None:
        """Connect, or connect anew, and enter its rooms."""
        take = self.ledger.take
        if self.kind == "polling":
            self.client = await PollingClient.connect(port, token, take)
        else:
            self.client = await WebSocketClient.connect(port, token, take)
        for room in self.rooms:
            await self.enter(room)

    async def enter(self, room: str) -> None:
        self.ledger.enter(room)
        await self.client.subscribe(room)

    async def move(self, room: str) -> None:
        """Leave one of its rooms for another."""
        if room in self.rooms:
            return
        left = self.rooms.pop(0)
        await self.client.call("realtime:unsubscribe", {"channel": left})
        self.ledger.leave(left)
        await self.enter(room)
        self.rooms.append(room)

    async def publish(self) -> float:
        """Publish to its first room, and return the milliseconds until the ack."""
        self.published += 1
        payload = {"w": FIRST_CLIENT + self.number, "n": self.published, "text": "x" * 60}
        begun = time.monotonic()
        answer = await self.client.call(
            "realtime:publish", {"channel": self.rooms[0], "event": "said", "payload": payload}
        )
        if not answer["ok"]:
            raise RuntimeError(answer)
        return (time.monotonic() - begun) * 1000


class Population:
    """All of them."""

    def __init__(self) -> None:
        self.members: list[Member] = []
        self._chance = random.Random(5)
        self._tokens = [token_of(user(number)) for number in range(USERS)]
        self._acks: list[float] = []
        self._did: Counter[str] = Counter()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()

    async def do(self, command: Command) -> Answer:
        match command["do"]:
            case "connect":
                await self._connect(command["port"], command["clients"], command["rooms"])
            case "begin":
                self._begin()
            case "stop":
                self._stopping.set()
                await asyncio.gather(*self._tasks)
            case "finish":
                await self._wait_for(command["totals"], command["seconds"])
                return self._verdict(command["totals"])
        return self._report()

    async def _connect(self, port: int, clients: int, rooms: list[str]) -> None:
        self._port, self._rooms = port, rooms
        kinds = itertools.chain.from_iterable(
            itertools.repeat(kind, round(clients * part))
            for kind, part in (("polling", POLLING), ("slow", SLOW), ("moving", MOVING), ("restless", RESTLESS))
        )
        for number in range(clients):
            self.members.append(Member(next(kinds, "steady"), number, self._chance.sample(rooms, 2)))
        await few_at_a_time(member.connect(port, self._token(member)) for member in self.members)

    def _token(self, member: Member) -> str:
        return self._tokens[member.number % USERS]

    # What they do

    def _begin(self) -> None:
        work = {"moving": self._keep_moving, "restless": self._come_and_go, "slow": self._read_slowly}
        self._tasks = [asyncio.create_task(work[m.kind](m)) for m in self.members if m.kind in work]
        self._tasks.append(asyncio.create_task(self._publish()))

    async def _pause(self, seconds: float) -> bool:
        """Wait about so long, or until the end, and return whether it goes on."""
        try:
            async with asyncio.timeout(self._chance.uniform(0.5, 1.5) * seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass
        return not self._stopping.is_set()

    async def _keep_moving(self, member: Member) -> None:
        while await self._pause(MOVE_SECONDS):
            await member.move(self._chance.choice(self._rooms))
            self._did["moves"] += 1

    async def _come_and_go(self, member: Member) -> None:
        while await self._pause(STAY_SECONDS):
            member.client.abort()
            await member.connect(self._port, self._token(member))
            self._did["reconnects"] += 1

    async def _read_slowly(self, member: Member) -> None:
        assert isinstance(member.client, WebSocketClient)
        while await self._pause(READ_SECONDS):
            if member.client.closed:
                return  # it read too slowly
            member.client.transport.pause_reading()
            await self._pause(PAUSE_SECONDS)
            member.client.transport.resume_reading()
            self._did["pauses"] += 1

    async def _publish(self) -> None:
        """Publish at a fixed rate, whether the acks are there or not."""
        writers = itertools.cycle([member for member in self.members if member.kind == "steady"][:100])
        under_way: set[asyncio.Task[None]] = set()
        async for _ in paced(1 / PUBLISHES_PER_SECOND):
            if self._stopping.is_set():
                break
            task = asyncio.create_task(self._publish_one(next(writers)))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)

    async def _publish_one(self, member: Member) -> None:
        self._acks.append(await member.publish())
        self._did["published"] += 1

    # What became of it

    def _report(self) -> dict[str, Any]:
        acks, self._acks = self._acks, []
        return {
            **{name: self._did[name] for name in ("published", "moves", "reconnects", "pauses")},
            "received": sum(member.ledger.received for member in self.members),
            "closed": Counter(member.kind for member in self.members if member.client.closed),
            "acks_ms": [round(ack, 2) for ack in acks],
            "failed": [repr(task.exception()) for task in self._tasks if task.done() and task.exception()],
        }

    async def _wait_for(self, totals: dict[str, int], seconds: float) -> None:
        there = [m for m in self.members if m.ledger.all_along and not m.client.closed]
        await until(lambda: all(m.ledger.missing(totals) <= 0 for m in there), seconds, 0.2)

    def _verdict(self, totals: dict[str, int]) -> dict[str, Any]:
        """Return what was lost, doubled or disordered. A client that was cut off for reading too slowly got a piece from the
        beginning; no other may have been."""
        ledgers = [member.ledger for member in self.members]
        there = [m for m in self.members if m.ledger.all_along and not (m.kind == "slow" and m.client.closed)]
        return {
            "all_along": len(there),
            "lost": sum(ledger.lost for ledger in ledgers) + sum(abs(m.ledger.missing(totals)) for m in there),
            "doubled": sum(ledger.doubled for ledger in ledgers),
            "disordered": sum(ledger.disordered for ledger in ledgers),
        }


if __name__ == "__main__":
    uvloop.run(obey(Population().do, {}))
