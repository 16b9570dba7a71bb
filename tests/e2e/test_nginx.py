"""Behind nginx with the configuration that docs/deployment.md prints: TLS ends there, prefixes, several nodes, addresses."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from support.databases import wait_until
from support.nginx import documented, replaced, running
from support.scenario import ALL, Scenario, check, clients
from support.servers import Server
from support.tls import Certificate, certificate

Start = Callable[..., Server]

AT_A_PREFIX = (
    "socket.io-client, by itself",
    "socket.io-client, polling only",
    "socket.io-client, WebSocket only",
    "socket.io-client, late upgrade",
    "python-socketio, by itself",
)


@pytest.mark.parametrize(
    ("prefix", "names"),
    [
        ("", (*AT_A_PREFIX, "official SDK")),
        ("/realtime", AT_A_PREFIX),
        ("/stripped", AT_A_PREFIX),
    ],
    ids=["at the root", "under a prefix that nginx leaves on", "under a prefix that nginx takes off"],
)
async def test_the_common_scenario_passes(
    prefix: str, names: tuple[str, ...], demo: str, start: Start, tmp_path: Path
) -> None:
    settings = {"root_path": prefix} if prefix == "/realtime" else {}
    server, tls = start(demo, trusted_proxies="127.0.0.1", **settings), certificate(tmp_path)

    async def restart() -> None:
        assert await asyncio.to_thread(server.stop) == 0
        await asyncio.to_thread(server.start)

    configuration = replaced(documented()[0], **{"127.0.0.1:7130": f"127.0.0.1:{server.port}"})
    with running(tmp_path, tls, configuration) as nginx:
        async with clients(nginx.url + prefix, *names, trusted=tls.authority) as made:
            check(await Scenario(demo, made).play(restart))
    assert server.errors() == []


async def test_the_common_scenario_passes_on_several_nodes_with_a_cookie(
    demo: str, start: Start, tmp_path: Path
) -> None:
    nodes, tls = [start(demo), start(demo)], certificate(tmp_path)

    async def restart() -> None:
        print([node.feed()["connections"] for node in nodes], "connections")
        assert await asyncio.gather(*(asyncio.to_thread(node.stop) for node in nodes)) == [0, 0]
        # A client that came back while only the other node answers would lose its session as soon as its own node does.
        with nginx.held():
            await asyncio.gather(*(asyncio.to_thread(node.start) for node in nodes))

    main, upstream, header = documented()
    addresses = {f"10.0.0.{number}:7130": f"127.0.0.1:{node.port}" for number, node in enumerate(nodes, 1)}
    server = re.sub(r"upstream realtime {.*?\n}\n", "", main, flags=re.DOTALL)
    server = replaced(server, **{"    proxy_http_version 1.1;": f"    {header}    proxy_http_version 1.1;"})
    with running(tmp_path, tls, replaced(upstream, **addresses), server) as nginx:
        names = [name for name in ALL if name != "official SDK"]  # it has no cookies, and needs none
        by_name = nginx.url.replace("127.0.0.1", "localhost")  # aiohttp keeps no cookie of an address
        async with clients(by_name, *names, trusted=tls.authority, withCredentials=True) as made:
            check(await Scenario(demo, made).play(restart))
    for node in nodes:
        assert node.errors() == []


async def test_the_log_has_the_clients_address_and_not_the_proxys(demo: str, start: Start, tmp_path: Path) -> None:
    tls = certificate(tmp_path)
    believing, wary = start(demo, trusted_proxies="127.0.0.1"), start(demo)
    for server, shown in ((believing, "127.0.0.2"), (wary, "127.0.0.1")):
        configuration = replaced(documented()[0], **{"127.0.0.1:7130": f"127.0.0.1:{server.port}"})
        transport = httpx.HTTPTransport(
            verify=ssl.create_default_context(cafile=tls.authority), local_address="127.0.0.2"
        )
        with running(tmp_path, tls, configuration) as nginx, httpx.Client(transport=transport) as client:
            forged = {"X-Forwarded-For": "192.0.2.1"}
            answer = client.get(f"{nginx.url}/socket.io/?EIO=3&transport=polling", headers=forged)
        assert (answer.status_code, answer.json()["code"]) == (400, 5)
        assert server.wait_for_log("handshake refused")["address"] == shown


def through(**changes: str) -> str:
    """The documented configuration, with other values in it."""
    return replaced(documented()[0], **changes)


def from_address(address: str, tls: Certificate) -> httpx.Client:
    """A client with an address of its own."""
    context = ssl.create_default_context(cafile=tls.authority)
    return httpx.Client(transport=httpx.HTTPTransport(verify=context, local_address=address))


def test_health_is_found_at_the_root_and_under_both_prefixes(demo: str, start: Start, tmp_path: Path) -> None:
    server, tls = start(demo, root_path="/realtime", trusted_proxies="127.0.0.1"), certificate(tmp_path)
    with (
        running(tmp_path, tls, through(**{"127.0.0.1:7130": f"127.0.0.1:{server.port}"})) as nginx,
        from_address("127.0.0.1", tls) as client,
    ):
        for prefix in ("", "/realtime", "/stripped"):
            answer = client.get(f"{nginx.url}{prefix}/api/health")
            assert (answer.status_code, answer.json()["status"]) == (200, "ok")


async def test_an_address_has_so_many_connections_at_a_time_and_another_has_its_own(
    demo: str, start: Start, tmp_path: Path
) -> None:
    server, tls = start(demo, trusted_proxies="127.0.0.1"), certificate(tmp_path)
    configuration = through(
        **{"127.0.0.1:7130": f"127.0.0.1:{server.port}", "realtime_connections 500": "realtime_connections 3"}
    )
    context = ssl.create_default_context(cafile=tls.authority)
    with running(tmp_path, tls, configuration) as nginx:
        url = nginx.url.replace("https", "wss") + "/socket.io/?EIO=4&transport=websocket"
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(3):
                await stack.enter_async_context(connect(url, ssl=context, proxy=None))
            with pytest.raises(InvalidStatus) as error:
                await connect(url, ssl=context, proxy=None)
            assert error.value.response.status_code == 429
            await stack.enter_async_context(connect(url, ssl=context, proxy=None, local_addr=("127.0.0.2", 0)))
            assert server.feed()["connections"] == 4
        await wait_until(lambda: server.feed()["connections"] == 0)
        async with connect(url, ssl=context, proxy=None) as websocket:
            assert str(await websocket.recv()).startswith("0{")


def test_an_address_has_so_many_requests_at_a_time_and_another_has_its_own(
    demo: str, start: Start, tmp_path: Path
) -> None:
    server, tls = start(demo, trusted_proxies="127.0.0.1"), certificate(tmp_path)
    configuration = through(
        **{"127.0.0.1:7130": f"127.0.0.1:{server.port}", "rate=100r/s": "rate=1r/m", "burst=1000": "burst=20"}
    )
    with running(tmp_path, tls, configuration) as nginx:
        for address in ("127.0.0.1", "127.0.0.2"):
            with from_address(address, tls) as client:
                answers = [client.get(f"{nginx.url}/api/health").status_code for _ in range(23)]
            assert answers == [200] * 21 + [429] * 2
