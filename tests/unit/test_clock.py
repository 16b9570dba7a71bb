"""What the two clocks tell of each other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insforge_realtime.pg.clock import DatabaseClock


class Pair:
    """Our clock, the database's, and what is known of it."""

    def __init__(self) -> None:
        self.ours = 1000.0
        self.ahead = 1.7e9
        self.clock = DatabaseClock(lambda: self.ours)

    def look(self, question: float = 0.01, answer: float = 0.01) -> float:
        """Ask, with so long a way to the database and back."""
        asked = self.ours
        self.ours += question
        time = self.ours + self.ahead
        self.ours += answer
        return self.clock.seen(time, asked)


@pytest.fixture
def pair() -> Pair:
    return Pair()


def test_nothing_is_believed_before_the_first_look(pair: Pair) -> None:
    assert (pair.clock.believed(), pair.clock.watched()) == (None, 0.0)
    assert pair.look() == 0.0
    believed = pair.clock.believed()
    assert believed is not None
    assert believed == pytest.approx(pair.ours + pair.ahead, abs=0.02)


@pytest.mark.parametrize("step", [3600.0, -3600.0, 1.5, -1.5])
def test_a_step_is_seen_at_once_and_the_watch_begins_anew(pair: Pair, step: float) -> None:
    pair.look()
    pair.ours += 100
    assert pair.look() == 0.0
    assert pair.clock.watched() > 100
    pair.ahead += step
    assert pair.look() == pytest.approx(step, abs=0.05)
    assert pair.clock.watched() < 0.1
    assert pair.look() == 0.0


def test_what_is_believed_before_the_look_knows_nothing_of_a_step(pair: Pair) -> None:
    pair.look()
    before = pair.clock.believed()
    pair.ahead += 3600
    assert pair.clock.believed() == before


def test_drift_is_not_a_step_however_much_it_comes_to(pair: Pair) -> None:
    for _ in range(10_000):
        pair.ours += 5
        pair.ahead += 0.0005
        assert pair.look() == 0.0
    assert pair.clock.watched() > 50_000


@given(st.lists(st.tuples(st.floats(0, 15), st.floats(0, 15), st.floats(0, 60))))
def test_slow_answers_are_not_steps_and_nothing_is_believed_that_is_ahead(
    ways: list[tuple[float, float, float]],
) -> None:
    pair = Pair()
    for question, answer, pause in ways:
        assert pair.look(question, answer) == 0.0
        pair.ours += pause
        believed = pair.clock.believed()
        assert believed is not None
        assert believed <= pair.ours + pair.ahead + 1e-3


def test_after_a_slow_answer_the_next_quick_one_is_as_sharp_as_ever(pair: Pair) -> None:
    _check_sharp(pair.look, pair)


def _check_sharp(look: Callable[..., float], pair: Pair) -> None:
    look()
    look(5, 5)
    pair.ahead += 2
    assert look() == pytest.approx(2, abs=0.05)
