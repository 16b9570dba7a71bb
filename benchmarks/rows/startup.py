"""The measurement P12: how long `make dev` takes, on a warm install, until the first connection is served."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

from benchmarks.load.wire import HANDSHAKE
from benchmarks.machine import Saturation
from benchmarks.measuring import OURS, Options, Result, Series, alternate, bar, summary
from benchmarks.processes import ROOT
from insforge_realtime.pg.embedded.processes import death_watch


async def p12(options: Options, folder: Path) -> AsyncIterator[Result]:
    """Start again and again on the same data folder; only the first start of all makes a cluster."""
    series = Series()
    await start(folder)
    async for result in alternate("P12", options, {OURS: partial(start, folder)}, series):
        yield result
    yield summary(
        "P12",
        "seconds from `make dev` to the first served connection",
        series.figures("seconds", 2),
        [bar(series.median(OURS, "seconds"), 3, " s")],
    )


async def start(folder: Path) -> Result:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("REALTIME_", "DATABASE_"))}
    saturation, begun = Saturation(), time.monotonic()
    with (folder / "dev.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *("make", "dev", f"PORT={port}", f"ARGS=--data-dir {folder / 'data'}"),
            cwd=ROOT, env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True, preexec_fn=death_watch(),
        )  # fmt: skip
    try:
        await first_served(process, port, folder / "dev.log")
        return {"seconds": round(time.monotonic() - begun, 3), **saturation.report()}
    finally:
        # To make's whole session, as a terminal's Ctrl-C goes to the group.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        await process.wait()


async def first_served(process: asyncio.subprocess.Process, port: int, log: Path) -> None:
    """Wait until a client that tries every 10 ms has got the first packet of a session.

    Raises:
        RuntimeError: the command has ended.
    """
    async with asyncio.timeout(120):
        while process.returncode is None:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await greet(port)
                return
            await asyncio.sleep(0.01)
    raise RuntimeError(f"`make dev` has ended:\n{log.read_text()[-2000:]}")


async def greet(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(HANDSHAKE)
        await reader.readuntil(b'0{"sid"')
    finally:
        writer.close()
