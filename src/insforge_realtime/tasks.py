"""Background tasks: kept until they end, and an exception that ends one is logged.

asyncio holds only a weak reference to a task. And it reports what a task died of when the garbage collector finds the task:
late if somebody keeps it, and never if somebody has looked at it on the way out (`gather(…, return_exceptions=True)`). So
every task of this package starts here, except for those that their creator awaits; tests/unit/test_tasks.py lists these.
(Callbacks of the loop, `call_later` and the like, need nothing: asyncio logs at once what they raise.)

The standard library's logging, so that both halves of the package can use it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

log = logging.getLogger(__name__)

_running: set[asyncio.Task[Any]] = set()


def start(work: Coroutine[Any, Any, T], name: str, kept: set[asyncio.Task[Any]] = _running) -> asyncio.Task[T]:
    """Start a task that outlives its caller, and return it.

    Args:
        work: what to do.
        name: what the log calls it.
        kept: where the task is until it has ended, for callers that must know what is under way.
    """
    task = asyncio.get_running_loop().create_task(work, name=name)
    kept.add(task)
    task.add_done_callback(kept.discard)
    task.add_done_callback(_log_failure)
    return task


def _log_failure(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a task failed: %s", task.get_name(), exc_info=error)
