"""The demo that `insforge-realtime dev` loads: its users and rooms, and the traffic that gives one something to see.

What lives here: the loading, which never touches what an application has made under one of the demo's names. Where the
demo goes at all is cli/dev.py's decision.
"""

from __future__ import annotations

import asyncio
from itertools import count

from insforge_realtime.errors import DatabaseError
from insforge_realtime.pg.database import LINK_ERRORS, Database, describe, keep
from insforge_realtime.pg.queries import query, sql_file

ALICE = "a11ce000-0000-4000-8000-000000000001"
BOB = "b0b00000-0000-4000-8000-000000000002"
ALICES_ORDER = "0de40000-0000-4000-8000-000000000001"
BOBS_ORDER = "0de40000-0000-4000-8000-000000000002"
CHANGE = f"UPDATE orders SET status = 'shipped' WHERE id = '{ALICES_ORDER}'"  # noqa: S608 - to be shown
ROOM = "c0000000-0000-4000-8000-000000000001"


OBJECTS = 12
"""How many things the demo makes that have a name: tables, a function, policies, channels."""


async def load_demo(database: Database, *, unmarked: bool = False) -> list[str]:
    """Create the demo's tables, policies, trigger and rows, as far as they are not there.

    Args:
        database: where to; migrated.
        unmarked: take a whole demo for one that an older version made, which did not mark it.

    Returns:
        what stands in its way, since the demo did not make it; then nothing is done.

    Raises:
        DatabaseError: the database refuses.
    """
    try:
        async with database.connected("demo", pooled=True) as connection, connection.transaction():
            found = await connection.fetch(query("demo_objects"))
            strangers = [row["what"] for row in found if not row["ours"]]
            if strangers and not (unmarked and len(strangers) == OBJECTS):
                return strangers
            await connection.execute(sql_file("demo.sql"))
            return []
    except LINK_ERRORS as error:
        raise DatabaseError(f"the demo cannot be loaded: {describe(error)}") from error


async def traffic(database: Database) -> None:
    """Change an order every second, until cancelled."""
    numbers = count()

    async def serve() -> None:
        async with database.connected("demo traffic", pooled=True) as connection:
            while True:
                await connection.execute(query("change_some_order"), next(numbers))
                await asyncio.sleep(1.0)

    await keep("demo traffic", serve)
