"""The examples run as they are printed, and do what they say."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import httpx

from insforge_realtime.pg.demo import BOB, BOBS_ORDER
from support.scenario import ALL, Scenario, check, clients
from support.servers import AsgiServer, token
from support.wire import WireClient

EXAMPLE = Path(__file__).parents[2] / "examples" / "fastapi_app.py"


async def test_the_fastapi_example_tells_subscribers_what_its_route_has_done(demo: str) -> None:
    server = example(demo)
    try:
        async with WireClient(server.ws_url, {"token": token(BOB)}) as bob, httpx.AsyncClient() as browser:
            assert (await bob.subscribe(f"order:{BOBS_ORDER}"))["ok"]
            answer = await browser.post(f"{server.url}/orders/{BOBS_ORDER}/ship")
            [message] = await bob.wait_for("shipped")
            assert message["meta"]["messageId"] == answer.json()["messageId"]
            assert (message["status"], message["meta"]["senderType"]) == ("shipped", "system")
            # The fast door: a WebSocket of ASGI would be in uvicorn's log.
            assert not [line for line in server.raw if "WebSocket" in line]
    finally:
        server.stop()


async def test_the_common_scenario_passes_in_the_fastapi_example(demo: str) -> None:
    server = example(demo)

    async def restart() -> None:
        assert await asyncio.to_thread(server.stop) == -signal.SIGTERM
        await asyncio.to_thread(server.start)

    try:
        async with clients(server.url, *ALL) as made:
            check(await Scenario(demo, made).play(restart))
    finally:
        server.stop()
    assert not [line for line in server.raw if "Traceback" in line]


def example(database: str) -> AsgiServer:
    """The example, in a process, as `python examples/fastapi_app.py` starts it."""
    server = AsgiServer([str(EXAMPLE)], database, environment={"PORT": "{port}"})
    server.start()
    return server
