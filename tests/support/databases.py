"""Real PostgreSQL servers for tests, and a fresh, migrated database for each test."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import asyncpg
import psutil

from insforge_realtime.errors import EmbeddedPostgresError
from insforge_realtime.pg.database import Database
from insforge_realtime.pg.embedded import Binaries, EmbeddedPostgres, accounts, find_binaries
from insforge_realtime.pg.embedded.processes import is_ready
from insforge_realtime.pg.migrate import migrate
from insforge_realtime.pg.queries import sql_file

FAST = {
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "max_wal_size": "1GB",
}
MAJORS = (15, 18)
"""The system's PostgreSQL of Debian 12, and the wheel's."""

ROLES = "".join(
    f"DO $$ BEGIN CREATE ROLE {role} NOLOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;"
    for role in ("anon", "authenticated", "project_admin")
)
SERVER = "realtime_server"
"""The role that `served` databases belong to; its password is "secret"."""

_names = count(1)


def installed(major: int) -> Binaries | None:
    """The binaries of a major version, if this machine has them."""
    try:
        return find_binaries(major)
    except EmbeddedPostgresError:
        return None


@contextlib.contextmanager
def data_folder() -> Iterator[Path]:
    """A folder that PostgreSQL's own user can reach (mkdtemp's are closed to it), gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="insforge-realtime-test-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    """A port that was free a moment ago, for what must come back on the same one."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def running_cluster(major: int = 18, *, port: int | None = None, **settings: str) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL server of its own, for tests that restart or break it. `settings` override `FAST`."""
    binaries = installed(major)
    assert binaries is not None, f"PostgreSQL {major} is not installed"
    with (
        data_folder() as folder,
        EmbeddedPostgres(folder / "pg", binaries=binaries, port=port, settings={**FAST, **settings}) as cluster,
    ):
        yield cluster


class Cluster:
    """A server that many tests share, each with a database of its own."""

    def __init__(self, postgres: EmbeddedPostgres, major: int) -> None:
        self.postgres = postgres
        self.major = major
        self._templates: set[str] = set()

    async def database(self, template: str = "migrated") -> str:
        """The superuser's URL of a new database: `empty`, `migrated`, `demo` (migrated, with the demo of `dev`), or `served`
        (the same, but the schema belongs to `SERVER`)."""
        name = f"test_{os.getpid()}_{next(_names)}"
        if template != "empty" and template not in self._templates:
            await self._make_template(template)
        source = "" if template == "empty" else f"TEMPLATE {template}"
        await self.execute(f"CREATE DATABASE {name} {source}")
        return self.postgres.url(name)

    async def drop(self, url: str) -> None:
        await self.execute(f"DROP DATABASE IF EXISTS {url.rsplit('/', 1)[1]} WITH (FORCE)")

    async def execute(self, sql: str) -> None:
        """Run a statement as the superuser, in the database `postgres`."""
        connection = await asyncpg.connect(self.postgres.dsn)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    async def _make_template(self, template: str) -> None:
        await self.execute(f"CREATE DATABASE {template}")
        url = self.postgres.url(template)
        if template == "served":
            await self.execute(
                f"{ROLES} CREATE ROLE {SERVER} LOGIN PASSWORD 'secret';"
                f"GRANT anon, authenticated, project_admin TO {SERVER}; GRANT CREATE ON DATABASE {template} TO {SERVER}"
            )
        await migrate(Database(self.postgres.url(template, SERVER, "secret") if template == "served" else url))
        if template in ("demo", "served"):
            connection = await asyncpg.connect(url)
            await connection.execute(sql_file("demo.sql"))
            await connection.close()
        self._templates.add(template)


async def wait_until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Until `condition()` is true: tests wait for conditions, not for time.

    Raises:
        AssertionError: it was not, in this many seconds.
    """
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"not true within {seconds} s: {condition}"
        await asyncio.sleep(0.005)


@contextlib.contextmanager
def bare_server(*signals: str, **settings: str) -> Iterator[tuple[str, Path]]:
    """A PostgreSQL as nobody's launcher starts it: with a socket; as a standby, where `signals` has "standby.signal".

    Yields:
        its URL, and the folder of its socket.
    """
    binaries = installed(MAJORS[-1])
    assert binaries is not None
    with data_folder() as folder:
        with EmbeddedPostgres(folder / "pg", binaries=binaries, settings=FAST) as made:
            assert made.pid is not None
            program, url, old = psutil.Process(made.pid).exe(), made.dsn, made.dsn.rpartition(":")[2]
        cluster = (folder / "pg" / "cluster").resolve()
        account = accounts.lent(cluster)
        (folder / "socket").mkdir(mode=0o777)
        (folder / "socket").chmod(0o777)
        for name in signals:
            (cluster / name).touch(mode=0o644)
        port = free_port()
        options = FAST | settings | {"port": str(port), "unix_socket_directories": str(folder / "socket")}
        command = [program, "-D", str(cluster), *(f"--{name}={value}" for name, value in options.items())]
        process = accounts.popen(command, account, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _wait_until_it_answers(process, cluster)
            yield url.replace(f":{old}", f":{port}/postgres"), folder / "socket"
        finally:
            process.terminate()
            process.send_signal(signal.SIGINT)
            process.wait(20)


def _wait_until_it_answers(process: subprocess.Popen[bytes], cluster: Path) -> None:
    deadline = time.monotonic() + 30
    while not is_ready(cluster, process.pid):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
