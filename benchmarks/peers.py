"""The processes that the server is compared with: other servers, and what nothing could be faster than."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

from benchmarks.processes import FOLDER, Child, child


def install_peer() -> None:
    """`npm ci`, once."""
    if not (FOLDER / "node" / "node_modules" / "socket.io").exists():
        subprocess.run(
            ["npm", "ci", "--silent", "--omit=optional", "--no-audit", "--no-fund"],
            cwd=FOLDER / "node",
            check=True,
            stdin=subprocess.DEVNULL,
        )


def socketio_peer(folder: Path) -> contextlib.AbstractAsyncContextManager[Child]:
    """Socket.IO on Node; see node/peer.mjs."""
    install_peer()
    environment = {**os.environ, "NODE_ENV": "production"}
    return child(["node", str(FOLDER / "node" / "peer.mjs")], folder / "node.log", environment=environment)


def write_loop(folder: Path, count: int) -> contextlib.AbstractAsyncContextManager[Child]:
    """The C loop; see c/write_loop.c."""
    binary = folder / "write_loop"
    subprocess.run(["cc", "-O2", "-o", str(binary), str(FOLDER / "c" / "write_loop.c")], check=True)
    return child([str(binary), str(count)], folder / "write_loop.log")
