"""The numbers: what falls where, and that all of them begin at nothing and are one server's."""

from __future__ import annotations

from dataclasses import fields

from hypothesis import given
from hypothesis import strategies as st

from insforge_realtime.metrics import MICROSECONDS, SIZES, Histogram, Metrics, RoundTrips


@given(st.lists(st.integers(0, 30)))
def test_a_value_falls_into_the_first_bucket_that_is_large_enough(values: list[int]) -> None:
    histogram = Histogram((1, 5, 20))
    for value in values:
        histogram.observe(value)
    upto = [sum(histogram.counts[: at + 1]) for at in range(4)]
    assert upto == [sum(value <= bound for value in values) for bound in (1, 5, 20, 30)]
    assert (histogram.count, histogram.sum) == (len(values), sum(values))


def test_buckets_ascend() -> None:
    for bounds in (MICROSECONDS, SIZES):
        assert list(bounds) == sorted(set(bounds))


def test_a_round_trip_is_counted_in_microseconds_and_one_that_carried_nothing_has_no_size() -> None:
    trips = RoundTrips()
    trips.observe(0, 0.0001)
    trips.observe(200, 0.5)
    trips.observe(10_000, 60)
    assert (trips.sizes.count, trips.sizes.sum) == (2, 10_200)
    assert (trips.microseconds.count, trips.microseconds.sum) == (3, 60_500_100)
    assert (trips.sizes.counts[-1], trips.microseconds.counts[-1]) == (1, 1)
    assert trips.microseconds.counts[MICROSECONDS.index(500_000)] == 1


def test_two_servers_in_a_process_share_no_number() -> None:
    one, other = Metrics(), Metrics()
    one.connects["ok"] += 1
    one.pages.observe(1, 1.0)
    assert (other.connects, other.pages.microseconds.count) == ({}, 0)
    for each in fields(Metrics):
        value = getattr(other, each.name)
        assert not value if isinstance(value, int) else value is not getattr(one, each.name)
