"""Whose turn is next, and who is suspected of being slow."""

from __future__ import annotations

from typing import TypeVar

from hypothesis import given
from hypothesis import strategies as st

from insforge_realtime.pg.turns import MOST_SUSPECTS, SUSPECTED_SECONDS, Suspects, Turns

T = TypeVar("T")


def drained(turns: Turns[T]) -> list[T]:
    found: list[T] = []
    while turns:
        found.append(turns.pop())
    return found


def test_one_owner_is_served_in_order() -> None:
    turns: Turns[str] = Turns()
    for item in "abc":
        turns.push("one", item)
    assert drained(turns) == ["a", "b", "c"]


def test_a_newcomer_waits_for_one_request_of_each_other_owner() -> None:
    turns: Turns[str] = Turns()
    for number in range(1000):
        turns.push("greedy", f"greedy {number}")
    turns.push("honest", "honest")
    assert drained(turns)[:2] == ["greedy 0", "honest"]


@given(st.lists(st.one_of(st.sampled_from("abcd"), st.none()), max_size=200))
def test_whatever_comes_and_goes_nothing_is_lost_and_nobody_is_passed_over(steps: list[str | None]) -> None:
    turns: Turns[tuple[str, int]] = Turns()
    waiting: dict[str, list[int]] = {}
    passed: dict[str, dict[str, int]] = {}
    for number, owner in enumerate(steps):
        if owner is not None:
            turns.push(owner, (owner, number))
            if not waiting.get(owner):
                passed[owner] = {}
            waiting.setdefault(owner, []).append(number)
        elif turns:
            served, item = turns.pop()
            assert waiting[served].pop(0) == item
            passed[served] = {}
            for other, numbers in waiting.items():
                if numbers and other != served:
                    passed[other][served] = passed[other].get(served, 0) + 1
                    assert passed[other][served] == 1, "served twice while another waited"
    assert sorted(drained(turns)) == sorted((owner, item) for owner, items in waiting.items() for item in items)


def test_an_owner_that_was_slow_is_suspected_for_a_while() -> None:
    suspects = Suspects()
    suspects.suspect("one", "order", 10.0)
    assert suspects.includes("one", "chat", 11.0)
    assert not suspects.includes("one", "chat", 10.0 + SUSPECTED_SECONDS)
    assert not suspects.includes("two", "order", 11.0), "one user's slowness gives a kind of channel a bad name"


def test_a_kind_that_was_slow_for_two_is_suspected_for_everybody() -> None:
    suspects = Suspects()
    suspects.suspect("one", "order", 10.0)
    suspects.suspect("one", "order", 11.0)
    assert not suspects.includes("three", "order", 12.0)
    suspects.suspect("two", "order", 12.0)
    suspects.suspect("two", "order", 13.0)
    assert suspects.includes("three", "order", 14.0)
    assert not suspects.includes("three", "chat", 14.0)
    assert not suspects.includes("three", "order", 13.0 + SUSPECTED_SECONDS)


def test_two_that_were_slow_long_apart_do_not_count_as_two() -> None:
    suspects = Suspects()
    suspects.suspect("one", "order", 10.0)
    suspects.suspect("two", "order", 11.0 + SUSPECTED_SECONDS)
    assert not suspects.includes("three", "order", 12.0 + SUSPECTED_SECONDS)


def test_what_is_suspected_anew_is_reported() -> None:
    suspects = Suspects()
    assert suspects.suspect("one", "order", 10.0)
    assert not suspects.suspect("one", "order", 11.0)
    assert suspects.suspect("two", "order", 12.0), "an owner, and now the kind for everybody"
    assert not suspects.suspect("one", "order", 13.0)
    assert not suspects.suspect("two", "order", 14.0)
    assert not suspects.suspect("one", "chat", 15.0)
    assert suspects.suspect("two", "chat", 16.0), "the kind"
    assert suspects.suspect("one", "order", 60.0), "it was long ago"


def test_no_more_are_remembered_than_there_is_room_for() -> None:
    suspects = Suspects()
    for number in range(MOST_SUSPECTS + 10):
        suspects.suspect(f"user {number}", f"kind {number}", 1.0)
    assert not suspects.includes("user 9", "", 2.0)
    assert suspects.includes("user 10", "", 2.0)
