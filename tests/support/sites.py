"""A server that is attacked: what must hold at any moment, and the witness who notices whether it does."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx
import psutil

from insforge_realtime.pg.demo import ALICE, ROOM
from support.databases import Cluster, wait_until
from support.servers import ANON_KEY, API_KEY, SECRET, Server, serving, token
from support.wire import WireClient

TOKEN = token(ALICE)
CHANNEL = f"chat:{ROOM}"
MARKER = "a-secret-of-the-payload"
"""What attackers put into their payloads, and must not be found in the log."""

_numbers = itertools.count(1)


@dataclass
class Site:
    """A server, its database, and a process id that must stay the same."""

    server: Server
    database: str
    pid: int

    async def sql(self, statement: str, *values: object) -> Any:
        connection = await asyncpg.connect(self.database)
        try:
            return await connection.fetchval(statement, *values)
        finally:
            await connection.close()

    def health(self) -> dict[str, Any]:
        feed: dict[str, Any] = httpx.get(f"{self.server.url}/api/health", trust_env=False).json()["feed"]
        return feed

    async def is_left_by_all_but(self, number: int, seconds: float = 20.0) -> None:
        await wait_until(lambda: self.health()["connections"] == number, seconds)

    def memory(self) -> float:
        """In MB."""
        rss: int = psutil.Process(self.pid).memory_info().rss
        return rss / 1e6

    def is_well(self) -> None:
        assert self.server.process.poll() is None
        assert self.server.process.pid == self.pid
        assert self.server.errors() == []


@contextlib.contextmanager
def site(newest: Cluster, **settings: object) -> Iterator[Site]:
    """A server for many attacks; at the end its log is searched for what must not be in it."""
    database = asyncio.run(newest.database("demo"))
    settings.setdefault("max_log_lines_per_second", 0)  # each attack looks for its own line
    with serving(database, **settings) as server:
        yield Site(server, database, server.process.pid)
    log = "\n".join(server.raw)
    assert server.errors() == []
    assert "Traceback" not in log
    for secret in (TOKEN, *TOKEN.split("."), API_KEY + '"', ANON_KEY + '"', SECRET, MARKER):
        assert secret not in log
    asyncio.run(newest.drop(database))


@contextlib.asynccontextmanager
async def witnessed(running: Site) -> AsyncIterator[WireClient]:
    """Somebody who subscribed before the attack, and after it still gets what is published in SQL."""
    async with WireClient(running.server.ws_url, auth={"token": TOKEN}) as witness:
        assert (await witness.subscribe("orders"))["ok"]
        yield witness
        number = next(_numbers)
        await running.sql("SELECT realtime.publish('orders', $1, '{}')", f"probe{number}")
        await witness.wait_for(f"probe{number}")
    running.is_well()
