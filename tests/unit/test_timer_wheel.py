"""One timer for all deadlines, turned by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import cast

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from insforge_realtime.web.timer_wheel import SLOT_SECONDS, TimerWheel


class Clock:
    """The one thing that a wheel wants of a loop."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def time(self) -> float:
        return self.now


class Timed:
    """Notes when it is asked, and answers with what `react` says."""

    def __init__(self, react: Callable[[float], float | None] = lambda now: None) -> None:
        self.asked: list[float] = []
        self.react = react

    def tick(self, now: float) -> float | None:
        self.asked.append(now)
        return self.react(now)


def make_wheel(now: float = 1000.0) -> TimerWheel:
    return TimerWheel(cast(asyncio.AbstractEventLoop, Clock(now)))


def turn_until(wheel: TimerWheel, start: float, end: float, step: float = SLOT_SECONDS) -> None:
    now = start
    while now < end:
        now += step
        wheel.turn(now)


def test_it_asks_at_the_deadline_or_within_a_slot_after_it_and_never_before() -> None:
    for offset in (0.0, 0.001, 0.249, 0.25, 0.3, 7.77):
        wheel, timed = make_wheel(), Timed()
        wheel.schedule(timed, 1000.0 + offset)
        turn_until(wheel, 1000.0, 1010.0, 0.01)
        (asked,) = timed.asked
        assert 0 <= asked - (1000.0 + offset) <= SLOT_SECONDS + 0.011


@given(
    begun=st.floats(0, 1e6),
    deadlines=st.lists(st.floats(0, 20), min_size=1, max_size=20),
    lags=st.lists(st.floats(0, 0.1), min_size=100, max_size=100),
)
def test_whatever_the_clock_says_nobody_is_asked_early_or_later_than_a_slot_and_what_the_loop_lags(
    begun: float, deadlines: list[float], lags: list[float]
) -> None:
    """The loop is one of our own, whose sleeps take as long as they are told, and a lag more."""
    clock = Clock(begun)
    wheel = TimerWheel(cast(asyncio.AbstractEventLoop, clock))
    asked = [(begun + deadline, Timed()) for deadline in deadlines]
    for deadline, timed in asked:
        wheel.schedule(timed, deadline)
    run, waiting = wheel.run(), iter(lags)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("insforge_realtime.web.timer_wheel.asyncio.sleep", _sleep_on(clock, waiting))
        with pytest.raises(_NoMoreLags):
            run.send(None)
    for deadline, timed in asked:
        (at,) = timed.asked
        assert deadline <= at < deadline + SLOT_SECONDS + 0.1 + 1e-6


class _NoMoreLags(Exception):
    pass


def _sleep_on(clock: Clock, lags: Iterator[float]) -> Callable[[float], Awaitable[None]]:
    async def sleep(seconds: float) -> None:
        lag = next(lags, None)
        if lag is None:
            raise _NoMoreLags
        clock.now += max(seconds, 0.0) + lag

    return sleep


def test_a_deadline_in_the_past_is_due_at_the_next_turn() -> None:
    wheel, timed = make_wheel(), Timed()
    wheel.schedule(timed, 0.0)
    wheel.turn(1000.0)
    assert timed.asked == []
    wheel.turn(1000.25)
    assert timed.asked == [1000.25]


def test_it_asks_again_when_it_is_told_and_not_at_all_when_told_never() -> None:
    wheel = make_wheel()
    timed = Timed(lambda now: now + 1.0 if now < 1003 else None)
    wheel.schedule(timed, 1001.0)
    turn_until(wheel, 1000.0, 1020.0)
    assert [round(asked - 1000, 2) for asked in timed.asked] == [1.0, 2.0, 3.0]


def test_a_deadline_that_has_moved_on_costs_one_question() -> None:
    deadline = 1001.0
    wheel = make_wheel()
    timed = Timed(lambda now: deadline if now < deadline else None)
    wheel.schedule(timed, deadline)
    deadline = 1005.0  # moved, and the wheel not told
    turn_until(wheel, 1000.0, 1004.6)
    assert len(timed.asked) == 1
    turn_until(wheel, 1005.0, 1006.0)
    assert len(timed.asked) == 2
    assert timed.asked[1] >= 1005.0


def test_a_wheel_that_was_held_up_catches_up() -> None:
    wheel, early, late, future = make_wheel(), Timed(), Timed(), Timed()
    wheel.schedule(early, 1001.0)
    wheel.schedule(late, 1050.0)
    wheel.schedule(future, 1070.0)
    wheel.turn(1060.0)
    assert (early.asked, late.asked, future.asked) == ([1060.0], [1060.0], [])
    wheel.turn(1070.25)
    assert future.asked == [1070.25]


def test_time_that_stands_still_asks_nobody_twice() -> None:
    wheel, timed = make_wheel(), Timed(lambda now: now)
    wheel.schedule(timed, 1000.0)
    wheel.turn(1001.0)
    wheel.turn(1001.0)
    assert len(timed.asked) == 1


def test_one_that_fails_is_logged_and_forgotten_and_the_others_are_asked() -> None:
    wheel, before, after = make_wheel(), Timed(), Timed()

    def fail(now: float) -> float | None:
        raise RuntimeError("broken")

    broken = Timed(fail)
    for timed in (before, broken, after):
        wheel.schedule(timed, 1001.0)
    with capture_logs() as logs:
        turn_until(wheel, 1000.0, 1005.0)
    assert [len(timed.asked) for timed in (before, broken, after)] == [1, 1, 1]
    assert [line["event"] for line in logs] == ["deadline failed"]


def test_a_question_may_schedule_others() -> None:
    wheel, other = make_wheel(), Timed()

    def schedule_other(now: float) -> float | None:
        wheel.schedule(other, now)
        return None

    wheel.schedule(Timed(schedule_other), 1001.0)
    turn_until(wheel, 1000.0, 1003.0)
    assert other.asked == [1001.25]


async def test_it_turns_by_itself() -> None:
    loop = asyncio.get_running_loop()
    wheel, asked = TimerWheel(loop), asyncio.Event()

    def note(now: float) -> float | None:
        asked.set()
        return None

    wheel.schedule(Timed(note), loop.time())
    turning = asyncio.create_task(wheel.run())
    async with asyncio.timeout(10):
        await asked.wait()
    turning.cancel()


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_on_a_real_loop_too_a_deadline_is_late_by_less_than_a_slot(
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def late() -> list[float]:
        loop, begun = asyncio.get_running_loop(), asyncio.get_running_loop().time()
        wheel, done, found = TimerWheel(loop), asyncio.Event(), []

        def note(deadline: float) -> Callable[[float], float | None]:
            def react(now: float) -> float | None:
                found.append(now - deadline)
                if len(found) == 40:
                    done.set()
                return None

            return react

        # All over the slots, and on one that is half over: what a wheel that turns by its own last turn gets wrong.
        await asyncio.sleep(0.6 * SLOT_SECONDS - begun % SLOT_SECONDS + SLOT_SECONDS)
        turning = asyncio.create_task(wheel.run())
        for number in range(40):
            deadline = begun + 0.6 + number * 0.013
            wheel.schedule(Timed(note(deadline)), deadline)
        async with asyncio.timeout(10):
            await done.wait()
        turning.cancel()
        return found

    with asyncio.Runner(loop_factory=make_loop) as runner:
        found = runner.run(late())
    assert min(found) >= 0
    # The machine may be busy: the least late of a slot's deadlines says by how much it was.
    assert sorted(found)[len(found) * 3 // 4] < SLOT_SECONDS
