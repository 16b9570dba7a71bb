"""docs/sdk-javascript.md is true: its programs run, its TypeScript compiles, its component works, its options exist."""

from __future__ import annotations

import asyncio
import json
import os
import re
from asyncio.subprocess import PIPE
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from insforge_realtime.pg.demo import ALICE, BOB
from support.browser import MISSING, Browser, static_files
from support.node import Script, install_client
from support.servers import Server, token

Start = Callable[..., Server]

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "sdk-javascript.md"


async def run(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


class Program:
    """The snippets, running: `seen` is what they have printed."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.seen: list[Any] = []

    async def until(self, what: object) -> str:
        """Until it prints this number, or a line that fits this pattern."""
        while True:
            for line in self.seen:
                if line == what or (isinstance(what, str) and isinstance(line, str) and re.fullmatch(what, line)):
                    return str(line)
            self.seen.append(await self._script.line())


@pytest.mark.parametrize("page", [PAGE, ROOT / "clients" / "js" / "README.md"], ids=["docs", "README"])
async def test_the_programs_run_and_print_what_they_say(demo: str, start: Start, page: Path) -> None:
    server = start(demo)
    blocks = len(re.findall(r"^```js$", page.read_text(), re.MULTILINE))
    arguments = ("snippets.mjs", str(page), server.url)
    async with Script(*arguments, REALTIME_TOKEN=token(ALICE)) as script:
        program = Program(script)
        await program.until(0)
        await run(demo, "UPDATE orders SET status = 'shipped'")
        await program.until("(The order is )?shipped.*")
        await program.until(blocks - 1)
        if page != PAGE:
            return
        await program.until("true connected string")
        await program.until("refused: UNAUTHORIZED")
        await program.until("heard: Hello! user")
        await program.until("stored as [0-9a-f-]{36}")
        await program.until("Now as the database says")
        await program.until("Now shipped")
        await program.until(f"here are {ALICE}")
        async with Script(*arguments, REALTIME_TOKEN=token(BOB)):
            await program.until(f"{BOB} came; here are {ALICE},{BOB}")
        await program.until(f"{BOB} left; here are {ALICE}")


async def test_each_program_runs_as_it_stands_in_an_empty_project(demo: str, start: Start, tmp_path: Path) -> None:
    server = start(demo)
    install_client(tmp_path)
    quickstart, *others = re.findall(r"^```js\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(others) > 6
    for number, program in enumerate([quickstart, *(quickstart + other for other in others)]):
        file = tmp_path / f"{number}.mjs"
        file.write_text(program.replace("http://127.0.0.1:7130", server.url) + "\nconsole.log('THE END')\n")
        process = await asyncio.create_subprocess_exec(
            *("node", str(file)),
            cwd=tmp_path,
            stdout=PIPE,
            stderr=PIPE,
            env=os.environ | {"REALTIME_TOKEN": token(ALICE)},
        )
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            async with asyncio.timeout(30):
                while (line := await process.stdout.readline()) != b"THE END\n":
                    assert line, (program, await process.stderr.read())
        finally:
            if process.returncode is None:
                process.kill()
            _, complaints = await process.communicate()
        assert complaints == b"", program


@pytest.mark.skipif(MISSING, reason="Chromium is not installed")
async def test_the_component_compiles_and_works(demo: str, start: Start, tmp_path: Path) -> None:
    server = start(demo)
    settings = json.dumps({"url": server.url, "token": token(ALICE)})
    async with Script("typed_snippets.mjs", str(PAGE), str(tmp_path), settings) as script:
        output, _ = await script.process.communicate()
    assert script.process.returncode == 0, output.decode()
    with static_files(tmp_path) as root:
        async with Browser() as browser:
            page = await browser.page(f"{root}/index.html")
            await page.see("p", "new, 1 watching")  # as it was read
            await run(demo, "UPDATE orders SET status = 'shipped'")
            await page.see("p", "shipped, 1 watching")
            await page.click("button")  # Alice is an admin, so she may publish
            await published(demo, "note")
            assert page.problems == []


async def published(url: str, event: str) -> None:
    """Until such a message is stored."""
    connection = await asyncpg.connect(url)
    try:
        async with asyncio.timeout(20):
            while not await connection.fetchval("SELECT count(*) FROM realtime.messages WHERE event_name = $1", event):
                await asyncio.sleep(0.02)
    finally:
        await connection.close()


def test_every_option_of_create_client_is_in_the_table_and_no_other() -> None:
    source = (ROOT / "clients" / "js" / "src" / "client.ts").read_text()
    interface = source.split("export interface ClientOptions {")[1].split("\n}")[0]
    options = re.findall(r"^  (\w+)\??:", interface, re.MULTILINE)
    table = PAGE.read_text().split("### createClient(options)")[1].split("\n### ")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == options


def test_every_code_of_the_client_is_on_the_page() -> None:
    source = (ROOT / "clients" / "js" / "src" / "types.ts").read_text()
    codes = re.findall(r"^  \| '([A-Z_]+)'", source, re.MULTILINE)
    text = PAGE.read_text().split("### Codes")[1]
    assert len(codes) > 10
    assert [code for code in codes if f"`{code}`" not in text] == []
