"""Which addresses `serve` answers on, and what it says of them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import httpx
import pytest

from support.databases import free_port
from support.servers import Server

Start = Callable[..., Server]


@pytest.mark.parametrize(
    ("host", "reached", "address"),
    [
        ("127.0.0.1", ["127.0.0.1"], "127.0.0.1:{0}"),
        ("0.0.0.0", ["127.0.0.1"], "0.0.0.0:{0}"),
        ("::", ["127.0.0.1", "[::1]"], "0.0.0.0:{0}, [::]:{0}"),
        ("localhost", ["127.0.0.1", "[::1]"], "127.0.0.1:{0}, [::1]:{0}"),
    ],
)
async def test_a_server_answers_on_the_addresses_that_it_says(
    demo: str, start: Start, host: str, reached: list[str], address: str
) -> None:
    server = start(demo, host=host)
    assert server.wait_for_log("serving")["address"] == address.format(server.port)
    found = []
    async with httpx.AsyncClient(trust_env=False) as http:
        for place in ("127.0.0.1", "[::1]"):
            try:
                found.append((place, (await http.get(f"http://{place}:{server.port}/api/health")).status_code))
            except httpx.ConnectError:
                continue
    assert found == [(place, 200) for place in reached]


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "no-such-host.invalid"])
def test_an_address_that_cannot_be_listened_on_is_one_line_and_status_2(host: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "insforge_realtime", "serve", "--host", host, "--port", str(free_port())],
        env={"DATABASE_URL": "postgresql://127.0.0.1:1/none", "REALTIME_JWT_SECRET": "x" * 32},
        capture_output=True,
        text=True,
        cwd="/",
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("error: cannot listen on ")
