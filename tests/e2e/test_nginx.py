"""Behind nginx with the configuration that docs/deployment.md prints: TLS ends there, prefixes, several nodes, addresses."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from support.nginx import documented, replaced, running
from support.scenario import ALL, Scenario, check, clients
from support.servers import Server
from support.tls import certificate

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
