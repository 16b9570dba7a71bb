"""The demo that `insforge-realtime dev` loads: its users and rooms, and the traffic that gives one something to see."""

from __future__ import annotations

import asyncio
from itertools import count

from insforge_realtime.pg.pool import connected, keep
from insforge_realtime.pg.queries import query, sql_file

ALICE = "a11ce000-0000-4000-8000-000000000001"
BOB = "b0b00000-0000-4000-8000-000000000002"
ALICES_ORDER = "0de40000-0000-4000-8000-000000000001"
BOBS_ORDER = "0de40000-0000-4000-8000-000000000002"
CHANGE = f"UPDATE orders SET status = 'shipped' WHERE id = '{ALICES_ORDER}'"  # noqa: S608 - to be shown
ROOM = "c0000000-0000-4000-8000-000000000001"


async def load_demo(dsn: str) -> None:
    """Create the demo's tables, policies, trigger and rows, as far as they are not there."""
    async with connected(dsn, name="demo", pooled=True) as connection, connection.transaction():
        await connection.execute(sql_file("demo.sql"))


async def traffic(dsn: str) -> None:
    """Change an order every second, until cancelled."""
    numbers = count()

    async def session() -> None:
        async with connected(dsn, name="demo traffic", pooled=True) as connection:
            while True:
                await connection.execute(query("change_some_order"), next(numbers))
                await asyncio.sleep(1.0)

    await keep("demo traffic", session)
