"""Starts the load generators, each for the length of a block. What they do lives in their own files."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from benchmarks.processes import Child, child


@contextlib.asynccontextmanager
async def generator(module: str, folder: Path, *arguments: str) -> AsyncIterator[Child]:
    """Run a module of this package as a process.

    Args:
        module: its name below `benchmarks`; also that of its log.
        folder: where the log goes.
        arguments: of its command line.
    """
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    async with child(command, folder / f"{module}.log") as running:
        yield running


@contextlib.asynccontextmanager
async def _greeted(module: str, folder: Path) -> AsyncIterator[Child]:
    """Run a generator whose greeting says only that it is there."""
    async with generator(module, folder) as running:
        await running.line()
        yield running


def crowd(folder: Path) -> contextlib.AbstractAsyncContextManager[Child]:
    """Run the subscribers that count; see crowd.py."""
    return _greeted("load.crowd", folder)


def callers(folder: Path) -> contextlib.AbstractAsyncContextManager[Child]:
    """Run the clients that call and take the time; see callers.py."""
    return _greeted("load.callers", folder)


def residents(folder: Path) -> contextlib.AbstractAsyncContextManager[Child]:
    """Run the connections that stay; see growth/residents.py."""
    return _greeted("growth.residents", folder)


def population(folder: Path) -> contextlib.AbstractAsyncContextManager[Child]:
    """Run the clients of the soak; see soak/population.py."""
    return _greeted("soak.population", folder)


def webhook_receiver(folder: Path) -> contextlib.AbstractAsyncContextManager[Child]:
    """Run the other end of webhooks, whose first line is yet to be read: its ports; see webhook_receiver.py."""
    return generator("load.webhook_receiver", folder)
