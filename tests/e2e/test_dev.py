"""`insforge-realtime dev` as a newcomer meets it: what it prints works as printed, and nothing of it is left behind."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import asyncpg
import psutil
import pytest

from insforge_realtime.pg.demo import ALICES_ORDER
from support.databases import Cluster, data_folder, wait_until
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
        environment: further variables.
    """

    def __init__(self, data_dir: Path, *arguments: str, **environment: str) -> None:
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
            cwd="/",
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
        return self.text.partition("node try.mjs\n")[2].partition("Then change the order")[0]

    @property
    def change(self) -> str:
        """The command that changes the order."""
        return self.text.partition("watch it arrive:\n")[2].strip().splitlines()[0]

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


async def test_a_database_of_ones_own_is_used_and_its_orders_change(folder: Path, newest: Cluster) -> None:
    url = await newest.database("empty")
    with Dev(folder, "--port", "0", "--demo-traffic", DATABASE_URL=url) as dev:
        dev.welcomed()
        assert dev.database_url == url
        assert "An order changes every second." in dev.text
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
