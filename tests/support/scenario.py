"""What every client goes through, and what each of them must see: one scenario, one table of expectations.

    connect, subscribe, take 1 000 numbered messages of a stream that began before; be refused in three ways; publish and
    get it back; lose the connection, come back by oneself, subscribe and receive again

What lives here: the scenario, the stream, and one class for each kind of client that lets the scenario drive it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import ssl
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import socketio

from insforge_realtime.pg.demo import ALICES_ORDER, BOB, ROOM
from support.databases import wait_until
from support.node import Puppet, Sdk
from support.servers import token

ROOM_CHANNEL = f"chat:{ROOM}"
NUMBERS = 1000
PAUSE_SECONDS = 0.006
"""Between two transactions of five numbers: the slowest client must keep up, in this process, with all the others."""

EXPECTED = {
    "subscribe to the numbers": "ok",
    "numbers": NUMBERS,
    "numbers missing, doubled or out of order": [],
    "publish without subscribing": "NOT_SUBSCRIBED",
    "subscribe to somebody else's order": "UNAUTHORIZED",
    "subscribe to the room": "ok",
    "publish what is no payload": "INVALID_REQUEST",
    "publish": "ok",
    "what came back": {"text": "hello ✓", "senderType": "user", "senderId": BOB, "channel": ROOM_CHANNEL},
    "connections": 2,
    "subscribe again": "ok",
    "after that": [1],
}


@dataclass
class Event:
    """What arrived, and by which transport."""

    name: str
    data: Any
    transport: str | None


class Inbox:
    """All that arrived at a client, in order; among it `connect` and `disconnect`."""

    def __init__(self) -> None:
        self._events: dict[str, list[Event]] = defaultdict(list)

    def append(self, event: Event) -> None:
        self._events[event.name].append(event)

    def named(self, name: str) -> list[Event]:
        return self._events[name]

    async def wait_for(self, name: str, times: int = 1) -> list[Event]:
        """Until so many events of this name have come."""
        await wait_until(lambda: len(self._events[name]) >= times, 40)
        return self._events[name]


class Client(Protocol):
    """Bob's client, of any kind."""

    inbox: Inbox

    async def connect(self) -> None:
        """Until it is connected."""

    async def subscribe(self, channel: str) -> str:
        """`ok`, or the code of the refusal."""

    async def publish(self, channel: str, event: str, payload: object) -> str:
        """Likewise."""

    async def upgrade(self) -> None:
        """So many numbers have come: whoever waits with its upgrade may begin."""

    async def close(self) -> None:
        """For good."""


@dataclass
class Outcome:
    """What a client saw.

    Args:
        client: its name.
        seen: to be compared with `EXPECTED`.
        transports: how many of the numbers came by which.
    """

    client: str
    seen: dict[str, Any] = field(default_factory=dict)
    transports: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.client}: {NUMBERS} numbers by {self.transports}"


class Scenario:
    """The scenario, for some clients at the same time, up to where the connection is lost and from there on.

    Args:
        database: of the server.
        clients: by name.
    """

    def __init__(self, database: str, clients: dict[str, Client]) -> None:
        self._database = database
        self._clients = clients
        self.outcomes = {name: Outcome(name) for name in clients}

    async def play(self, cut: Callable[[], Awaitable[object]]) -> list[Outcome]:
        """All of it.

        Args:
            cut: makes the server lose all connections; returns once clients can connect again.
        """
        try:
            async with numbers(self._database):
                await self._for_each(self._take_numbers)
            await self._for_each(self._ask_and_publish)
            await cut()
            await self._for_each(self._come_back)
            async with connected(self._database) as sql:
                await sql.execute("""SELECT realtime.publish('orders', 'after', '{"n": 1}')""")
            await self._for_each(self._last_part)
        finally:
            for client in self._clients.values():
                await client.close()
        for outcome in self.outcomes.values():
            print(outcome)
        return list(self.outcomes.values())

    async def _for_each(self, part: Callable[[Client, Outcome], Awaitable[None]]) -> None:
        async def named(name: str) -> None:
            try:
                await part(self._clients[name], self.outcomes[name])
            except BaseException as error:
                error.add_note(f"the client was {name}, which has seen {self.outcomes[name].seen}")
                raise

        async with asyncio.TaskGroup() as group:
            for name in self._clients:
                group.create_task(named(name))

    async def _take_numbers(self, client: Client, outcome: Outcome) -> None:
        seen, inbox = outcome.seen, client.inbox
        await client.connect()
        seen["subscribe to the numbers"] = await client.subscribe("orders")
        await inbox.wait_for("number", NUMBERS // 10)
        await client.upgrade()
        taken = (await inbox.wait_for("number", NUMBERS))[:NUMBERS]
        outcome.transports = dict(Counter(str(event.transport) for event in taken))
        seen["numbers"] = len(taken)

    async def _ask_and_publish(self, client: Client, outcome: Outcome) -> None:
        seen, inbox = outcome.seen, client.inbox
        seen["publish without subscribing"] = await client.publish(ROOM_CHANNEL, "said", {"text": "too early"})
        seen["subscribe to somebody else's order"] = await client.subscribe(f"order:{ALICES_ORDER}")
        seen["subscribe to the room"] = await client.subscribe(ROOM_CHANNEL)
        seen["publish what is no payload"] = await client.publish(ROOM_CHANNEL, "said", "text")
        seen["publish"] = await client.publish(ROOM_CHANNEL, f"said {outcome.client}", {"text": "hello ✓"})
        [said] = await inbox.wait_for(f"said {outcome.client}")
        meta = said.data["meta"]
        seen["what came back"] = {"text": said.data["text"]} | {
            key: meta[key] for key in ("senderType", "senderId", "channel")
        }

    async def _come_back(self, client: Client, outcome: Outcome) -> None:
        await client.inbox.wait_for("connect", 2)
        outcome.seen["subscribe again"] = await client.subscribe("orders")

    async def _last_part(self, client: Client, outcome: Outcome) -> None:
        inbox = client.inbox
        outcome.seen["after that"] = [event.data["n"] for event in await inbox.wait_for("after")]
        outcome.seen["connections"] = len(inbox.named("connect"))
        received = [event.data["n"] for event in inbox.named("number")]
        outcome.seen["numbers missing, doubled or out of order"] = [
            pair for pair in itertools.pairwise(received) if pair[1] != pair[0] + 1
        ]


@contextlib.asynccontextmanager
async def connected(database: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A connection to the database."""
    connection = await asyncpg.connect(database)
    try:
        yield connection
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def numbers(database: str) -> AsyncIterator[None]:
    """Events `number` in the channel `orders`, 1, 2, 3 …, for the length of a block: a few in each transaction, and now and
    then many."""
    done = asyncio.Event()

    async def write() -> None:
        async with connected(database) as sql:
            statement = await sql.prepare(
                """SELECT realtime.publish('orders', 'number', jsonb_build_object('n', n))
                   FROM generate_series($1::int, $1::int + $2::int - 1) n"""
            )
            number = 1
            for size in itertools.cycle([5] * 19 + [50]):
                if done.is_set():
                    return
                await statement.fetch(number, size)
                number += size
                await asyncio.sleep(PAUSE_SECONDS)

    writer = asyncio.create_task(write())
    try:
        yield
    finally:
        done.set()
        await writer


# The clients


class SocketIo:
    """socket.io-client.

    Args:
        puppet: the process, of scenario.mjs.
        url: the server's; with a path, where it is not at the root.
        options: of `io()`.
    """

    def __init__(self, puppet: Puppet, url: str, **options: object) -> None:
        self._puppet = puppet
        self._origin, path = _split(url)
        self._options = {"path": path, "auth": {"token": token(BOB)}, **options}
        self._name = puppet.name(self._hear)
        self.inbox = Inbox()

    def _hear(self, said: dict[str, Any]) -> None:
        self.inbox.append(Event(said["event"], said.get("data"), said.get("transport")))

    async def _call(self, verb: str, *args: Any) -> Any:
        return await self._puppet.ask(self._name, verb, args)

    async def connect(self) -> None:
        await self._call("connect", self._origin, self._options)
        await self.inbox.wait_for("connect")

    async def subscribe(self, channel: str) -> str:
        return _meaning(await self._call("ask", "realtime:subscribe", {"channel": channel}))

    async def publish(self, channel: str, event: str, payload: object) -> str:
        message = {"channel": channel, "event": event, "payload": payload}
        return _meaning(await self._call("ask", "realtime:publish", message))

    async def upgrade(self) -> None:
        if "late" in self._options:
            await self._call("upgrade")

    async def close(self) -> None:
        await self._call("disconnect")


class PythonSocketIo:
    """python-socketio's AsyncClient.

    Args:
        url: as for `SocketIo`.
        transports: None for its default, which upgrades.
        trusted: a file with the certificates of authorities that it believes.
    """

    def __init__(self, url: str, transports: list[str] | None = None, *, trusted: Path | None = None) -> None:
        self._origin, self._path = _split(url)
        self._transports = transports
        self._tls = None if trusted is None else ssl.create_default_context(cafile=trusted)
        self.inbox = Inbox()

    async def connect(self) -> None:
        connector = aiohttp.TCPConnector() if self._tls is None else aiohttp.TCPConnector(ssl=self._tls)
        self._http = aiohttp.ClientSession(connector=connector)
        self._client = socketio.AsyncClient(http_session=self._http)
        self._client.on("*", self._hear)
        self._client.on("connect", lambda: self._hear("connect"))
        self._client.on("disconnect", lambda reason: self._hear("disconnect", reason))
        await self._client.connect(
            self._origin, auth={"token": token(BOB)}, transports=self._transports, socketio_path=self._path
        )

    def _hear(self, event: str, data: object = None) -> None:
        self.inbox.append(Event(event, data, self._client.transport()))

    async def _call(self, event: str, data: object) -> str:
        return _meaning(await self._client.call(event, data, timeout=20))

    async def subscribe(self, channel: str) -> str:
        return await self._call("realtime:subscribe", {"channel": channel})

    async def publish(self, channel: str, event: str, payload: object) -> str:
        return await self._call("realtime:publish", {"channel": channel, "event": event, "payload": payload})

    async def upgrade(self) -> None:
        """It has upgraded before it was connected."""

    async def close(self) -> None:
        await self._client.shutdown()
        await self._http.close()


class OfficialSdk:
    """`@insforge/sdk`: no acks for publishes, so what came of them is seen by what arrives.

    Args:
        sdk: the process.
        url: the server's.
    """

    def __init__(self, sdk: Sdk, url: str) -> None:
        self._sdk = sdk
        self._url = url
        self.inbox = Inbox()

    async def connect(self) -> None:
        self._client = await self._sdk.client(self._url, token(BOB))
        self._client.events = _Tagged(self.inbox)
        for event in ("connect", "error", "number", "said", "said official SDK", "after"):
            await self._client.call("on", event)
        await self._client.call("connect")

    async def subscribe(self, channel: str) -> str:
        return _meaning(await self._client.subscribe(channel))

    async def publish(self, channel: str, event: str, payload: object) -> str:
        before = {name: len(self.inbox.named(name)) for name in ("error", event)}
        await self._client.call("publish", channel, event, payload)
        await wait_until(lambda: any(len(self.inbox.named(name)) > number for name, number in before.items()))
        errors = self.inbox.named("error")[before["error"] :]
        return str(errors[0].data["code"]) if errors else "ok"

    async def upgrade(self) -> None:
        """It knows WebSocket only."""

    async def close(self) -> None:
        await self._client.call("disconnect")


class _Tagged(list[tuple[str, Any]]):
    """The list that an `SdkClient` appends to, for which every event came over a WebSocket."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    def append(self, event: tuple[str, Any]) -> None:
        self._inbox.append(Event(*event, "websocket"))


def _split(url: str) -> tuple[str, str]:
    """The origin, and the path to give to a client: in these clients, a path in the URL is a namespace."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}", f"{parts.path.rstrip('/')}/socket.io/"


def _meaning(answer: Any) -> str:
    return "ok" if answer["ok"] else str(answer["error"]["code"])


# Which clients there are

VARIANTS: dict[str, list[str] | None] = {
    "by itself": None,
    "polling only": ["polling"],
    "WebSocket only": ["websocket"],
}


@contextlib.asynccontextmanager
async def clients(
    url: str, *names: str, trusted: Path | None = None, **options: object
) -> AsyncIterator[dict[str, Client]]:
    """Clients by their names, `socket.io-client, polling only` say; the late ones upgrade amid the stream.

    Args:
        url, trusted: as for the clients.
        names: which.
        options: of socket.io-client, for those that are.
    """
    async with Puppet("scenario.mjs", trusted=trusted) as puppet, Sdk(trusted=trusted) as sdk:

        def make(name: str) -> Client:
            kind, _, variant = name.partition(", ")
            if kind == "official SDK":
                return OfficialSdk(sdk, url)
            if kind == "python-socketio":
                return PythonSocketIo(url, VARIANTS[variant], trusted=trusted)
            if variant == "late upgrade":
                return SocketIo(puppet, url, late=True, **options)
            transports = VARIANTS[variant]
            return SocketIo(puppet, url, **options, **({} if transports is None else {"transports": transports}))

        yield {name: make(name) for name in names}


ALL = (
    *(f"{kind}, {variant}" for kind in ("socket.io-client", "python-socketio") for variant in VARIANTS),
    "socket.io-client, late upgrade",
    "official SDK",
)


def check(outcomes: list[Outcome]) -> None:
    """Everybody saw what was to be seen, by the transports that they were told to use."""
    for outcome in outcomes:
        assert outcome.seen == EXPECTED, outcome.client
        used = set(outcome.transports)
        if "polling only" in outcome.client:
            assert used == {"polling"}
        elif "WebSocket only" in outcome.client or outcome.client == "official SDK":
            assert used == {"websocket"}
        elif "late upgrade" in outcome.client:
            assert used == {"polling", "websocket"}
        else:
            assert "websocket" in used
