"""Whether memory and latency are flat, by the samples of a soak."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import linear_regression
from typing import Any

from benchmarks.figures import percentile

FLAT_MB_PER_MINUTE = 0.5
FLAT_TIMES, FLAT_MS = 1.5, 1.0
"""The median latency of the last minute may be so many times that of the first, and so much more."""


def memory_slope(samples: Sequence[dict[str, Any]]) -> float:
    """Return megabytes per minute, by least squares over the second half."""
    half = samples[len(samples) // 2 :]
    if len(half) < 2:
        return 0.0
    return linear_regression([s["seconds"] / 60 for s in half], [s["server_mb"] for s in half]).slope


def latency(latencies: Sequence[tuple[float, float]], begin: float, end: float) -> dict[str, float]:
    """Return the percentiles of what was received between two moments."""
    values = sorted(ms for at, ms in latencies if begin <= at < end)
    if not values:
        return {"p50_ms": 0.0, "p99_ms": 0.0, "number": 0}
    return {
        "p50_ms": round(percentile(values, 0.5), 2),
        "p99_ms": round(percentile(values, 0.99), 2),
        "number": len(values),
    }


def flatness(
    samples: Sequence[dict[str, Any]], latencies: Sequence[tuple[float, float]], begun: float, ended: float
) -> dict[str, Any]:
    """Return memory over the second half, the latency of the first minute and of the last, and whether they are flat."""
    minute = min(60.0, (ended - begun) / 2)
    first = latency(latencies, begun, begun + minute)
    last = latency(latencies, ended - minute, ended)
    slope = memory_slope(samples)
    flat_memory = slope < FLAT_MB_PER_MINUTE
    flat_latency = last["p50_ms"] <= first["p50_ms"] * FLAT_TIMES + FLAT_MS
    return {
        "server_mb_first": samples[0]["server_mb"],
        "server_mb_last": samples[-1]["server_mb"],
        "memory_mb_per_minute": round(slope, 3),
        "first_minute": first,
        "last_minute": last,
        "flat_memory": flat_memory,
        "flat_latency": flat_latency,
        "flat": flat_memory and flat_latency,
    }
