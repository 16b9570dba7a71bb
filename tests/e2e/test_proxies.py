"""Whom the log names when a proxy stands in between: through every door, from proxies that are trusted and from others."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from support.databases import wait_until
from support.servers import AsgiServer, Server
from support.wire import Refused, WireClient

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"stderr": {"class": "logging.StreamHandler"}},
    "root": {"level": "INFO", "handlers": ["stderr"]},
}
"""That of an application that has one of its own, in which our lines turn up."""

CHAIN = "203.0.113.9, 198.51.100.7, 10.1.2.3"
"""Somebody at 198.51.100.7 claims to be 203.0.113.9; the proxy 10.1.2.3 wrote down who it was, and ours who that is."""
BELIEVED = "198.51.100.7"
ITSELF = "127.0.0.1"


def addresses(server: Server) -> list[str]:
    """Those in the log lines of all refusals, in order; in JSON or in the manner of the standard library."""
    refusals = [line for line in server.raw if re.search(r"(connect|handshake) refused", line)]
    return [found[1] for line in refusals if (found := re.search(r"""address['"]?[:=]\s*['"]([^'"]+)""", line))]


@pytest.fixture(params=["serve", "uvicorn"])
def start(request: pytest.FixtureRequest, demo: str, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """The fast door, and the WebSockets of an ASGI server."""
    servers: list[Server] = []
    configuration = tmp_path / "logging.json"
    configuration.write_text(json.dumps(LOGGING))
    command = ["-m", "uvicorn", "--factory", "insforge_realtime:create_app", "--port", "{port}"]
    command += ["--no-proxy-headers", "--log-config", str(configuration)]

    def start_server(**settings: Any) -> Server:
        uvicorn = request.param == "uvicorn"
        servers.append(AsgiServer(command, demo, **settings) if uvicorn else Server(demo, **settings))
        return servers[-1].start()

    yield start_server
    for server in servers:
        server.stop()


@pytest.mark.parametrize(
    ("trusted", "address"),
    [
        ("127.0.0.1, 10.0.0.0/8", BELIEVED),
        ("127.0.0.1", "10.1.2.3"),  # who is no proxy of ours is the client
        ("10.0.0.0/8", ITSELF),  # it says it for others, but who is it?
        ("", ITSELF),
    ],
    ids=["all proxies are trusted", "the last one is", "another one is", "none is"],
)
async def test_x_forwarded_for_is_believed_from_trusted_proxies_only(
    trusted: str, address: str, start: Callable[..., Server]
) -> None:
    server = start(trusted_proxies=trusted) if trusted else start()
    headers = {"X-Forwarded-For": CHAIN}
    # Polling, a WebSocket at its handshake, and one at CONNECT: the first two are refused by the door, the third by us.
    polling = httpx.get(f"{server.url}/socket.io/?EIO=3&transport=polling", headers=headers, trust_env=False)
    assert polling.status_code == 400
    with pytest.raises(InvalidStatus):
        await connect(server.ws_url.replace("EIO=4", "EIO=3"), additional_headers=headers, proxy=None)
    with pytest.raises(Refused):
        await WireClient(server.ws_url, {"token": "nonsense"}, additional_headers=headers).__aenter__()
    await wait_until(lambda: len(addresses(server)) == 3)
    assert addresses(server) == [address] * 3
