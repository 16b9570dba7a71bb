"""Starts the load generators, each for the length of a block. What they do lives in their own files."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from benchmarks.processes import Child, child


@contextlib.asynccontextmanager
async def greeted(module: str, folder: Path, *arguments: str) -> AsyncIterator[Child]:
    """Run a module of the benchmarks as a process, once it has greeted with a line that has nothing in it.

    Args:
        module: its name below `benchmarks`; also that of its log.
        folder: where the log goes.
        arguments: of its command line.
    """
    async with _generator(module, folder, *arguments) as running:
        await running.line()
        yield running


def _generator(module: str, folder: Path, *arguments: str) -> contextlib.AbstractAsyncContextManager[Child]:
    return child([sys.executable, "-m", f"benchmarks.{module}", *arguments], folder / f"{module}.log")


def crowd(folder: Path) -> contextlib.AbstractAsyncContextManager[Child]:
    """Run the subscribers that count; see crowd.py."""
    return greeted("load.crowd", folder)


def callers(folder: Path) -> contextlib.AbstractAsyncContextManager[Child]:
    """Run the clients that call and take the time; see callers.py."""
    return greeted("load.callers", folder)


def residents(folder: Path) -> contextlib.AbstractAsyncContextManager[Child]:
    """Run the connections that stay; see growth/residents.py."""
    return greeted("growth.residents", folder)


def population(folder: Path) -> contextlib.AbstractAsyncContextManager[Child]:
    """Run the clients of the soak; see soak/population.py."""
    return greeted("soak.population", folder)


def webhook_receiver(folder: Path) -> contextlib.AbstractAsyncContextManager[Child]:
    """Run the other end of webhooks, whose first line is yet to be read: its ports; see webhook_receiver.py."""
    return _generator("load.webhook_receiver", folder)
