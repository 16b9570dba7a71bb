"""Our Python client in the test's own process, with what happens to it written down."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import asyncpg
import httpx

from insforge_realtime.client import ErrorInfo, RealtimeClient
from support.databases import wait_until
from support.servers import Server

RESERVED = ("connect", "connect_error", "disconnect", "error")


class Watch:
    """The events of a client, in order: the four reserved ones, and those that are named."""

    def __init__(self, client: RealtimeClient, *events: str) -> None:
        self.events: list[tuple[str, Any]] = []
        for event in (*RESERVED, *events):
            client.on(event, lambda data=None, event=event: self.events.append((event, data)))

    def named(self, event: str) -> list[Any]:
        """The data of every event of this name so far."""
        return [data for name, data in self.events if name == event]

    @property
    def errors(self) -> list[tuple[str, str | None]]:
        """Code and channel of every `error`."""
        infos: list[ErrorInfo] = self.named("error")
        return [(info.code, info.channel) for info in infos]

    async def wait_for(self, event: str, number: int = 1) -> list[Any]:
        """Until so many events of this name have come."""
        await wait_until(lambda: len(self.named(event)) >= number, 30)
        return self.named(event)


async def until_subscribed(client: RealtimeClient, *channels: str) -> None:
    """Until these are the confirmed channels."""
    await wait_until(lambda: sorted(client.get_subscribed_channels()) == sorted(channels), 30)


async def run_sql(url: str, *statements: str) -> None:
    """Run statements as the superuser."""
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def say(url: str, channel: str, event: str = "said", payload: str = "{}", times: int = 1) -> None:
    """Publish to a channel, as a trigger would."""
    await run_sql(url, f"SELECT realtime.publish('{channel}', '{event}', '{payload}') FROM generate_series(1, {times})")


async def load(server: Server) -> tuple[int, int]:
    """How many connections and how many channels the server has."""
    async with httpx.AsyncClient(trust_env=False) as http:
        feed = (await http.get(f"{server.url}/api/health")).json()["feed"]
    return feed["connections"], feed["channels"]


async def until_load(server: Server, connections: int, channels: int) -> None:
    """Until the server has so many connections and channels."""
    deadline = time.monotonic() + 20
    while (found := await load(server)) != (connections, channels):
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.02)
