"""README.md can be pasted: its SQL into the database, its programs into files, its commands into a shell, as they stand."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from insforge_realtime.cli.main import app
from insforge_realtime.pg.demo import ALICE
from support.client import run_sql, until_load
from support.node import FOLDER
from support.servers import Server, token

Start = Callable[..., Server]

PAGE = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
SCHEMA, CHANGE = (text for language, text in BLOCKS if language == "sql")
SHELL = [text for language, text in BLOCKS if language == "bash"]
COMMANDS = [
    line.partition("#")[0].split() for text in SHELL for line in text.splitlines() if line.startswith("insforge-r")
]


def program(language: str, server: Server) -> str:
    [text] = [text for one, text in BLOCKS if one == language]
    assert "http://127.0.0.1:7130" in text
    return str(text).replace("http://127.0.0.1:7130", server.url)


@asynccontextmanager
async def running(server: Server, *command: str) -> AsyncIterator[asyncio.StreamReader]:
    """The output of a command, with Alice's token in its environment."""
    environment = {**os.environ, "REALTIME_TOKEN": token(ALICE), "REALTIME_URL": server.url, "PYTHONUNBUFFERED": "1"}
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, env=environment)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            yield process.stdout
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.fixture
async def server(demo: str, start: Start) -> Server:
    await run_sql(demo, SCHEMA)
    return start(demo)


async def said_after_the_change(demo: str, server: Server, output: asyncio.StreamReader) -> str:
    await until_load(server, 1, 1)
    await run_sql(demo, CHANGE)
    return (await output.readline()).decode().rstrip()


async def test_the_python_program_prints_what_is_written(demo: str, server: Server) -> None:
    async with running(server, sys.executable, "-c", program("python", server)) as output:
        assert await said_after_the_change(demo, server, output) == "INSERT_todo water the plants"


async def test_the_javascript_program_prints_what_is_written(demo: str, server: Server) -> None:
    file = FOLDER / f"readme-{os.getpid()}.mjs"
    file.write_text(program("js", server))
    try:
        async with running(server, "node", str(file)) as output:
            assert await output.readline() == b"subscribed\n"
            said = await said_after_the_change(demo, server, output)
            assert re.fullmatch(r"water the plants [0-9a-f-]{36}", said)
    finally:
        file.unlink()


async def test_the_command_prints_what_is_written(demo: str, server: Server) -> None:
    [tail] = [command for command in COMMANDS if command[1] == "tail"]
    async with running(server, sys.executable, "-m", "insforge_realtime", *tail[1:]) as output:
        said = await said_after_the_change(demo, server, output)
        assert f" todos:{ALICE} INSERT_todo " in said


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_of_the_page_exists(command: list[str]) -> None:
    asked = CliRunner().invoke(app, [command[1], "--help"], env={"COLUMNS": "200"})
    assert asked.exit_code == 0
    for option in command[2:]:
        assert not option.startswith("--") or option in asked.stdout


def test_the_page_has_no_block_that_nobody_runs() -> None:
    assert sorted(language for language, _ in BLOCKS) == ["bash"] * 4 + ["js", "python", "sql", "sql"]
