"""No task ends in an exception that nobody sees: the helper says it, and the source has no way around the helper."""

from __future__ import annotations

import ast
import asyncio
import gc
import logging
import weakref
from pathlib import Path

import pytest

from insforge_realtime import tasks
from insforge_realtime.client import ConnectError, create_client

SOURCE = Path(tasks.__file__).parent

# Where a task is made otherwise: how often, and who sees what it raises.
MADE_OTHERWISE = {
    "tasks.py": (1, "the helper itself"),
    "cli/serve.py": (1, "serve() awaits uvicorn"),
    "pg/coalescer.py": (1, "a TaskGroup raises what its tasks raise"),
    "web/transports/polling.py": (1, "_poll() takes the result of the answer, which may be a refusal"),
    "webhooks/guard.py": (1, "a lookup raises for all who wait for it, and they await it"),
    "cli/client.py": (1, "the first error of several followers is the command's, and ends it"),
    "client/connection.py": (1, "the runner says itself what it fails with"),
    "client/link.py": (2, "waits of the library, cancelled by close()"),
    "client/sync.py": (2, "whoever called waits for it in another thread"),
}
MAKERS = {"create_task", "ensure_future", "Task", "run_coroutine_threadsafe"}
# Exceptions of others that a gather swallows: how often, and who has said them.
SWALLOWED = {
    "app.py": (1, "the parts, made by the helper"),
    "cli/dev.py": (1, "made by the helper"),
    "pg/patience.py": (1, "made by the helper"),
    "web/transports/asgi_websocket.py": (1, "made by the helper"),
    "webhooks/worker.py": (1, "made by the helper"),
    "cli/client.py": (1, "the first error is raised; the others are of followers that are cancelled"),
    "client/link.py": (1, "made by the helper"),
}


def _calls(file: Path) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]


def _name(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _found(wanted: object) -> dict[str, int]:
    counts = {
        str(file.relative_to(SOURCE)): sum(map(wanted, _calls(file)))  # type: ignore[call-overload]
        for file in SOURCE.rglob("*.py")
    }
    return {name: count for name, count in counts.items() if count}


def test_every_task_begins_in_the_helper_or_has_somebody_who_sees_its_end() -> None:
    assert _found(lambda call: _name(call) in MAKERS) == {name: count for name, (count, _) in MADE_OTHERWISE.items()}


def test_every_gather_that_swallows_exceptions_swallows_only_what_has_been_said() -> None:
    found = _found(lambda call: any(keyword.arg == "return_exceptions" for keyword in call.keywords))
    assert found == {name: count for name, (count, _) in SWALLOWED.items()}


async def test_what_a_task_fails_with_is_logged_at_once_with_its_name(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        raise ValueError("broken")

    task = tasks.start(work(), "some work")  # kept, so that no garbage collector could say it
    await asyncio.wait({task})
    await asyncio.sleep(0)
    (line,) = caplog.records
    assert (line.levelno, line.getMessage()) == (logging.ERROR, "a task failed: some work")
    assert isinstance(line.exc_info and line.exc_info[1], ValueError)
    assert task.done()


async def test_a_task_that_ends_well_or_is_cancelled_is_not_worth_a_line(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> str:
        return "done"

    assert await tasks.start(work(), "some work") == "done"
    endless = tasks.start(asyncio.Event().wait(), "endless work")
    await asyncio.sleep(0)
    endless.cancel()
    await asyncio.wait({endless})
    assert caplog.records == []


async def test_a_task_is_kept_until_it_has_ended_although_nobody_else_does() -> None:
    waited_for: list[weakref.ref[asyncio.Future[None]]] = []
    done = asyncio.Event()

    async def work() -> None:
        future = asyncio.get_running_loop().create_future()
        waited_for.append(weakref.ref(future))
        await future  # which refers to the task, and only the task to it
        done.set()

    tasks.start(work(), "some work")
    await asyncio.sleep(0)
    gc.collect()
    future = waited_for[0]()
    assert future is not None
    future.set_result(None)
    async with asyncio.timeout(10):
        await done.wait()
    await asyncio.sleep(0)
    assert not tasks._running


async def test_a_client_whose_loop_fails_says_so_and_leaves_nobody_waiting(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("insforge_realtime.client.connection.Connection._attempt", fail)
    async with asyncio.timeout(10):
        with pytest.raises(ConnectError, match="RuntimeError"):
            await create_client("http://127.0.0.1:9").connect()
    assert [line.getMessage() for line in caplog.records] == ["the connection cannot be kept up"]
