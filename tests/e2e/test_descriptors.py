"""A server that has used up its file descriptors: who is refused, who waits, and that all goes on once there are some."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections import Counter
from collections.abc import Callable, Iterator

import httpx
import psutil
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from support.databases import wait_until
from support.receivers import LOOPBACK, Hooked, receiving
from support.servers import API_KEY, Server
from support.wire import WireClient

Start = Callable[..., Server]


@contextlib.contextmanager
def soft_limit(number: int) -> Iterator[int]:
    """What is started in the block begins with this limit; yields the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))
    try:
        yield hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_server_raises_its_limit_to_what_it_may_be(db: Hooked, start: Start) -> None:
    with soft_limit(512) as hard:
        server = start(db.url)
    assert psutil.Process(server.process.pid).rlimit(psutil.RLIMIT_NOFILE) == (hard, hard)
    assert server.wait_for_log("serving")["descriptors"] == hard


async def use_up(server: Server, free: int) -> list[ClientConnection]:
    """Give it so few more, and let clients have them."""
    process = psutil.Process(server.process.pid)
    most = process.num_fds() + free
    process.rlimit(psutil.RLIMIT_NOFILE, (most, process.rlimit(psutil.RLIMIT_NOFILE)[1]))
    clients: list[ClientConnection] = []
    while True:
        try:
            clients.append(await connect(server.ws_url, compression=None, proxy=None, ping_interval=None))
        except (OSError, EOFError, TimeoutError, WebSocketException):
            return clients


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_webhooks_wait_for_descriptors_and_none_loses_an_attempt(db: Hooked, start: Start, host: str) -> None:
    async with receiving(host=host) as receiver:
        await db.channel("order:%", receiver.url)
        server = start(db.url, webhook_allow_networks=LOOPBACK, webhook_retry_delays="0,0", webhook_breaker_failures=2)
        clients = await use_up(server, 20)
        await db.publish_many("order:1", 200)
        await asyncio.to_thread(server.wait_for_log, "webhooks wait, since this server lacks resources")
        await asyncio.to_thread(server.wait_for_log, "out of file descriptors")
        rows = await db.rows()
        assert {(row["state"], row["attempts"]) for row in rows if row["state"] != "delivered"} == {("pending", 0)}
        await asyncio.gather(*(client.close() for client in clients))
        rows = await db.all_over()
        assert {(row["state"], row["attempts"], len(row["history"])) for row in rows} == {("delivered", 1, 1)}
        assert len(receiver.hits) == 200
    said = Counter(line["event"] for line in server.lines)
    assert said["webhooks wait, since this server lacks resources"] == 1
    assert said["out of file descriptors"] == 1
    assert said["webhook host left alone"] == 0


async def test_the_doors_open_again_and_what_was_connected_stays(db: Hooked, start: Start) -> None:
    await db.channel("order:%")
    server = start(db.url)
    async with WireClient(server.ws_url, {"apiKey": API_KEY}) as honest:
        assert (await honest.subscribe("order:1"))["ok"] is True
        clients = await use_up(server, 20)
        await asyncio.to_thread(server.wait_for_log, "out of file descriptors")
        process = psutil.Process(server.process.pid)
        before = sum(process.cpu_times()[:2])
        for number in range(50):  # shut, and no work beyond that
            async with httpx.AsyncClient(trust_env=False) as http:
                with contextlib.suppress(httpx.HTTPError):
                    await http.get(f"{server.url}/api/health", timeout=1)
            await db.publish("order:1", "e", f'{{"n": {number}}}')
        await honest.wait_for("e", 50)
        assert sum(process.cpu_times()[:2]) - before < 2
        await asyncio.gather(*(client.close() for client in clients))
        await asyncio.to_thread(server.wait_for_log, "file descriptors are free again")
        async with WireClient(server.ws_url, {"apiKey": API_KEY}) as another:
            assert (await another.subscribe("order:1"))["ok"] is True
    await wait_until(lambda: server.feed()["connections"] == 0)
    assert Counter(line["event"] for line in server.lines)["out of file descriptors"] == 1
