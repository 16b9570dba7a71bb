"""The coalescer: many callers, few connections; what is slow, lost or frozen costs only those it must."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import psutil
import pytest

from insforge_realtime.errors import InternalError, InvalidRequest, RequestError, Unavailable
from insforge_realtime.metrics import RoundTrips
from insforge_realtime.pg import publishers
from insforge_realtime.pg.coalescer import Coalescer
from insforge_realtime.pg.database import Database
from insforge_realtime.pg.publishers import SystemPublisher
from support.databases import running_cluster, wait_until

CUT = """SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE application_name = 'insforge-realtime test' AND datname = current_database()"""

Sleepy = Coalescer[float, str]


class Bench:
    """A coalescer whose requests are seconds for PostgreSQL to sleep, and the batches it was asked for."""

    def __init__(self, dsn: str, *, pooled: bool = False, **options: Any) -> None:
        self.batches: list[list[float]] = []
        database = Database(dsn, listen_url=dsn if pooled else None)
        self.coalescer: Sleepy = Coalescer("test", database, self._ask, **options)

    async def _ask(self, connection: Any, requests: Sequence[float]) -> list[str | RequestError]:
        self.batches.append(list(requests))
        if -1 in requests:
            raise ValueError("a bug")
        await connection.execute("SELECT pg_sleep($1)", max(requests))
        return [InvalidRequest() if request == 0.007 else f"slept {request}" for request in requests]


@contextlib.asynccontextmanager
async def running(bench: Bench) -> AsyncIterator[Bench]:
    task = asyncio.create_task(bench.coalescer.run())
    try:
        await wait_until(lambda: bench.coalescer.live == bench.coalescer.links)
        yield bench
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("pooled", [False, True])
async def test_callers_that_come_while_a_link_is_busy_share_the_next_round_trip(database: str, pooled: bool) -> None:
    trips = RoundTrips()
    async with running(Bench(database, links=1, pooled=pooled, round_trips=trips)) as bench:
        first = asyncio.create_task(bench.coalescer.submit(0.05))
        await wait_until(lambda: bench.batches)
        others = [asyncio.create_task(bench.coalescer.submit(0.001 * number)) for number in range(10)]
        answers = await asyncio.gather(first, *others, return_exceptions=True)
        assert len(bench.batches) == 2
        assert (trips.sizes.count, trips.sizes.sum) == (2, 11)
        assert trips.microseconds.sum > 50_000
        assert answers[0] == "slept 0.05"
        assert isinstance(answers[8], InvalidRequest)
        assert answers[9] == "slept 0.008"


async def test_without_a_connection_the_answer_is_unavailable_at_once() -> None:
    bench = Bench("postgresql://nobody@127.0.0.1:1/nothing")
    task = asyncio.create_task(bench.coalescer.run())
    with pytest.raises(Unavailable):
        await bench.coalescer.submit(0)
    task.cancel()


async def test_a_link_that_is_cut_while_idle_is_replaced_before_anybody_asks(database: str) -> None:
    async with running(Bench(database, links=2)) as bench:
        admin = await asyncpg.connect(database)
        assert await admin.fetchval(CUT) == 2
        await wait_until(lambda: bench.coalescer.live < 2)
        await wait_until(lambda: bench.coalescer.live == 2)
        assert await bench.coalescer.submit(0) == "slept 0"
        admin.terminate()


async def test_a_link_that_is_cut_in_mid_request_answers_unavailable(database: str) -> None:
    async with running(Bench(database, links=1, limit=30)) as bench:
        asking = asyncio.create_task(bench.coalescer.submit(0.4))
        await wait_until(lambda: bench.batches)
        admin = await asyncpg.connect(database)
        await admin.fetchval(CUT)
        with pytest.raises(Unavailable):
            await asking
        admin.terminate()


async def test_being_cancelled_while_a_dead_link_is_closed_is_not_forgotten(database: str) -> None:
    """It was: the cancellation was taken for a failure to close, and the link was opened again, for ever."""
    for delay in range(20):
        async with running(Bench(database, links=1)) as bench:
            admin = await asyncpg.connect(database)
            await admin.fetchval(CUT)
            admin.terminate()
            for _ in range(delay):
                await asyncio.sleep(0)
            assert bench.coalescer.live <= 1


async def test_a_request_that_is_too_slow_fails_alone(database: str) -> None:
    async with running(Bench(database, links=1, limit=1)) as bench:
        busy = asyncio.create_task(bench.coalescer.submit(0.02))
        await wait_until(lambda: bench.batches)
        slow = asyncio.create_task(bench.coalescer.submit(60))
        quick = [asyncio.create_task(bench.coalescer.submit(0)) for _ in range(20)]
        assert set(await asyncio.gather(*quick)) == {"slept 0"}
        assert not slow.done(), "the quick ones had to wait for the slow one's end"
        with pytest.raises(InternalError, match="too long"):
            await slow
        await busy


async def test_a_pooled_link_that_freezes_in_the_middle_of_a_request_is_given_up() -> None:
    with running_cluster() as cluster:
        async with running(Bench(cluster.dsn, links=1, limit=60, pooled=True)) as bench:
            assert cluster.pid is not None
            asking = asyncio.create_task(bench.coalescer.submit(0.4))
            await wait_until(lambda: bench.batches)
            processes = [cluster.pid, *(child.pid for child in psutil.Process(cluster.pid).children(recursive=True))]
            for pid in processes:
                os.kill(pid, signal.SIGSTOP)
            try:
                async with asyncio.timeout(15):
                    with pytest.raises(Unavailable):
                        await asking
            finally:
                for pid in reversed(processes):
                    os.kill(pid, signal.SIGCONT)


async def test_who_must_be_asked_alone_is_not_starved_by_a_steady_stream_of_others(database: str) -> None:
    async with running(Bench(database, links=1, limit=0.4)) as bench:
        busy = asyncio.create_task(bench.coalescer.submit(0.02))
        await wait_until(lambda: bench.batches)
        slow = asyncio.create_task(bench.coalescer.submit(60))
        alone = asyncio.create_task(bench.coalescer.submit(0.001))
        streaming = True

        async def stream() -> None:
            while streaming:
                await bench.coalescer.submit(0.002)

        streams = [asyncio.create_task(stream()) for _ in range(3)]
        assert await asyncio.wait_for(alone, 20) == "slept 0.001"
        streaming = False
        await asyncio.gather(*streams)
        slow.cancel()
        await busy


async def test_a_slow_request_within_the_limit_gets_its_answer(database: str) -> None:
    async with running(Bench(database, links=2, limit=5)) as bench:
        assert await bench.coalescer.submit(0.8) == "slept 0.8"


async def test_a_bug_in_a_batch_costs_one_request_not_the_batch(database: str) -> None:
    async with running(Bench(database, links=1)) as bench:
        busy = asyncio.create_task(bench.coalescer.submit(0.02))
        await wait_until(lambda: bench.batches)
        answers = await asyncio.gather(
            *(bench.coalescer.submit(request) for request in (0, -1, 0)), return_exceptions=True
        )
        assert [type(answer) for answer in answers] == [str, InternalError, str]
        assert await busy == "slept 0.02"


@pytest.mark.parametrize("pooled", [False, True])
async def test_a_frozen_database_is_unavailable_soon_and_works_again_when_it_thaws(pooled: bool) -> None:
    with running_cluster() as cluster:
        async with (
            running(Bench(cluster.dsn, links=1, limit=0.3, pooled=pooled)) as bench,
            Database(cluster.dsn).connected("test", pooled=pooled) as other,
        ):
            assert cluster.pid is not None
            processes = [cluster.pid, *(child.pid for child in psutil.Process(cluster.pid).children(recursive=True))]
            for pid in processes:
                os.kill(pid, signal.SIGSTOP)
            began = time.monotonic()
            with pytest.raises(Unavailable):
                await bench.coalescer.submit(0)
            with pytest.raises(TimeoutError):
                await other.fetchval("SELECT 1", timeout=0.5)
            other.terminate()
            assert time.monotonic() - began < 10
            for pid in reversed(processes):
                os.kill(pid, signal.SIGCONT)
            await wait_until(lambda: bench.coalescer.live == 1)
            assert await bench.coalescer.submit(0) == "slept 0"


async def test_a_publish_of_the_system_that_takes_too_long_is_not_blamed_on_a_policy(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishers, "SYSTEM_LIMIT_SECONDS", 0.2)
    publisher = SystemPublisher(Database(database))
    task = asyncio.create_task(publisher.coalescer.run())
    async with Database(database).connected("test") as connection:
        await wait_until(lambda: publisher.coalescer.live)
        await connection.execute("BEGIN; LOCK TABLE realtime.channels")
        with pytest.raises(InternalError) as raised:
            await publisher.publish([("orders", "e", {})])
    assert raised.value.message == "Publishing took too long, and none of the messages was published"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
