"""Webhooks from end to end: a real server, a real database, real receivers on loopback."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable

import pytest

from support.databases import Cluster, wait_until
from support.receivers import LOOPBACK, Hooked, hooked, receiving
from support.servers import Server

Start = Callable[..., Server]


@pytest.fixture
async def db(newest: Cluster) -> AsyncIterator[Hooked]:
    url = await newest.database()
    async with hooked(url) as found:
        yield found
    await newest.drop(url)


@pytest.fixture
def begin(db: Hooked, start: Start) -> Callable[..., Server]:
    """Start a server that may reach loopback."""

    def begin_server(**settings: object) -> Server:
        return start(db.url, webhook_allow_networks=LOOPBACK, log_level="debug", **settings)

    return begin_server


async def test_a_message_is_posted_as_the_specification_says(db: Hooked, begin: Start) -> None:
    async with receiving() as receiver:
        await db.channel("order:%", receiver.url)
        begin()
        payload = {"id": 1, "text": "héllo", "nested": {"a": [1, None]}, "meta": "the payload's own"}
        message = await db.publish("order:1", "order_created", json.dumps(payload))
        row = await db.the_row()
        [hit] = receiver.hits
        assert json.loads(hit.body) == payload
        assert hit.path == "/hook"
        assert hit.headers["Content-Type"] == "application/json"
        assert hit.headers["X-InsForge-Event"] == "order_created"
        assert hit.headers["X-InsForge-Channel"] == "order:1"
        assert hit.headers["X-InsForge-Message-Id"] == message
        assert hit.headers["User-Agent"].startswith("InsForge-Realtime/")
        assert not any(name.lower().startswith(("webhook-", "cookie", "authorization")) for name in hit.headers)
        assert (row["state"], row["attempts"], row["last_status_code"]) == ("delivered", 1, 200)
        assert row["last_response"] == "thank you"
        [attempt] = row["history"]
        assert attempt["status"] == 200
        assert await db.counts() == [(1, 1)]
