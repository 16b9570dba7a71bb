"""The pure parts of the benchmarks: what counts frames, what makes percentiles, what makes the table."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.figures import distribution, percentile
from benchmarks.load.crowd import Group, Subscriber, read
from benchmarks.load.wire import read_packets
from benchmarks.measuring import Series, bar, summary
from benchmarks.report.plots import curves
from benchmarks.report.results import read_rows
from benchmarks.report.table import machines, page, table

sizes = st.lists(st.sampled_from([0, 1, 125, 126, 127, 300, 65535, 65536]), max_size=6)


def frame(payload: bytes) -> bytes:
    """Return a frame as a server sends it."""
    size = len(payload)
    if size < 126:
        return bytes([0x81, size]) + payload
    return (
        b"\x81" + (b"\x7e" + size.to_bytes(2, "big") if size < 65536 else b"\x7f" + size.to_bytes(8, "big")) + payload
    )


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    """Return a stream, cut anywhere."""
    places = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    return [stream[begin:end] for begin, end in itertools.pairwise(places)]


def tick(writer: int, number: int) -> bytes:
    return frame(b"42" + json.dumps(["tick", {"n": number, "w": writer, "meta": {}}]).encode())


@given(sizes, st.lists(st.integers(0, 200_000), max_size=8))
def test_frames_are_counted_wherever_the_stream_is_cut(lengths: list[int], cuts: list[int]) -> None:
    stream = b"".join(frame(b"x" * length) for length in lengths)
    group = Group()
    subscriber = Subscriber(group, record=True)
    subscriber.begin_to_count()
    for piece in pieces(stream, cuts):
        subscriber.data_received(piece)
    assert (subscriber.frames, group.frames, group.bytes) == (len(lengths), len(lengths), len(stream))
    assert b"".join(subscriber.chunks or []) == stream


@given(st.lists(st.binary(max_size=300), max_size=6), st.integers(0, 2000))
def test_packets_are_read_up_to_the_first_that_is_not_whole(payloads: list[bytes], end: int) -> None:
    stream = b"".join(map(frame, payloads))
    packets, rest = read_packets(stream[:end])
    assert packets == payloads[: len(packets)]
    assert b"".join(map(frame, packets)) + rest == stream[:end]
    assert len(packets) == sum(len(b"".join(map(frame, payloads[: n + 1]))) <= end for n in range(len(payloads)))


def test_what_is_lost_doubled_or_out_of_order_is_seen() -> None:
    other = frame(b"2")
    assert read(tick(0, 1) + other + tick(1, 1) + tick(0, 2)) == {
        "events": 3, "distinct": 3, "doubled": 0, "disordered": 0,
    }  # fmt: skip
    assert read(tick(0, 1) + tick(0, 3) + tick(0, 3) + tick(0, 2)) == {
        "events": 4, "distinct": 3, "doubled": 1, "disordered": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 50.0), (0.9, 90.0), (0.99, 99.0), (0.991, 100.0), (1.0, 100.0), (0.0, 1.0)]
)
def test_a_percentile_is_one_of_the_values(share: float, expected: float) -> None:
    assert percentile([float(n) for n in range(1, 101)], share) == expected


def test_a_distribution_is_in_ms_and_of_nothing_it_is_empty() -> None:
    assert distribution([0.004, 0.001, 0.002, 0.003]) == {"p50": 2.0, "p90": 4.0, "p99": 4.0, "max": 4.0}
    assert distribution([]) == {}


def test_a_ratio_is_the_median_of_the_ratios_of_neighbours() -> None:
    series = Series()
    series.results = {"a": [{"rate": 10}, {"rate": 30}, {"rate": 8}], "b": [{"rate": 10}, {"rate": 10}, {"rate": 4}]}
    assert series.ratio("a", "b", "rate") == 2
    assert series.figures("rate")["a"] == {"median": 10, "min": 8, "max": 30}


def test_a_row_is_met_if_all_its_bars_are_and_nothing_was_lost() -> None:
    met, missed = bar(2, 2, " ms"), bar(0.8, 0.85, " × without us", least=True)
    assert (met["bar"], met["met"], missed["bar"], missed["met"]) == ("≤ 2 ms", True, "≥ 0.85 × without us", False)
    assert summary("P7", "", {}, [met])["met"]
    assert not summary("P7", "", {}, [met], intact=False)["met"]
    assert not summary("P7", "", {}, [met, missed])["met"]


MACHINE = {"machine": {"cpu": "2 x Some CPU", "node": "v20"}, "postgres": 18, "repeat": 2, "quick": False}


def results(*said: dict[str, Any]) -> list[str]:
    return [json.dumps(line) for line in said]


def figure(median: float) -> dict[str, float]:
    return {"median": median, "min": median / 2, "max": median * 2}


P3 = (
    {"row": "P3", "turn": 0, "target": "insforge-realtime", "others_cpus": 0.0, "saturated_by": ["machine"]},
    {"row": "P3", "turn": 1, "target": "insforge-realtime", "others_cpus": 0.9},
    summary(
        "P3",
        "commits per second",
        {"insforge-realtime": figure(3000), "without us": figure(3333)},
        [bar(0.9, 0.85, " × without us", least=True), bar(3, 2)],
        ratios={"incumbent": 3.21},
        incumbent_in_all={"transactions": 500, "lost": 0, "doubled": 0, "disordered": 90},
    ),
)


def test_the_table_has_figures_bars_and_how_far_they_can_be_trusted() -> None:
    header, _, line = table(read_rows(results(MACHINE, *P3))).splitlines()
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert len(cells) == len(header.strip("|").split("|"))
    assert cells == [
        "P3",
        "commits per second",
        "insforge-realtime: 3 000 (1 500 … 6 000)<br>without us: 3 333 (1 666 … 6 666)",
        "incumbent: 3.21",
        "≥ 0.85 × without us: **0.9**<br>≤ 2: **3**",
        "yes<br>**no**",
        "incumbent: 90 disordered of 500<br>machine saturated in 1; disturbed in 1 of 2",
    ]


def test_a_row_that_failed_or_lost_messages_cannot_be_overlooked() -> None:
    lost = summary("P4", "rows", {}, [bar(5, 4, least=True)], intact=False)
    text = table(read_rows(results(MACHINE, lost, {"row": "P5", "failed": "RuntimeError: it | ended"})))
    assert "**not intact" in text
    assert "failed: RuntimeError: it \\| ended | " in text
    assert text.splitlines()[3].count("**no**") == 1


def test_of_a_row_that_was_measured_twice_the_later_run_counts() -> None:
    other = {**MACHINE, "machine": {"cpu": "8 x Another"}}
    again = summary("P3", "commits per second", {"insforge-realtime": figure(5000)}, [])
    rows = read_rows(results(MACHINE, *P3, summary("P10", "", {}, []), other, again))
    assert list(rows) == ["P3", "P10"]
    assert rows["P3"].turns == []
    assert "5 000" in table(rows)
    assert "3 333" not in table(rows)
    assert machines(rows).split("\n\n")[0].startswith("P3: cpu 8 x Another")


def test_sweeps_are_lines_of_points_and_pictures() -> None:
    sweep = summary("S1", "by subscribers", {"a, 10": figure(1)}, [], curves={"a": [[10, 20.5], [100, 1500]]})
    rows = read_rows(results(MACHINE, sweep))
    assert "a: 10 → 20.5, 100 → 1 500" in table(rows)
    assert curves(rows) == {"fan-out": {"a": [[10, 20.5], [100, 1500]]}}
    assert "](fan-out.svg)" in page(rows, ["fan-out"])


def test_a_quick_run_is_marked() -> None:
    assert "mean nothing" in machines(read_rows(results({**MACHINE, "quick": True}, *P3)))


def test_what_is_not_a_result_is_refused() -> None:
    with pytest.raises(ValueError, match="without its machine"):
        read_rows(results(*P3))
