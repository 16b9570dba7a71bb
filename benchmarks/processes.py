"""The processes that a benchmark is made of: PostgreSQL, the server, its peers, the crowd.

Each ends with the block that it was made in, and with this process, however that ends. Their logs are files, since a
pipe that nobody reads would stop its writer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import asyncpg

from insforge_realtime.auth import mint
from insforge_realtime.pg import database as pg_database
from insforge_realtime.pg.embedded import EmbeddedPostgres, find_binaries
from insforge_realtime.pg.embedded.binaries import Binaries
from insforge_realtime.pg.embedded.processes import death_watch
from insforge_realtime.pg.migrate import migrate

FOLDER = Path(__file__).parent
ONE_ADDRESS = {
    "REALTIME_MAX_HANDSHAKES_PER_SECOND": "1000000",
    "REALTIME_MAX_CONNECTS_PER_SECOND": "1000000",
    "REALTIME_MAX_SOCKETS_PER_ADDRESS": "1000000",
    "REALTIME_MAX_MESSAGES_PER_SECOND": "1000000",
    "REALTIME_MAX_PENDING_PER_USER": "1000000",
}
"""A crowd comes from one address, sooner and in greater number than any office would, and mostly is one user. The limits
count all the same, and so what counting costs is measured: they are only too high to be met."""
SECRET = "a secret for benchmarks that is long enough for HS256"
CHANNEL = "bench-room"
"""No colon: pgbench would take what follows it for a variable."""
PRODUCTION = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "max_connections": "100",
}
"""What a production server has: nothing here makes a commit cheaper than it is there."""


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that PostgreSQL's own account can pass through, gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="insforge-realtime-bench-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Child:
    """A process that speaks lines of JSON, or none at all, on stdin and stdout."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    def send(self, *lines: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("".join(f"{line}\n" for line in lines).encode())

    async def line(self, seconds: float = 120.0) -> dict[str, Any]:
        """What it says next.

        Raises:
            RuntimeError: it has ended.
        """
        assert self.process.stdout is not None
        async with asyncio.timeout(seconds):
            text = await self.process.stdout.readline()
        if not text:
            raise RuntimeError(f"a process has ended:\n{self._log.read_text()[-2000:]}")
        answer: dict[str, Any] = json.loads(text)
        return answer

    async def ask(self, **command: object) -> dict[str, Any]:
        self.send(json.dumps(command))
        return await self.line()


@contextlib.asynccontextmanager
async def child(
    command: Sequence[str], log: Path, *, environment: dict[str, str] | None = None, talks: bool = True
) -> AsyncIterator[Child]:
    """Run a process for the length of a block."""
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE if talks else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE if talks else output,
            stderr=output,
            cwd=FOLDER.parent,
            env=environment,
            limit=2**24,
            preexec_fn=death_watch(),
        )
    try:
        yield Child(process, log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(10):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


class Database:
    """A migrated database on a PostgreSQL of its own, with one channel that the crowd may subscribe to."""

    def __init__(self, postgres: EmbeddedPostgres, found: Binaries, folder: Path, name: str = "") -> None:
        self.url = postgres.url(name) if name else postgres.dsn
        self.version = found.version
        assert postgres.pid is not None
        self.pid = postgres.pid
        self.postgres = postgres
        self.binaries = found
        self._script = folder / "publish.sql"
        self._script.write_text(
            "\\set n :n + 1\n"
            f"SELECT realtime.publish('{CHANNEL}', 'tick', jsonb_build_object('w', :client_id::int, 'n', :n::int, "
            "'text', 'forty characters of what happened to it'));\n"
        )

    async def execute(self, sql: str) -> None:
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    async def open_to_the_crowd(self) -> None:
        await self.execute("INSERT INTO realtime.channels (pattern) VALUES ('bench-%')")
        await self.execute(
            "CREATE POLICY benchmark ON realtime.channels FOR SELECT TO authenticated USING (pattern = 'bench-%')"
        )

    async def tidy(self) -> None:
        """Begin a measurement with an empty table, and without the last one's dirty pages."""
        await self.execute("TRUNCATE realtime.messages CASCADE")
        await self.execute("VACUUM ANALYZE realtime.messages")
        await self.execute("CHECKPOINT")

    async def doorbell(self, *, on: bool) -> None:
        await self.execute(f"ALTER TABLE realtime.messages {'ENABLE' if on else 'DISABLE'} TRIGGER ring")

    async def pgbench(self, clients: int, seconds: float) -> tuple[float, int]:
        """Publish one row per transaction, as fast as the commits go: transactions per second, and in all."""
        process = await asyncio.create_subprocess_exec(
            *(
                str(self.binaries.bin_dir / "pgbench"),
                "--no-vacuum",
                "--protocol=prepared",
                f"--client={clients}",
                "--jobs=2",
            ),
            *(f"--time={max(1, round(seconds))}", "--define=n=0", f"--file={self._script}", self.url),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            preexec_fn=death_watch(),
        )
        try:
            output, errors = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        text = output.decode()
        rate = re.search(r"^tps = ([\d.]+)", text, re.MULTILINE)
        number = re.search(r"actually processed: (\d+)", text)
        failed = re.search(r"failed transactions: (\d+)", text)
        if process.returncode or not rate or not number or (failed and int(failed[1])):
            raise RuntimeError(f"pgbench failed:\n{text}{errors.decode()}")
        return float(rate[1]), int(number[1])


async def all_reaped() -> None:
    """Until the backends of clients that have left have been waited for: in between, their CPU time is counted nowhere."""
    await asyncio.sleep(0.5)


@contextlib.asynccontextmanager
async def database(folder: Path, major: int) -> AsyncIterator[Database]:
    """PostgreSQL with the settings of a production server, for the length of a block."""
    found = find_binaries(major)
    with EmbeddedPostgres(folder / "pg", binaries=found, settings=PRODUCTION) as postgres:
        await migrate(pg_database.Database(postgres.dsn))
        prepared = Database(postgres, found, folder)
        await prepared.open_to_the_crowd()
        yield prepared


def crowd(folder: Path) -> contextlib.AbstractAsyncContextManager[Child]:
    """The load generator's receiving half; see crowd.py."""
    return child([sys.executable, "-m", "benchmarks.crowd"], folder / "crowd.log")


def callers(folder: Path) -> contextlib.AbstractAsyncContextManager[Child]:
    """Clients that ask and take the time; see callers.py."""
    return child([sys.executable, "-m", "benchmarks.callers"], folder / "callers.log")


def receiver(folder: Path) -> contextlib.AbstractAsyncContextManager[Child]:
    """Receives webhooks; see receiver.py."""
    return child([sys.executable, "-m", "benchmarks.receiver"], folder / "receiver.log")


def token() -> str:
    """What all of the crowd come in with: one user, so that a thousand sockets are one entry of the presence."""
    return mint(SECRET, subject="5eed0000-0000-4000-8000-000000000001", role="authenticated", ttl=12 * 3600)


class Server:
    """`insforge-realtime serve`."""

    def __init__(self, pid: int, port: int) -> None:
        self.pid = pid
        self.port = port


def _serve(url: str, settings: dict[str, object]) -> tuple[list[str], dict[str, str]]:
    """The command that serves, and its environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("REALTIME_")}
    environment |= {
        "DATABASE_URL": url,
        "REALTIME_JWT_SECRET": SECRET,
        "REALTIME_LOG_FORMAT": "json",
        "REALTIME_PING_INTERVAL": "3600",
        **({} if settings.pop("defaults", False) else ONE_ADDRESS),
        "PYTHONUNBUFFERED": "1",
        **{f"REALTIME_{name.upper()}": str(value) for name, value in settings.items()},
    }
    given = os.environ.get("BENCHMARK_SERVER")
    command = given.split() if given else [sys.executable, "-m", "insforge_realtime"]
    return [*command, "serve", "--port", "0"], environment


_ADDRESS = re.compile(r'"address": ?"[^"]*:(\d+)"')


@contextlib.asynccontextmanager
async def server(folder: Path, url: str, **settings: object) -> AsyncIterator[Server]:
    """A server for the length of a block; `settings` are environment variables, without `REALTIME_` and in any case. With
    `defaults`, all others are as for everybody; else nobody minds that all clients have one address.

    `BENCHMARK_SERVER` in the environment is the command to run instead of `python -m insforge_realtime`: to profile it,
    or to measure a changed copy.
    """
    log = folder / f"server-{time.monotonic_ns()}.log"
    command, environment = _serve(url, settings)
    async with child(command, log, environment=environment, talks=False) as running:
        deadline = time.monotonic() + 30
        while not (said := _ADDRESS.search(log.read_text())):
            if running.process.returncode is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start:\n{log.read_text()[-2000:]}")
            await asyncio.sleep(0.02)
        yield Server(running.pid, int(said[1]))


@contextlib.asynccontextmanager
async def stuck_log(folder: Path, url: str, **settings: object) -> AsyncIterator[Server]:
    """The same, but its stderr is a pipe that nobody reads once it serves."""
    command, environment = _serve(url, settings)
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, preexec_fn=death_watch()
    )
    assert process.stderr is not None
    try:
        while not (said := _ADDRESS.search(process.stderr.readline().decode())):
            if process.poll() is not None:
                raise RuntimeError("the server did not start")
        yield Server(process.pid, int(said[1]))
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def residents(folder: Path) -> contextlib.AbstractAsyncContextManager[Child]:
    """Connections that stay; see growth/residents.py."""
    return child([sys.executable, "-m", "benchmarks.growth.residents"], folder / "residents.log")
