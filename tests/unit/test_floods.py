"""The log under attack: what is written, what is counted, and that nothing is left out in silence."""

from __future__ import annotations

import asyncio
import atexit
import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from insforge_realtime import floods, logs
from insforge_realtime.config import load
from insforge_realtime.floods import BURST, Floods


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@given(st.lists(st.tuples(st.floats(0, 3), st.sampled_from("ab")), max_size=300))
def test_of_each_kind_no_more_than_the_rate_passes_and_every_other_line_is_counted(
    lines: list[tuple[float, str]],
) -> None:
    told: dict[str, int] = {}
    clock = Clock()

    def tell(kind: str, left_out: int, ever: int) -> None:
        told[kind] = told.get(kind, 0) + left_out
        assert ever >= told[kind]

    bounds = Floods(2, tell, now=clock)
    passed = {"a": 0, "b": 0}
    for number, (pause, kind) in enumerate(lines):
        clock.now += pause
        passed[kind] += bounds.passes(kind)
        assert passed[kind] <= 2 * BURST + 2 * clock.now + 1e-6
        if number % 7 == 0:
            bounds.tell(kind)
    bounds.tell_all()
    for kind in "ab":
        assert passed[kind] + told.get(kind, 0) == sum(of == kind for _, of in lines)
    if len(lines) < 2 * BURST:
        assert told == {}


def test_one_kind_does_not_take_the_place_of_another_and_no_rate_bounds_nothing() -> None:
    bounds = Floods(1, lambda *_: None, now=Clock())
    assert sum(bounds.passes("flood") for _ in range(1000)) == BURST
    assert bounds.passes("other")
    assert all(Floods(0, lambda *_: None).passes("flood") for _ in range(1000))


def test_kinds_without_end_are_not_remembered() -> None:
    bounds = Floods(1, lambda *_: None, now=Clock())
    for number in range(3 * floods.KINDS):
        assert bounds.passes(f"kind {number}")
    assert len(bounds._kinds) == floods.KINDS


async def test_a_flood_that_has_ended_is_summed_up_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floods, "TELL_SECONDS", 0.01)
    told: asyncio.Future[tuple[str, int, int]] = asyncio.get_running_loop().create_future()
    bounds = Floods(1, lambda *what: told.set_result(what), now=Clock())
    for _ in range(100):
        bounds.passes("flood")
    async with asyncio.timeout(10):
        assert await told == ("flood", 90, 100)


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """The log of a server with this module's configuration; all is put back afterwards."""
    root = logging.getLogger()
    before, level, text = root.handlers[:], root.level, io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stderr", text)
        logs.configure(load(log_format="json", max_log_lines_per_second=1))
        yield text
    (bounded,) = [found for found in root.handlers[0].filters if isinstance(found, floods.Bounded)]
    atexit.unregister(bounded._floods.tell_all)
    structlog.reset_defaults()
    root.handlers[:] = before
    root.setLevel(level)
    for name in ("uvicorn.error", "uvicorn", "asyncio"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def test_our_lines_and_those_of_libraries_are_bounded_at_the_one_place_where_all_are_written(
    written: io.StringIO,
) -> None:
    ours, theirs = structlog.get_logger("insforge_realtime.web"), logging.getLogger("uvicorn.error")
    for number in range(50):
        ours.info("handshake refused", number=number)
        theirs.warning("Invalid HTTP request %d received.", number)
        logging.getLogger("insforge_realtime.tasks").error("a task failed: %s", "x")
    ours.info("serving")
    events = [json.loads(line)["event"] for line in written.getvalue().splitlines()]
    assert events.count("handshake refused") == BURST
    assert sum(event.startswith("Invalid HTTP request") for event in events) == BURST
    assert events.count("a task failed: x") == BURST
    assert "serving" in events


def test_what_was_left_out_is_logged_at_the_end_although_that_line_comes_often(written: io.StringIO) -> None:
    structlog_logger = structlog.get_logger("insforge_realtime.web")
    bounded = next(found for found in logging.getLogger().handlers[0].filters if isinstance(found, floods.Bounded))
    for kind in range(30):
        for _ in range(15):
            structlog_logger.info(f"kind {kind}")
    bounded._floods.tell_all()
    told = [json.loads(line) for line in written.getvalue().splitlines()]
    told = [line for line in told if line["event"] == floods.LEFT_OUT]
    assert [(line["of"], line["lines"], line["in_all"]) for line in told] == [
        (f"kind {kind}", 5, 15) for kind in range(30)
    ]
