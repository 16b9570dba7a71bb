"""What waits for a transport: in order, counted, and with a say when it becomes too much."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insforge_realtime import delivery
from insforge_realtime.config import Config
from insforge_realtime.web.limits import Limits
from insforge_realtime.web.transports.send_queue import SendQueue


class Congestion(delivery.Congestion):
    """The real one, which shows who is full."""

    @property
    def full(self) -> list[object]:
        return list(self._fresh)


def backlog(limit: int = 100, high_water: int = 40) -> tuple[SendQueue, Congestion]:
    congestion = Congestion()
    limits = replace(Limits.of(Config()), max_buffered_bytes=limit, high_water=high_water)
    return SendQueue(limits, congestion), congestion


def test_packets_come_out_in_the_order_in_which_they_went_in() -> None:
    waiting, _ = backlog()
    assert not waiting
    assert waiting.add(["a", "bb"], 3)
    assert waiting.add(["c"], 1)
    assert waiting
    assert waiting.take(float("inf")) == ["a", "bb", "c"]
    assert not waiting
    assert waiting.take(10) == []


@pytest.mark.parametrize(
    ("size", "taken"), [(0, ["aaaa"]), (4, ["aaaa"]), (5, ["aaaa"]), (6, ["aaaa", "bb"]), (99, ["aaaa", "bb", "c"])]
)
def test_so_much_is_taken_at_a_time_and_at_least_one_packet(size: int, taken: list[str]) -> None:
    waiting, _ = backlog()
    waiting.add(["aaaa", "bb", "c"], 7)
    assert waiting.take(size) == taken


def test_too_much_is_what_waits_already_and_never_where_there_is_no_limit() -> None:
    waiting, _ = backlog(limit=10)
    assert waiting.add(["x" * 10], 10)
    assert waiting.add(["x"], 1)
    assert not waiting.add(["x"], 1)
    waiting.take(0)
    assert waiting.add(["x" * 9], 9)
    assert backlog(limit=10)[0].add(["x" * 11], 11), "one message is never by itself a backlog"
    unlimited, _ = backlog(limit=0)
    assert unlimited.add(["x"], 10**12)


def test_a_full_one_says_so_once_and_again_when_it_has_shrunk_to_a_quarter() -> None:
    waiting, congestion = backlog(high_water=40)
    waiting.add(["x" * 40], 40)
    assert congestion.full == []
    waiting.add(["x" * 10] * 4, 40)
    waiting.add(["x"], 1)
    assert congestion.full == [waiting]
    waiting.take(0)
    waiting.take(20)
    assert congestion.full == [waiting]  # 21 are left
    waiting.take(0)
    assert congestion.full == [waiting]
    waiting.take(0)
    assert congestion.full == []


def test_what_is_cleared_is_gone_and_counts_no_more() -> None:
    waiting, congestion = backlog(limit=100)
    waiting.add(["x" * 100], 100)
    waiting.clear()
    assert congestion.full == []
    assert waiting.take(float("inf")) == []
    assert waiting.add(["x" * 100], 100)


@given(st.lists(st.lists(st.text(max_size=30), max_size=4) | st.integers(0, 60)))
def test_nothing_is_lost_and_the_count_is_right_whatever_is_added_and_taken(steps: list[list[str] | int]) -> None:
    waiting, congestion = backlog(limit=100, high_water=40)
    model: list[str] = []
    for step in steps:
        if isinstance(step, list):
            fits = waiting.add(step, sum(map(len, step)))
            assert fits == (sum(map(len, [*model, *step])) - max(map(len, step), default=0) <= 100)
            model += step if fits else []
        else:
            taken = waiting.take(step)
            assert taken == model[: len(taken)]
            model = model[len(taken) :]
            assert sum(map(len, taken[1:])) + (len(taken[0]) if taken else 0) <= max(
                step, len(taken[0]) if taken else 0
            )
        assert bool(waiting) == bool(model)
        if sum(map(len, model)) > 40:
            assert congestion.full == [waiting]
        if not model and not isinstance(step, list):
            assert congestion.full == []
