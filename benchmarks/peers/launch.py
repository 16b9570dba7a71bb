"""Starts the peers, each for the length of a block, and makes the incumbent's database. What they do is elsewhere."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from benchmarks.database import CHANNEL, Database
from benchmarks.processes import Child, child
from benchmarks.server import SECRET, Server

FOLDER = Path(__file__).parent
NODE = FOLDER / "node"


class Peer(Server):
    """A server that emits to the room of everybody what it reads on stdin."""

    def __init__(self, running: Child, port: int) -> None:
        super().__init__(running.pid, port)
        self.child = running


def install() -> None:
    """Run `npm ci`, unless what is installed is what the lock file says."""
    installed = NODE / "node_modules" / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < (NODE / "package-lock.json").stat().st_mtime:
        subprocess.run(
            ["npm", "ci", "--silent", "--omit=optional", "--no-audit", "--no-fund"],
            cwd=NODE,
            check=True,
            stdin=subprocess.DEVNULL,
        )


@contextlib.asynccontextmanager
async def _peer(command: list[str], log: Path, **environment: str) -> AsyncIterator[Peer]:
    variables = {**os.environ, "NODE_ENV": "production", "JWT_SECRET": SECRET, **environment}
    async with child(command, log, environment=variables) as running:
        yield Peer(running, (await running.line())["port"])


def socketio(folder: Path) -> contextlib.AbstractAsyncContextManager[Peer]:
    """Run Socket.IO on Node; see node/socketio.mjs."""
    install()
    return _peer(["node", str(NODE / "socketio.mjs"), CHANNEL], folder / "node.log")


def python_socketio(folder: Path) -> contextlib.AbstractAsyncContextManager[Peer]:
    """Run python-socketio on uvicorn; see python_socketio.py."""
    return _peer([sys.executable, "-m", "benchmarks.peers.python_socketio", CHANNEL], folder / "python-socketio.log")


def incumbent(folder: Path, url: str) -> contextlib.AbstractAsyncContextManager[Peer]:
    """Run the incumbent's pipeline; see node/incumbent.mjs. Its database is that of `incumbent_database`."""
    install()
    return _peer(["node", str(NODE / "incumbent.mjs")], folder / "incumbent.log", DATABASE_URL=url)


async def incumbent_database(there: Database, folder: Path) -> Database:
    """Make the incumbent's tables in another database of the same PostgreSQL, and return that."""
    await there.execute("CREATE DATABASE incumbent")
    prepared = Database(there.postgres, there.binaries, folder, "incumbent")
    await prepared.execute((FOLDER / "incumbent.sql").read_text())
    await prepared.open_to_the_crowd()
    return prepared


def write_loop(folder: Path, count: int) -> contextlib.AbstractAsyncContextManager[Peer]:
    """Compile and run the C loop for `count` sockets; see c/write_loop.c."""
    binary = folder / "write_loop"
    subprocess.run(["cc", "-O2", "-o", str(binary), str(FOLDER / "c" / "write_loop.c")], check=True)
    return _peer([str(binary), str(count)], folder / "write_loop.log")
