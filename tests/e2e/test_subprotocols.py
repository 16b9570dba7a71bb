"""Clients that offer subprotocols, through either door. Those of Node and browsers give up where none is chosen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from insforge_realtime.pg.demo import ALICE
from support.browser import MISSING, Browser, static_files
from support.node import Script
from support.servers import AsgiServer, Server, token

FACTORY = "insforge_realtime:create_app"
SERVERS = {
    "serve": (),
    "uvicorn": ("-m", "uvicorn", "--factory", FACTORY, "--port", "{port}"),
    "hypercorn": ("-m", "hypercorn", f"{FACTORY}()", "--bind", "127.0.0.1:{port}"),
    "granian": ("-m", "granian", "--interface", "asgi", "--factory", FACTORY, "--port", "{port}"),
}


@pytest.mark.parametrize("name", SERVERS)
async def test_nodes_client_gets_the_first_that_it_offers_under(name: str, demo: str) -> None:
    server = AsgiServer(SERVERS[name], demo) if SERVERS[name] else Server(demo)
    server.start()
    try:
        async with Script("subprotocols.mjs", server.url, token(ALICE)) as node:
            assert await node.lines() == [
                {"protocols": ["app.v2", "app.v1"], "protocol": "app.v2", "error": None},
                {"protocols": ["app.v1"], "protocol": "app.v1", "error": None},
                {"protocols": [], "protocol": "", "error": None},
            ]
        for offer in ("a b", "a, a"):
            with pytest.raises(InvalidStatus) as error:
                await connect(server.ws_url, additional_headers={"Sec-WebSocket-Protocol": offer}, proxy=None)
            # Who has no way to say more says 403.
            assert error.value.response.status_code in ((400,) if name in ("serve", "uvicorn") else (400, 403))
    finally:
        server.stop()


PAGE = """<!doctype html><p id="said"></p><script>
const socket = new WebSocket(%s, ['app.v2', 'app.v1'])
socket.onopen = () => (said.textContent = 'open: ' + socket.protocol)
socket.onerror = () => (said.textContent = 'failed')
</script>"""


@pytest.mark.skipif(MISSING, reason="Chromium is not installed")
async def test_a_browser_gets_the_first_that_it_offers(demo: str, start: Callable[..., Server], tmp_path: Path) -> None:
    server = start(demo)
    (tmp_path / "index.html").write_text(PAGE % json.dumps(server.ws_url))
    with static_files(tmp_path) as url:
        async with Browser() as browser:
            page = await browser.page(url)
            await page.see("#said", "open: app.v2")
