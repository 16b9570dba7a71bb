"""The processes that the server is compared with: other servers, and what nothing could be faster than."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from benchmarks.processes import CHANNEL, FOLDER, SECRET, Child, Database, Server, child

NODE = FOLDER / "node"


class Peer(Server):
    """A server that we started, and can tell on stdin what to emit to the room of everybody."""

    def __init__(self, running: Child, port: int) -> None:
        super().__init__(running.pid, port)
        self.child = running


def install_peers() -> None:
    """`npm ci`, unless what is installed is what the lock file says."""
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


def socketio_peer(folder: Path) -> contextlib.AbstractAsyncContextManager[Peer]:
    """Socket.IO on Node; see node/peer.mjs."""
    install_peers()
    return _peer(["node", str(NODE / "peer.mjs"), CHANNEL], folder / "node.log")


def python_socketio_peer(folder: Path) -> contextlib.AbstractAsyncContextManager[Peer]:
    """python-socketio on uvicorn; see python_socketio.py."""
    return _peer([sys.executable, "-m", "benchmarks.python_socketio", CHANNEL], folder / "python-socketio.log")


def incumbent(folder: Path, url: str) -> contextlib.AbstractAsyncContextManager[Peer]:
    """The incumbent's pipeline; see node/incumbent.mjs. Its database is that of `incumbent_database`."""
    install_peers()
    return _peer(["node", str(NODE / "incumbent.mjs")], folder / "incumbent.log", DATABASE_URL=url)


async def incumbent_database(there: Database, folder: Path) -> Database:
    """The incumbent's tables, in another database of the same PostgreSQL."""
    await there.execute("CREATE DATABASE incumbent")
    prepared = Database(there.postgres, there.binaries, folder, "incumbent")
    await prepared.execute((FOLDER / "sql" / "incumbent.sql").read_text())
    await prepared.open_to_the_crowd()
    return prepared


async def add_chats(there: Database) -> None:
    """The application of the rows that policies judge."""
    await there.execute((FOLDER / "sql" / "chats.sql").read_text())


def write_loop(folder: Path, count: int) -> contextlib.AbstractAsyncContextManager[Peer]:
    """The C loop; see c/write_loop.c."""
    binary = folder / "write_loop"
    subprocess.run(["cc", "-O2", "-o", str(binary), str(FOLDER / "c" / "write_loop.c")], check=True)
    return _peer([str(binary), str(count)], folder / "write_loop.log")
