"""How many sockets each message was sent to, written back to its row a few times a second, many rows in one UPDATE.

The counts wait in memory; while the database is away they simply wait longer, and no count is forgotten until it has been
committed. All nodes add to the same column.
"""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import TYPE_CHECKING

import asyncpg

from insforge_realtime.pg.database import LOST, Database, keep
from insforge_realtime.pg.queries import query

if TYPE_CHECKING:
    from insforge_realtime.pg.database import Connection

INTERVAL_SECONDS = 0.25
CHUNK = 5000
STATEMENT_SECONDS = 8.0
"""PostgreSQL's own limit; we wait a little longer before we call the link dead."""


class Counters:
    """The audience counters of this node.

    Args:
        database: where they are written.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._audience: dict[int, int] = {}
        self._more = asyncio.Event()

    @property
    def waiting(self) -> int:
        """How many messages have a count that is not written yet."""
        return len(self._audience)

    def add(self, seq: int, audience: int) -> None:
        """Count that message `seq` was sent to `audience` more sockets."""
        if audience:
            self._audience[seq] = self._audience.get(seq, 0) + audience
            self._more.set()

    async def run(self) -> None:
        """Write counts until cancelled, then once more what is left."""
        try:
            await keep("counters", self._serve)
        finally:
            if self._audience:
                await self._last_words()

    async def _serve(self) -> None:
        async with self._database.connected("counters", statement_timeout=STATEMENT_SECONDS) as connection:
            if not self._database.pooled:  # there, the settings would be somebody else's next
                await connection.execute(query("plan_counts_by_index"), timeout=10)
            # A connection that dies while there is nothing to count is part of that outage, not the beginning of another.
            connection.add_termination_listener(lambda _: self._more.set())
            while True:
                await self._more.wait()
                await asyncio.sleep(INTERVAL_SECONDS)
                if connection.is_closed():
                    raise ConnectionError("the server closed the connection")
                while self._audience:
                    await self._write(connection)
                self._more.clear()

    async def _write(self, connection: Connection) -> None:
        """One UPDATE. Counts are taken out only once it is committed; more may have been added to them meanwhile."""
        chunk = dict(islice(self._audience.items(), CHUNK))
        await connection.execute(query("count_audience"), list(chunk), list(chunk.values()), timeout=10)
        for seq, written in chunk.items():
            left = self._audience[seq] - written
            if left:
                self._audience[seq] = left
            else:
                del self._audience[seq]

    async def _last_words(self) -> None:
        """On the way out, one try on a connection of its own: the old one may have been cut in mid-statement."""
        try:
            async with asyncio.timeout(3), self._database.connected("counters") as last:
                while self._audience:
                    await self._write(last)
        except (*LOST, asyncpg.PostgresError):
            pass
