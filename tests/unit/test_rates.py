"""Token buckets: one for each owner, however many connections that has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insforge_realtime.model import Owner
from insforge_realtime.rates import BURST_SECONDS, MOST_REMEMBERED, Bucket, Buckets


@given(
    st.lists(st.tuples(st.floats(0, 0.5), st.integers(1, 200)), max_size=300),
    st.floats(0.5, 50),
    st.integers(100, 1000),
)
def test_never_more_than_the_rate_and_one_burst_in_any_stretch_of_time(
    steps: list[tuple[float, int]], rate: float, size: int
) -> None:
    bucket, now = Bucket(rate, size, 0.0), 0.0
    taken: list[tuple[float, int]] = []
    for pause, message in steps:
        now += pause
        if bucket.take(message, now) is None:
            taken.append((now, message))
    burst = max(1.0, BURST_SECONDS * rate)
    for first, (begun, _) in enumerate(taken):
        for last in range(first, len(taken)):
            passed = taken[last][0] - begun
            assert last - first + 1 <= burst + rate * passed + 1e-6
            assert sum(message for _, message in taken[first : last + 1]) <= BURST_SECONDS * size + size * passed + 1e-6


def test_what_is_larger_than_the_bucket_passes_when_that_is_full_and_leaves_a_debt() -> None:
    bucket = Bucket(100, 1000, 0.0)
    assert bucket.take(50_000, 0.0) is None
    assert bucket.take(1, 48.0) == "bytes"
    assert bucket.take(1, 49.0) is None


def test_a_limit_of_zero_is_none() -> None:
    bucket = Bucket(0, 0, 0.0)
    assert {bucket.take(10**9, 0.0) for _ in range(1000)} == {None}


def test_all_connections_of_an_owner_share_one_bucket() -> None:
    buckets = Buckets(10, 0)
    first, second = buckets.of(Owner("a"), 0.0), buckets.of(Owner("a"), 0.0)
    assert [bucket.take(1, 0.0) for bucket in [first, second] * 15].count(None) == 20
    assert buckets.of(Owner("b"), 0.0).take(1, 0.0) is None


def test_an_owner_that_may_be_many_gets_as_much_as_many() -> None:
    bucket = Buckets(10, 0).of(Owner("address", share=3), 0.0)
    assert [bucket.take(1, 0.0) for _ in range(100)].count(None) == 60


@pytest.mark.parametrize(("away", "allowed"), [(0.0, 0), (0.5, 5), (100.0, 20)])
def test_an_owner_that_comes_back_finds_what_was_left(away: float, allowed: int) -> None:
    buckets = Buckets(10, 0)
    bucket = buckets.of(Owner("a"), 0.0)
    while bucket.take(1, 0.0) is None:
        pass
    buckets.release(Owner("a"), 0.0)
    bucket = buckets.of(Owner("a"), away)
    assert [bucket.take(1, away) for _ in range(30)].count(None) == allowed


@pytest.mark.parametrize(("rate", "size"), [(1, 0), (0, 1), (1, 1), (0, 0)])
def test_buckets_that_are_full_again_are_forgotten_and_the_others_are_bounded(rate: float, size: float) -> None:
    buckets = Buckets(rate, size)
    for number in range(MOST_REMEMBERED + 100):
        buckets.of(Owner(str(number)), 0.0).take(1, 0.0)
        buckets.release(Owner(str(number)), 0.0)
    assert len(buckets) == MOST_REMEMBERED if rate or size else len(buckets) <= 2
    for number in range(MOST_REMEMBERED):
        buckets.of(Owner("visitor"), 10.0 + number)
        buckets.release(Owner("visitor"), 10.0 + number)
    assert len(buckets) <= 2
