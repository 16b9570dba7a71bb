"""A curve: the same figure at growing sizes, and whether it is flat."""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence

from benchmarks.machine import Others, calm
from benchmarks.measuring import Options, Result

FLAT = 1.5
"""A figure that is at most so many times what it was at the first point counts as flat."""


async def measure(options: Options, once: Callable[[], Awaitable[Mapping[str, float]]]) -> Result:
    """One point of the curves: the medians of several short measurements, and what others used meanwhile."""
    if not options.quick:
        await calm(options.patience)
    others = Others()
    found = [await once() for _ in range(options.repeat)]
    figures = {name: round(statistics.median([one[name] for one in found]), 3) for name in found[0]}
    return {**figures, "others_cpus": round(others.cpus(), 2)}


def summarise(
    row: str, of: str, sizes: Sequence[int], points: Sequence[Result], figures: Mapping[str, tuple[str, int]]
) -> Result:
    """The last object of a row.

    Args:
        row: its name.
        of: what there is more and more of.
        sizes, points: how many there were, and what was measured then.
        figures: name → what it is, in words; and from which size on it should be flat.
    """
    curves: dict[str, Result] = {}
    for name, (meaning, start) in figures.items():
        curve = {
            size: point[name] for size, point in zip(sizes, points, strict=True) if size >= start and name in point
        }
        first, last = next(iter(curve)), max(curve)
        ratio = curve[last] / curve[first] if curve[first] > 0 else float("inf")
        flat = ratio <= FLAT
        curves[name] = {
            "points": curve,
            "ratio": round(ratio, 2) if curve[first] > 0 else None,
            "flat": flat,
            "says": f"{meaning}: {curve[first]:g} at {first} {of}, {curve[last]:g} at {last}: "
            + (f"{'flat' if flat else 'not flat'}, x {ratio:.2f}" if curve[first] > 0 else "cannot be told"),
        }
    return {
        "row": row,
        "summary": f"cost against {of}",
        "curves": curves,
        "met": all(c["flat"] for c in curves.values()),
    }


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that so many percent are not greater than."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
