"""What the rows compare: our server and its peers, each by its name in the results, on databases of the same PostgreSQL."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.database import Database, database
from benchmarks.measuring import INCUMBENT, OURS, Options
from benchmarks.peers import launch
from benchmarks.server import Server, server


@dataclass(frozen=True)
class Served:
    """A server with a database."""

    server: Server
    database: Database


@contextlib.asynccontextmanager
async def ours_and_incumbent(
    folder: Path, options: Options, *, tables: str = "", **settings: object
) -> AsyncIterator[dict[str, Served]]:
    """Run both for the length of a block, by name.

    Args:
        folder: where their files go.
        options: which PostgreSQL.
        tables: SQL for both databases, before anything connects.
        settings: of our server.
    """
    async with contextlib.AsyncExitStack() as stack:
        there = await stack.enter_async_context(database(folder, options.postgres))
        theirs = await launch.incumbent_database(there, folder)
        if tables:
            await there.execute(tables)
            await theirs.execute(tables)
        ours = await stack.enter_async_context(server(folder, there.url, **settings))
        other = await stack.enter_async_context(launch.incumbent(folder, theirs.url))
        yield {OURS: Served(ours, there), INCUMBENT: Served(other, theirs)}
