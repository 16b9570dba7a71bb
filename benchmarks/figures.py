"""Figures of many measurements: percentiles, and what a table tells of a spread. Nothing here measures."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile of sorted values: the least one that `share` of all do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def distribution(seconds: list[float]) -> dict[str, float]:
    """Return p50, p90, p99 and the greatest, in ms; of nothing, nothing."""
    ordered = sorted(seconds)
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {name: round(percentile(ordered, share) * 1e3, 3) for name, share in shares.items()} if ordered else {}


def spread(values: list[float], digits: int = 3) -> dict[str, float]:
    """Return median, least and greatest."""
    return {
        "median": round(statistics.median(values), digits),
        "min": round(min(values), digits),
        "max": round(max(values), digits),
    }
