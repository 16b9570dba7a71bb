"""What log lines look like, and the thread that writes a server's."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from insforge_realtime import log_thread
from insforge_realtime.log_thread import ThreadedHandler

PASSWORD = "hunter2"


def run(program: str, log_format: str) -> list[str]:
    """The lines that a program writes to standard error in the server's log."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={"REALTIME_LOG_FORMAT": log_format},
        capture_output=True,
        text=True,
        cwd="/",
        timeout=60,
        check=True,
    )
    assert done.stdout == ""
    return done.stderr.splitlines()


FAILING = """
    import asyncio, gc, logging, sys, threading, warnings
    import structlog, uvloop
    from insforge_realtime import config, logs

    def fail(token):
        payload = {"password": token}
        raise ValueError("it failed")

    class Lost:
        def __del__(self):
            fail("".join(["hun", "ter2"]))

    async def unseen():
        asyncio.get_running_loop().set_exception_handler(logs.tell_of_the_loop)
        asyncio.create_task(never_awaited("".join(["hun", "ter2"])))
        asyncio.get_running_loop().call_soon(fail, "".join(["hun", "ter2"]))
        await asyncio.sleep(0)
        gc.collect()

    async def never_awaited(token):
        fail(token)

    with logs.of_a_server(config.load()):
        try:
            fail("".join(["hun", "ter2"]))
        except ValueError:
            structlog.get_logger("insforge_realtime").exception("ours")
            logging.getLogger("uvicorn.error").exception("uvicorn's")
            logging.getLogger("somebody").error("the standard library's", exc_info=True)
        asyncio.run(unseen())
        uvloop.run(unseen())
        Lost()
        thread = threading.Thread(target=fail, args=["".join(["hun", "ter2"])])
        thread.start()
        thread.join()
        warnings.warn("a warning")
"""


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_traceback_names_lines_and_never_shows_values_whoever_logs_it(log_format: str) -> None:
    lines = run(FAILING, log_format)
    text = "\n".join(lines)
    for event in (
        "ours",
        "uvicorn's",
        "the standard library's",
        "a thread has ended in an exception",
        "a warning",
        "Exception in callback fail",
        "Task exception was never retrieved",
    ):
        assert event in text
    assert text.count("ValueError: it failed") >= 9
    assert PASSWORD not in text.replace('"".join(["hun", "ter2"])', "")
    if log_format == "json":
        assert all(json.loads(line)["level"] in ("error", "warning") for line in lines)


def test_a_line_that_cannot_be_shown_names_the_place_that_logged_it() -> None:
    lines = run(
        """
        import logging
        from insforge_realtime import config, logs

        with logs.of_a_server(config.load()):
            logging.getLogger("somebody").error("%d", "hunter2")
        """,
        "json",
    )
    assert len(lines) == 1
    assert "somebody" in lines[0]
    assert "TypeError" in lines[0]
    assert PASSWORD not in lines[0]


# ---- the thread --------------------------------------------------------------------------------------------


class Pipe:
    """A pipe whose write end a handler has; read at will."""

    def __init__(self, room: int) -> None:
        self.reader, writer = os.pipe()
        self.stream: TextIO = os.fdopen(writer, "w", encoding="utf-8")
        self.handler = handler(self.stream, room)

    def say(self, *lines: object) -> None:
        for line in lines:
            self.handler.handle(record(line))

    def read(self, size: int = 1 << 20) -> str:
        return os.read(self.reader, size).decode()

    def close(self) -> None:
        os.close(self.reader)
        self.stream.close()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    found = Pipe(room=4000)
    yield found
    found.close()


def handler(stream: TextIO, room: int = 0) -> ThreadedHandler:
    return ThreadedHandler(stream, room, lambda lines: record(f"{lines} dropped"))


def record(text: object) -> logging.LogRecord:
    return logging.LogRecord("somebody", logging.INFO, __file__, 1, str(text), (), None)


def fill(pipe: Pipe) -> int:
    """Fill the pipe with x, log lines until one is dropped, and return how many were not."""
    os.set_blocking(pipe.stream.fileno(), False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(pipe.stream.fileno(), b"x" * 4096)
    os.set_blocking(pipe.stream.fileno(), True)
    for said in range(100):
        pipe.say(f"{said:0999}")
        if pipe.handler._dropped:
            return said
    raise AssertionError("nothing was dropped")


def read_until(pipe: Pipe, text: str) -> list[str]:
    found = ""
    while text not in found or not found.endswith("\n"):
        found += pipe.read()
    return found.lstrip("x").splitlines()


def test_lines_are_written_in_their_order_whichever_thread_logs_them(pipe: Pipe) -> None:
    pipe.say(*range(100))
    other = threading.Thread(target=pipe.say, args=range(100, 200))
    other.start()
    other.join()
    pipe.handler.flush()
    assert pipe.read().splitlines() == [str(number) for number in range(200)]


def test_what_nobody_reads_waits_up_to_a_limit_then_lines_are_dropped_and_their_number_stands_in_their_place(
    pipe: Pipe,
) -> None:
    said = fill(pipe)
    assert said == 4  # of 1 000 bytes each
    pipe.say("a" * 1000, "b" * 1000)
    lines = read_until(pipe, "dropped")
    assert lines == [*(f"{number:0999}" for number in range(said)), "3 dropped"]
    pipe.say("again")
    pipe.handler.flush()
    assert pipe.read() == "again\n"


def test_what_was_dropped_is_reported_before_the_next_line_for_which_there_is_room(pipe: Pipe) -> None:
    said = fill(pipe)
    pipe.handler._room = 5000
    pipe.say("the next")
    assert read_until(pipe, "the next") == [*(f"{number:0999}" for number in range(said)), "1 dropped", "the next"]


def test_the_end_waits_for_a_reader_that_is_stuck_but_not_long_and_once(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_thread, "LAST_LINES_SECONDS", 0.2)
    fill(pipe)
    pipe.handler.flush()
    assert pipe.handler._gave_up
    monkeypatch.setattr(log_thread, "LAST_LINES_SECONDS", 3600)
    pipe.handler.flush()


def test_the_end_with_the_handler_locked_as_logging_does_it_waits_for_nothing_else(pipe: Pipe) -> None:
    pipe.say("last")
    pipe.handler.acquire()
    pipe.handler.flush()
    pipe.handler.release()
    assert not pipe.handler._gave_up
    assert pipe.read() == "last\n"


def test_a_reader_that_is_gone_is_not_an_error_and_the_next_one_learns_how_many_lines_it_missed(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    first = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    stream = fifo.open("w", encoding="utf-8")
    written = handler(stream)
    written.handle(record("one"))
    written.flush()
    assert os.read(first, 100) == b"one\n"
    os.close(first)
    for _ in range(3):
        written.handle(record("nobody hears it"))
        written.flush()
    second = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    written.handle(record("two"))
    written.flush()
    assert os.read(second, 100) == b"3 dropped\ntwo\n"
    os.close(second)
    stream.close()


def test_a_descriptor_that_somebody_else_made_nonblocking_loses_no_line(pipe: Pipe) -> None:
    os.set_blocking(pipe.stream.fileno(), False)
    unlimited = handler(pipe.stream)
    for number in range(5000):
        unlimited.handle(record(f"{number:099}"))
    assert read_until(pipe, f"{4999:099}") == [f"{number:099}" for number in range(5000)]


def test_a_full_disk_is_not_an_error() -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        written = handler(full)
        written.handle(record("no room"))
        written.flush()
        assert not written._gave_up
