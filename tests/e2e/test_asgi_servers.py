"""`create_app` behind other people's servers: the same behaviour over every transport, and how each of them ends."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from insforge_realtime.pg.demo import BOB
from support.databases import wait_until
from support.raw import RawClient
from support.scenario import Scenario, check, clients, connected
from support.servers import AsgiServer, token
from support.wire import WireClient

FACTORY = "insforge_realtime:create_app"


@dataclass(frozen=True)
class Kind:
    """An ASGI server.

    Args:
        command: what starts it, as docs/deployment.md says, but with less patience at the end.
        status: what it ends with after SIGTERM.
    """

    command: tuple[str, ...]
    status: int


KINDS = {
    "uvicorn": Kind(
        ("-m", "uvicorn", "--factory", FACTORY, "--port", "{port}", "--timeout-graceful-shutdown", "2"),
        -signal.SIGTERM,
    ),
    "uvicorn with wsproto": Kind(
        (
            *("-m", "uvicorn", "--factory", FACTORY, "--port", "{port}", "--timeout-graceful-shutdown", "2"),
            *("--ws", "wsproto", "--http", "h11"),
        ),
        -signal.SIGTERM,
    ),
    "hypercorn": Kind(("-m", "hypercorn", f"{FACTORY}()", "--bind", "127.0.0.1:{port}"), 0),
    "granian": Kind(
        (
            "-m",
            "granian",
            "--interface",
            "asgi",
            "--factory",
            FACTORY,
            "--port",
            "{port}",
            "--workers-kill-timeout",
            "2",
        ),
        0,
    ),
}
CLIENTS = (
    "socket.io-client, by itself",
    "socket.io-client, polling only",
    "socket.io-client, WebSocket only",
    "socket.io-client, late upgrade",
    "python-socketio, by itself",
    "official SDK",
)


@pytest.fixture
def start(demo: str) -> Iterator[Callable[..., AsgiServer]]:
    """`start(kind)`: a process that is stopped at the end."""
    servers: list[AsgiServer] = []

    def start_server(kind: str, **settings: Any) -> AsgiServer:
        servers.append(AsgiServer(KINDS[kind].command, demo, **settings))
        servers[-1].start()
        return servers[-1]

    yield start_server
    for server in servers:
        server.stop()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "uvicorn with wsproto"])
async def test_the_common_scenario_passes_under(kind: str, demo: str, start: Callable[..., AsgiServer]) -> None:
    server = start(kind)

    async def restart() -> None:
        began = time.monotonic()
        status = await asyncio.to_thread(server.stop)
        print(f"{kind}: ended with {status} after {time.monotonic() - began:.1f} s, with clients connected")
        assert status == KINDS[kind].status
        await asyncio.to_thread(server.start)

    async with clients(server.url, *CLIENTS) as made:
        check(await Scenario(demo, made).play(restart))
    assert not [line for line in server.raw if "insforge_realtime/" in line]  # of a traceback


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_that_stops_reading_is_cut_off_under(
    kind: str, demo: str, start: Callable[..., AsgiServer]
) -> None:
    server = start(kind, max_buffered_bytes=1_000_000)
    deaf = await RawClient.connect(server.ws_url, {"token": token(BOB)})
    deaf.emit("realtime:subscribe", {"channel": "orders"}, 1)
    await deaf.until(b"431[")
    deaf.transport.pause_reading()
    async with WireClient(server.ws_url, {"token": token(BOB)}) as witness, connected(demo) as sql:
        assert (await witness.subscribe("orders"))["ok"]
        published = 0
        while server.feed()["slowConsumers"] == 0:
            assert published < 500, "100 MB wait for somebody who does not read"
            published += 1
            await sql.execute(
                "SELECT realtime.publish('orders', 'large', jsonb_build_object('n', $1::int, 'text', repeat('x', 200000)))",
                published,
            )
            large = await witness.wait_for("large", published)
        assert [message["n"] for message in large] == list(range(1, published + 1))
        print(f"{kind}: cut off after {published * 0.2:.1f} MB")
        await wait_until(lambda: server.feed()["connections"] == 1)
    deaf.close()
