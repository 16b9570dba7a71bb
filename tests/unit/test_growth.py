"""What the rows of growth and the soak make of their points: flat, or not."""

from __future__ import annotations

import pytest

from benchmarks.growth.curve import point, summarise
from benchmarks.soak.summary import flatness, memory_slope


def summary_of(*figures: float, start: int = 0) -> dict[str, object]:
    sizes = (1, 10, 100)
    points = [point("G9", "things", size, {"cost": figure}) for size, figure in zip(sizes, figures, strict=True)]
    return summarise("G9", "things", points, {"cost": ("cost, µs", start)})


def test_a_curve_is_flat_up_to_one_and_a_half_times_its_first_point() -> None:
    flat, steep = summary_of(10, 30, 15), summary_of(10, 10, 16)
    assert flat["met"] is True
    assert steep["met"] is False
    assert steep["says"] == ["cost, µs: 10 at 1 things, 16 at 100: not flat, × 1.60"]
    assert steep["curves"] == {"cost, µs": [[1, 10], [10, 10], [100, 16]]}


def test_a_curve_begins_where_it_should_be_flat_from() -> None:
    assert summary_of(1, 10, 12, start=10)["met"] is True


def test_a_curve_without_a_first_point_is_not_judged() -> None:
    told = summary_of(0, 5, 7)
    assert told["bars"] == []
    assert told["says"] == ["cost, µs: 0 at 1 things, 7 at 100: cannot be told"]


def samples(*megabytes: float) -> list[dict[str, float]]:
    return [{"seconds": 30.0 * number, "server_mb": size} for number, size in enumerate(megabytes)]


def test_the_memory_slope_is_that_of_the_second_half() -> None:
    assert memory_slope(samples(10, 50, 60, 60, 61, 62)) == pytest.approx(2.0)
    assert memory_slope(samples(10, 90, 60, 60, 60, 60)) == pytest.approx(0.0)


def test_a_soak_is_flat_where_memory_and_latency_are() -> None:
    latencies = [(at, 2.0 if at < 60 else 4.0) for at in map(float, range(0, 120))]
    assert flatness(samples(60, 60, 60, 60), latencies, 0, 120)["flat"] is True
    assert flatness(samples(60, 60, 60, 70), latencies, 0, 120)["flat_memory"] is False
    slower = [(at, ms * 3 if at >= 60 else ms) for at, ms in latencies]
    assert flatness(samples(60, 60, 60, 60), slower, 0, 120)["flat_latency"] is False
