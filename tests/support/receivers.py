"""Real receivers of webhooks on loopback, and the rows that a server leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from aiohttp import web

LOOPBACK = "127.0.0.0/8,::1/128"


@dataclass
class Hit:
    """One request that came in: `at` is the time by the monotonic clock."""

    at: float
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def message_id(self) -> str:
        return self.headers["X-InsForge-Message-Id"]


Answer = Callable[[web.Request, int], Awaitable[web.StreamResponse]]
"""Gets the request and how many came before it."""


async def ok(_request: web.Request, _before: int) -> web.StreamResponse:
    return web.Response(text="thank you")


def status(*codes: int, **headers: str) -> Answer:
    """Answer with these, one after the other; the last one for ever."""

    async def answer(_request: web.Request, before: int) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=codes[min(before, len(codes) - 1)], text="so it is", headers=named)

    return answer


@dataclass
class Receiver:
    """An HTTP server, its address, and all that came in."""

    answer: Answer = ok
    host: str = "127.0.0.1"
    hits: list[Hit] = field(default_factory=list)
    port: int = 0
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}/hook"

    @property
    def ids(self) -> list[str]:
        return [hit.message_id for hit in self.hits]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        before = len(self.hits)
        hit = Hit(time.monotonic(), request.method, request.raw_path, dict(request.headers), await request.read())
        self.hits.append(hit)
        return await self.answer(request, before)


@contextlib.asynccontextmanager
async def receiving(
    answer: Answer = ok, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Receiver]:
    """A receiver for the length of a block."""
    receiver = Receiver(answer, host)
    app = web.Application(client_max_size=2**26)
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls)
    await site.start()
    receiver.port = runner.addresses[0][1]
    receiver.scheme = "https" if tls else "http"
    try:
        yield receiver
    finally:
        await runner.cleanup()


class Hooked:
    """A database with channels that have webhooks, and what its server wrote about them."""

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record], url: str) -> None:
        self.connection = connection
        self.url = url

    async def channel(self, pattern: str, *urls: str | None) -> None:
        await self.connection.execute(
            "INSERT INTO realtime.channels (pattern, webhook_urls) VALUES ($1, $2)", pattern, list(urls)
        )

    async def publish(self, channel: str, event: str = "e", payload: str = "{}") -> str:
        return str(await self.connection.fetchval("SELECT realtime.publish($1, $2, $3)::text", channel, event, payload))

    async def publish_many(self, channel: str, number: int) -> None:
        await self.connection.execute(
            "SELECT realtime.publish($1, 'e', jsonb_build_object('n', n)) FROM generate_series(1, $2::int) n",
            channel,
            number,
        )

    async def rows(self) -> list[asyncpg.Record]:
        return await self.connection.fetch("SELECT * FROM realtime.webhook_deliveries ORDER BY id")

    async def counts(self) -> list[tuple[int, int]]:
        """Of every message, how many webhooks it has and how many were delivered."""
        rows = await self.connection.fetch(
            "SELECT wh_audience_count, wh_delivered_count FROM realtime.messages ORDER BY seq"
        )
        return [(row[0], row[1]) for row in rows]

    async def states(self) -> dict[str, int]:
        rows = await self.connection.fetch("SELECT state, count(*) FROM realtime.webhook_deliveries GROUP BY 1")
        return {row[0]: row[1] for row in rows}

    async def all_over(self, seconds: float = 30.0) -> list[asyncpg.Record]:
        """The rows, once none is pending any more."""
        deadline = asyncio.get_running_loop().time() + seconds
        while (await self.states()).get("pending"):
            assert asyncio.get_running_loop().time() < deadline, await self.states()
            await asyncio.sleep(0.02)
        return await self.rows()

    async def the_row(self) -> Any:
        """The only row, once it is over."""
        [row] = await self.all_over()
        return row


@contextlib.asynccontextmanager
async def hooked(url: str) -> AsyncIterator[Hooked]:
    connection = await asyncpg.connect(url)
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=str, decoder=json.loads)
    try:
        yield Hooked(connection, url)
    finally:
        await connection.close()
