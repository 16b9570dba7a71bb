"""Our TypeScript SDK beside the official one, and how it is loaded.

Method by method: the table of cases that drives every SDK. When things break: test_sdk_js_faults.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from insforge_realtime.pg.demo import BOB, BOBS_ORDER
from support.node import Script
from support.servers import Server, token

Start = Callable[..., Server]

DIST = Path(__file__).parents[2] / "clients" / "js" / "dist"


async def transcript(demo: str, server: Server, module: str) -> list[Any]:
    """What the documented example sees, from beginning to end."""
    seen: list[Any] = []
    async with Script("example.mjs", module, server.url, token(BOB), BOBS_ORDER) as script:

        async def until(what: str, number: int = 1) -> None:
            while [line[0] for line in seen].count(what) < number:
                seen.append(await script.line())

        await until("ready")
        await until("RT Error:")
        connection = await asyncpg.connect(demo)
        for number, status in enumerate(("paid", "shipped"), 1):
            await connection.execute("UPDATE orders SET status = $1", status)
            await until("Message ID:", number)
        rows = await connection.fetch(
            "SELECT id FROM realtime.messages WHERE channel_name = $1 ORDER BY seq DESC LIMIT 2", f"order:{BOBS_ORDER}"
        )
        await connection.close()
        ids = [line[1] for line in seen if line[0] == "Message ID:"]
        assert ids == [str(row["id"]) for row in reversed(rows)]
        assert script.process.stdin is not None
        script.process.stdin.close()
        seen += await script.lines()
    return [line for line in seen if line[0] != "Message ID:"]


async def test_the_official_sdk_s_example_sees_the_same_with_ours(demo: str, start: Start) -> None:
    server = start(demo)
    official = await transcript(demo, server, "@insforge/sdk")
    assert [line[0] for line in official] == [
        *("ready", "RT Error:", "Order updated:", "Order updated:", "Disconnected:", "clean")
    ]
    assert await transcript(demo, server, str(DIST / "index.js")) == official
    assert await transcript(demo, server, str(DIST / "index.cjs")) == official


@pytest.mark.parametrize("how", ["import", "require"])
async def test_socket_io_is_loaded_when_it_is_first_needed(demo: str, start: Start, how: str) -> None:
    server = start(demo)
    async with Script("lazy.mjs", how, server.url, token(BOB)) as script:
        assert await script.lines() == [{"created": False}, {"connected": True}]
