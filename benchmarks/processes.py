"""Child processes of a benchmark, and the folder that their files go to. What each of them is lives elsewhere: database.py,
server.py, load/launch.py, peers/launch.py. A child's own end of the conversation is control.py.

Each ends with the block that it was made in, and with this process, however that ends. Their logs are files, since a
pipe that nobody reads would stop its writer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

from insforge_realtime.pg.embedded.processes import death_watch

ROOT = Path(__file__).parents[1]
"""The checkout, in which every child runs."""


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a folder that PostgreSQL's own account can pass through, gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="insforge-realtime-bench-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Child:
    """A process that reads and writes lines of JSON on stdin and stdout, or does neither."""

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
        """Return the next line of its stdout.

        Raises:
            RuntimeError: it has ended.
            TimeoutError: none came within so many seconds.
        """
        assert self.process.stdout is not None
        async with asyncio.timeout(seconds):
            text = await self.process.stdout.readline()
        if not text:
            raise RuntimeError(f"a process has ended:\n{self._log.read_text()[-2000:]}")
        answer: dict[str, Any] = json.loads(text)
        return answer

    async def do(self, command: str, **arguments: object) -> dict[str, Any]:
        """Send a command, and return its answer; raises what `line` does."""
        self.send(json.dumps({"do": command, **arguments}))
        return await self.line()


@contextlib.asynccontextmanager
async def child(
    command: Sequence[str], log: Path, *, environment: dict[str, str] | None = None, talks: bool = True
) -> AsyncIterator[Child]:
    """Run a process for the length of a block.

    Args:
        command: the program and its arguments.
        log: a file for its stderr; for its stdout, too, unless it talks.
        environment: all of its variables; by default, this process's.
        talks: it reads and writes lines of JSON.
    """
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE if talks else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE if talks else output,
            stderr=output,
            cwd=ROOT,
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
