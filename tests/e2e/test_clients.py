"""Every Socket.IO client that people use, with the settings that they use, through one scenario (support/scenario.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from support.scenario import ALL, Scenario, check, clients
from support.servers import Server

Start = Callable[..., Server]


async def test_every_client_passes_the_common_scenario(demo: str, start: Start) -> None:
    server = start(demo)

    async def restart() -> None:
        assert await asyncio.to_thread(server.stop) == 0
        await asyncio.to_thread(server.start)

    async with clients(server.url, *ALL) as made:
        check(await Scenario(demo, made).play(restart))
    assert server.errors() == []
