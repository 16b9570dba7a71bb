"""`insforge-realtime dev` as a newcomer meets it: what it prints works as printed, and nothing of it is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from urllib.parse import urlsplit

import asyncpg
import psutil
import pytest

from insforge_realtime.pg.demo import ALICES_ORDER
from support.databases import Cluster, data_folder, wait_until
from support.incumbent import INCUMBENT
from support.node import FOLDER
from support.receivers import hooked, receiving
from support.wire import WireClient

LAST_LINE = "Ctrl-C stops the server"
GOODBYE_SECONDS = 5.0


class Dev:
    """One `dev`, as a terminal would run it: in a process group of its own, which a Ctrl-C is sent to.

    Args:
        data_dir: its data folder.
        arguments: further ones.
        cwd: where it is started.
        environment: further variables.
    """

    def __init__(self, data_dir: Path, *arguments: str, cwd: Path = Path("/"), **environment: str) -> None:
        self._cwd = cwd
        self._command = [sys.executable, "-m", "insforge_realtime", "dev", "--data-dir", str(data_dir), *arguments]
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("REALTIME_", "DATABASE"))
        }
        self._environment = {**inherited, "PYTHONUNBUFFERED": "1", **environment}
        self.printed: list[str] = []
        self.process: subprocess.Popen[str] = None  # type: ignore[assignment]

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            self._command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self._cwd,
            env=self._environment,
            start_new_session=True,
        )
        self._readers = [
            threading.Thread(target=self._read, args=(stream,), daemon=True)
            for stream in (self.process.stdout, self.process.stderr)
            if stream is not None
        ]
        for reader in self._readers:
            reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        with self.process:
            for reader in self._readers:
                reader.join()

    def welcomed(self) -> None:
        """Once it has said everything that it says at its start."""
        deadline = time.monotonic() + 60
        while not any(LAST_LINE in line for line in self.printed):
            assert self.process.poll() is None, self.text
            assert time.monotonic() < deadline, self.text
            time.sleep(0.01)

    def interrupt(self) -> float:
        """Ctrl-C: the seconds it took to end, with status 0."""
        began = time.monotonic()
        os.killpg(self.process.pid, signal.SIGINT)
        assert self.process.wait(timeout=GOODBYE_SECONDS) == 0, self.text
        return time.monotonic() - began

    @property
    def text(self) -> str:
        return "".join(self.printed)

    def value(self, name: str) -> str:
        """What is printed after a name, at the beginning of a line."""
        match = re.search(rf"^{name} +(\S.*)$", self.text, re.MULTILINE)
        assert match is not None, self.text
        return match[1]

    @property
    def url(self) -> str:
        match = re.search(r"is at (http://\S+)", self.text)
        assert match is not None, self.text
        return match[1]

    def wire_client(self, token: str) -> WireClient:
        url = self.url.replace("http", "ws") + "/socket.io/?EIO=4&transport=websocket"
        return WireClient(url, auth={"token": token})

    @property
    def database_url(self) -> str:
        return self.value("psql").split('"')[1]

    @property
    def example(self) -> str:
        """The program to be saved as try.mjs."""
        return self.text.partition("node try.mjs\n")[2].partition("Or, without Node")[0]

    @property
    def change(self) -> str:
        """The command that changes the order."""
        return self.text.partition("watch it arrive:\n")[2].strip().splitlines()[0]

    @property
    def tail(self) -> str:
        """The command that follows a channel."""
        [command] = re.findall(r"^.*insforge-realtime tail .*$", self.text, re.MULTILINE)
        return str(command)

    def commands_of_psql(self) -> list[str]:
        """Those that the text without a demo has."""
        return re.findall(r"^psql .* -c .*$", self.text, re.MULTILINE)

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self.printed.append(line)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A data folder to be; at the end, no process may be left that names it."""
    with data_folder() as parent:
        yield parent / "data"
        left = processes_of(parent)
        for process in left:
            process.kill()
        assert not left, f"left behind: {left}"


def processes_of(folder: Path) -> list[psutil.Process]:
    """Whose command line names something in a folder."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if str(folder) in " ".join(process.info["cmdline"] or []) and process.status() != psutil.STATUS_ZOMBIE
    ]


async def test_what_is_printed_works_and_the_next_start_keeps_it(folder: Path) -> None:
    with Dev(folder, "--port", "0") as dev:
        dev.welcomed()
        for name in ("Anonymous key", "API key", "Alice's token", "Bob's token"):
            assert dev.value(name)
        assert dev.value("Alice's token") in dev.example
        assert dev.url in dev.example
        assert not dev.url.endswith(":0")
        order = run_example(dev.example, dev.change)
        assert order.startswith("shipped {")
        assert (folder / "keys.json").stat().st_mode & 0o777 == 0o600
        print(f"Ctrl-C took {dev.interrupt():.2f} s")
        assert not processes_of(folder)

    with Dev(folder, "--port", "0") as again:
        again.welcomed()
        for name in ("Anonymous key", "API key"):
            assert again.value(name) == dev.value(name)
        assert again.database_url == dev.database_url
        async with again.wire_client(dev.value("Alice's token")) as alice:
            assert (await alice.subscribe(f"order:{ALICES_ORDER}"))["ok"]
        connection = await asyncpg.connect(again.database_url)
        status = await connection.fetchval("SELECT status FROM orders WHERE id = $1", ALICES_ORDER)
        await connection.close()
        assert status == "shipped"
        again.process.kill()
        again.process.wait()
        await wait_until(lambda: not processes_of(folder))


def run_example(example: str, change: str) -> str:
    """Save and run the printed program, run the printed command, and return the line that the program then prints."""
    file = FOLDER / f"try-{os.getpid()}.mjs"
    file.write_text(example)
    node = subprocess.Popen(["node", str(file)], stdout=subprocess.PIPE, text=True)
    try:
        assert node.stdout is not None
        said = ""
        while "ok: true" not in said:
            line = node.stdout.readline()
            assert line, said
            said += line
        subprocess.run(change, shell=True, check=True, cwd="/", stdout=subprocess.DEVNULL)
        return next(line for line in node.stdout if not said.endswith(line) and line[0] not in " }")
    finally:
        node.kill()
        node.communicate()
        file.unlink()


@pytest.mark.parametrize("noted", ["taken", "0", "port", "-1", "99999999"])
def test_a_database_whose_port_of_last_time_will_not_do_gets_another(folder: Path, noted: str) -> None:
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        (folder / "postgres.port").write_text(noted.replace("taken", str(taken.getsockname()[1])))
        with Dev(folder, "--port", "0", "--no-demo") as dev:
            dev.welcomed()
            assert dev.database_url.partition("@")[2] != f"127.0.0.1:{noted}/postgres"
            dev.interrupt()


def test_a_port_that_is_taken_is_one_line_and_leaves_nothing_behind(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with Dev(folder, "--port", str(port)) as dev:
            assert dev.process.wait(timeout=60) == 2
    [line] = [line for line in dev.printed if "error" in line]
    assert line.startswith("error: ")
    assert str(port) in line
    assert not any("Traceback" in line for line in dev.printed)
    assert not processes_of(folder)


async def test_a_database_that_is_named_is_used_and_with_the_demo_its_orders_change(
    folder: Path, newest: Cluster
) -> None:
    url = await newest.database("empty")
    with Dev(folder, "--port", "0", "--demo", "--demo-traffic", DATABASE_URL=url) as dev:
        dev.welcomed()
        assert "An order changes every second." in dev.text
        assert dev.value("Demo").startswith("loaded")
        async with dev.wire_client(dev.value("Alice's token")) as alice:
            assert (await alice.subscribe(f"order:{ALICES_ORDER}"))["ok"]
            await alice.wait_for("UPDATE_order", 2)
            print(f"Ctrl-C with a client took {await asyncio.to_thread(dev.interrupt):.2f} s")
    assert [path.name for path in folder.iterdir()] == ["keys.json"]
    await newest.drop(url)


async def test_webhooks_reach_a_receiver_on_this_machine(folder: Path, newest: Cluster) -> None:
    url = await newest.database("empty")
    async with receiving() as receiver:
        with Dev(folder, "--port", "0", DATABASE_URL=url) as dev:
            await asyncio.to_thread(dev.welcomed)
            async with hooked(url) as db:
                await db.channel("hooked:%", receiver.url)
                await db.publish("hooked:1")
                assert (await db.the_row())["state"] == "delivered"
            dev.interrupt()
        assert len(receiver.hits) == 1
    await newest.drop(url)


# ---- a database that is not dev's own

ORDERS = "CREATE TABLE orders (id int PRIMARY KEY, what text); INSERT INTO orders VALUES (1, 'mine')"


@contextlib.asynccontextmanager
async def sql(url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
async def somebodys(newest: Cluster) -> AsyncIterator[str]:
    """A database with a table `orders` that has nothing to do with the demo."""
    url = await newest.database("empty")
    async with sql(url) as connection:
        await connection.execute(ORDERS)
    yield url
    await newest.drop(url)


@pytest.mark.parametrize("place", ["environment", ".env"])
async def test_somebodys_database_gets_the_schema_and_nothing_of_the_demo(
    folder: Path, somebodys: str, place: str, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text(f"DATABASE_URL={somebodys}\n" if place == ".env" else "")
    environment: dict[str, Any] = {"DATABASE_URL": somebodys} if place == "environment" else {}
    with Dev(folder, "--port", "0", cwd=tmp_path, **environment) as dev:
        dev.welcomed()
        assert dev.value("Demo").startswith("not loaded")
        assert somebodys.rpartition("@")[2] in dev.value("Database")
        assert str(urlsplit(somebodys).password) not in dev.text
        assert "Alice" not in dev.text
        assert "order:" not in dev.text
        dev.interrupt()
    async with sql(somebodys) as connection:
        assert [tuple(row) for row in await connection.fetch("SELECT * FROM orders")] == [(1, "mine")]
        untouched = """SELECT relacl IS NULL AND NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = c.oid)
                       FROM pg_class c WHERE oid = 'orders'::regclass"""
        assert await connection.fetchval(untouched)
        assert await connection.fetchval("SELECT count(*) FROM realtime.channels") == 0
        assert await connection.fetchval("SELECT to_regclass('admins') IS NULL")
        assert await connection.fetchval("SELECT count(*) FROM pg_policy WHERE polname <> 'project_admin_policy'") == 0


async def test_the_next_step_that_is_printed_without_a_demo_works_as_printed(folder: Path, somebodys: str) -> None:
    with Dev(folder, "--port", "0", cwd=Path(sys.prefix).parent, DATABASE_URL=somebodys) as dev:
        dev.welcomed()
        opened, published = dev.commands_of_psql()
        environment = {**os.environ, "PGPASSWORD": str(urlsplit(somebodys).password)}
        assert dev.tail.startswith(".venv/bin/insforge-realtime "), dev.tail
        minted = dev.text.partition("A token for one of your users:\n")[2].strip().splitlines()[0]
        where: dict[str, Any] = {"shell": True, "check": True, "cwd": Path(sys.prefix).parent, "env": environment}
        subprocess.run(opened, stdout=subprocess.DEVNULL, **where)
        found = subprocess.run(minted, capture_output=True, text=True, **where)
        async with dev.wire_client(found.stdout.strip()) as client:
            assert (await client.subscribe("lobby"))["ok"]
        tail = subprocess.Popen(
            f"exec {dev.tail}", shell=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=where["cwd"]
        )
        try:
            assert tail.stdout is not None
            assert tail.stderr is not None
            assert tail.stderr.readline() == "following lobby\n"
            subprocess.run(published, stdout=subprocess.DEVNULL, **where)
            assert 'lobby hello {"to": "all"}' in tail.stdout.readline()
        finally:
            tail.kill()
            tail.communicate()
        dev.interrupt()


async def test_a_demo_that_is_asked_for_touches_no_table_that_it_did_not_make(folder: Path, somebodys: str) -> None:
    with Dev(folder, "--port", "0", "--demo", DATABASE_URL=somebodys) as dev:
        assert dev.process.wait(timeout=60) == 1
    [line] = [line for line in dev.printed if line.startswith("error: ")]
    assert "the table orders" in line
    async with sql(somebodys) as connection:
        assert await connection.fetchval("SELECT count(*) FROM orders") == 1
        assert await connection.fetchval("SELECT to_regclass('admins') IS NULL")


async def test_a_demo_that_is_asked_for_is_loaded_into_an_empty_database_and_known_again(
    folder: Path, newest: Cluster
) -> None:
    url = await newest.database("empty")
    for _ in range(2):
        with Dev(folder, "--port", "0", "--demo", DATABASE_URL=url) as dev:
            dev.welcomed()
            assert dev.value("Demo").startswith("loaded")
            async with dev.wire_client(dev.value("Alice's token")) as alice:
                assert (await alice.subscribe(f"order:{ALICES_ORDER}"))["ok"]
            await asyncio.to_thread(dev.interrupt)
    await newest.drop(url)


@pytest.mark.parametrize(
    ("arguments", "environment", "named"),
    [
        (["--demo-traffic"], {"DATABASE_URL": "postgresql://h/d"}, ["--demo-traffic", "--demo ", "DATABASE_URL"]),
        (["--demo-traffic", "--no-demo"], {}, ["--demo-traffic", "--no-demo"]),
        ([], {"REALTIME_LISTEN_URL": "postgresql://h/d"}, ["REALTIME_LISTEN_URL", "DATABASE_URL"]),
    ],
    ids=["traffic in somebody's database", "traffic without a demo", "an ear elsewhere"],
)
def test_what_contradicts_itself_is_one_line_before_anything_starts(
    folder: Path, arguments: list[str], environment: dict[str, Any], named: list[str]
) -> None:
    with Dev(folder, "--port", "0", *arguments, **environment) as dev:
        assert dev.process.wait(timeout=60) == 2
    [line] = dev.printed
    assert line.startswith("error: ")
    for word in named:
        assert word in line
    assert not (folder / "postgres").exists()


async def test_another_servers_tables_are_not_taken_over_by_the_way(folder: Path, newest: Cluster) -> None:
    url = await newest.database("empty")
    async with sql(url) as connection:
        await connection.execute(INCUMBENT)
    with Dev(folder, "--port", "0", DATABASE_URL=url) as dev:
        assert dev.process.wait(timeout=60) == 1
    [line] = [line for line in dev.printed if line.startswith("error: ")]
    assert "insforge-realtime migrate --dry-run" in line
    async with sql(url) as connection:
        assert await connection.fetchval("SELECT to_regclass('realtime.schema_migrations') IS NULL")
        assert await connection.fetchval("SELECT count(*) FROM pg_trigger WHERE tgname = 'trg_message_notify'") == 1
    await newest.drop(url)
