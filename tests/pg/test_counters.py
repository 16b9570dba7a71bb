"""The audience counters: batched, added up over nodes, and not forgotten while the database is away."""

from __future__ import annotations

import asyncio

import asyncpg

from insforge_realtime.pg.counters import Counters
from insforge_realtime.pg.database import Database
from insforge_realtime.pg.migrate import migrate
from support.databases import free_port, running_cluster, wait_until


async def publish(dsn: str, number: int) -> list[int]:
    """Publish so many messages, and return their seq."""
    connection = await asyncpg.connect(dsn)
    await connection.execute("INSERT INTO realtime.channels (pattern) VALUES ('room:%')")
    await connection.execute("SELECT realtime.publish('room:1', 'e', '{}') FROM generate_series(1, $1)", number)
    rows = await connection.fetch("SELECT seq FROM realtime.messages ORDER BY seq")
    connection.terminate()
    return [row["seq"] for row in rows]


async def audiences(dsn: str) -> list[int]:
    connection = await asyncpg.connect(dsn)
    rows = await connection.fetch("SELECT ws_audience_count FROM realtime.messages ORDER BY seq")
    connection.terminate()
    return [row["ws_audience_count"] for row in rows]


async def test_two_nodes_add_up(database: str) -> None:
    seqs = await publish(database, 6000)
    nodes = [Counters(Database(database)), Counters(Database(database))]
    tasks = [asyncio.create_task(node.run()) for node in nodes]
    for node in nodes:
        for seq in seqs:
            node.add(seq, 2)
            node.add(seq, 1)
    await wait_until(lambda: all(node.waiting == 0 for node in nodes))
    assert await audiences(database) == [6] * 6000
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_what_is_left_at_the_end_is_written(database: str) -> None:
    [seq] = await publish(database, 1)
    counters = Counters(Database(database))
    task = asyncio.create_task(counters.run())
    await asyncio.sleep(0)
    counters.add(seq, 5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await audiences(database) == [5]


async def test_counts_wait_while_the_database_is_away() -> None:
    with running_cluster(port=free_port(), synchronous_commit="on") as cluster:
        await migrate(Database(cluster.dsn))
        [seq] = await publish(cluster.dsn, 1)
        counters = Counters(Database(cluster.dsn))
        task = asyncio.create_task(counters.run())
        cluster.stop()
        counters.add(seq, 3)
        cluster.start()
        await wait_until(lambda: counters.waiting == 0)
        assert await audiences(cluster.dsn) == [3]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
