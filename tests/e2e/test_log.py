"""The log of a real server whose standard error is read by nobody, by somebody who goes away, or is not there."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from insforge_realtime.pg.demo import BOB, ROOM
from support.databases import free_port, wait_until
from support.servers import AsgiServer, Process, Server, token
from support.wire import WireClient

TOKEN = {"token": token(BOB)}


class Mute(AsgiServer):
    """`serve`, whose standard error is a pipe that nobody reads until `listen` is called."""

    def __init__(self, database_url: str, **settings: object) -> None:
        self._may_read = threading.Event()
        Server.__init__(self, database_url, port=free_port(), forked=False, **settings)
        self._arguments = ["-m", "insforge_realtime", "serve", "--port", "{port}"]

    def listen(self) -> None:
        self._may_read.set()

    def go_away(self) -> None:
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._may_read.set()

    def _read(self, process: Process) -> None:
        self._may_read.wait()
        assert process.stdout is not None
        if not process.stdout.closed:
            super()._read(process)


@pytest.fixture
def mute(demo: str) -> Iterator[Mute]:
    server = Mute(demo, log_level="debug", log_buffer_bytes=65536)
    server.start()
    yield server
    server.listen()
    assert server.stop() == 0, server.raw[-10:]


async def flood(server: Mute, connects: int = 400) -> None:
    """Three lines of 100 bytes and more each: more than a pipe takes, and the server's queue with it."""
    for _ in range(connects // 20):
        await asyncio.gather(*(connect_and_go(server) for _ in range(20)))


async def connect_and_go(server: Mute) -> None:
    async with asyncio.timeout(20), WireClient(server.ws_url, TOKEN):
        pass


async def hear(client: WireClient, database: str, number: int) -> None:
    """A message of another one reaches this client."""
    connection = await asyncpg.connect(database)
    try:
        await connection.execute("SELECT realtime.publish($1, 'news', '{}')", f"chat:{ROOM}")
    finally:
        await connection.close()
    await client.wait_for("news", number)


async def test_a_log_that_nobody_reads_stops_no_client_and_what_was_dropped_is_told_once_somebody_does(
    mute: Mute, demo: str
) -> None:
    async with WireClient(mute.ws_url, TOKEN) as client:
        assert (await client.subscribe(f"chat:{ROOM}"))["ok"] is True
        await flood(mute)
        await hear(client, demo, 1)
        mute.listen()
        await wait_until(lambda: any("log lines dropped" in str(line.get("event")) for line in mute.lines))
        assert mute.lines[0]["event"] != mute.lines[-1]["event"]
        await hear(client, demo, 2)
    stamps = [line["timestamp"] for line in mute.lines]
    assert stamps == sorted(stamps)
    assert mute.errors() == []


async def test_a_reader_that_is_stuck_does_not_keep_the_process_from_its_end(mute: Mute) -> None:
    await flood(mute)
    mute.process.terminate()
    assert await asyncio.to_thread(mute.process.wait, 15) == 0


async def test_a_reader_that_goes_away_is_no_error_and_no_work(mute: Mute, demo: str) -> None:
    mute.go_away()
    async with WireClient(mute.ws_url, TOKEN) as client:
        assert (await client.subscribe(f"chat:{ROOM}"))["ok"] is True
        await flood(mute, 100)
        await hear(client, demo, 1)
        process, before = psutil.Process(mute.process.pid), time.monotonic()
        used = sum(process.cpu_times()[:2])
        await hear(client, demo, 2)
        await asyncio.sleep(1)  # what it does when there is nothing to do
        assert sum(process.cpu_times()[:2]) - used < (time.monotonic() - before) / 2


@pytest.mark.parametrize("closed", ["2>&-", "0<&- 1>&- 2>&-"])
async def test_a_server_without_standard_error_serves_and_no_socket_takes_its_place(demo: str, closed: str) -> None:
    server = Mute(demo, log_level="debug")
    server._command = lambda: [  # type: ignore[method-assign]
        "sh", "-c", f'exec "$0" -m insforge_realtime serve --port {server.port} {closed}', sys.executable,
    ]  # fmt: skip
    server.start()
    try:
        async with WireClient(server.ws_url, TOKEN) as client:
            assert (await client.subscribe(f"chat:{ROOM}"))["ok"] is True
            await flood(server, 40)
            await hear(client, demo, 1)
        assert os.readlink(Path(f"/proc/{server.process.pid}/fd/2")) == os.devnull
    finally:
        server.listen()
        assert server.stop() == 0


async def test_what_is_said_last_is_in_the_log_before_the_process_ends(demo: str) -> None:
    server = Mute(demo)
    server.start()
    server.listen()
    assert server.stop() == 0
    assert [line["event"] for line in server.lines][-2:] == ["shutting down", "stopped"]


def test_an_error_that_ends_the_command_comes_after_the_log(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "insforge_realtime", "serve", "--host", "192.0.2.1"],
        env={
            "DATABASE_URL": "postgresql://127.0.0.1:1/none",
            "REALTIME_JWT_SECRET": "x" * 32,
            "REALTIME_LOG_FORMAT": "json",
        },
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: cannot listen on ")
