"""A curve: the same figure at growing sizes, and whether it is flat."""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence

from benchmarks.machine import Others, calm
from benchmarks.measuring import Options, Result, bar, summary

FLAT = 1.5
"""A figure that is at most so many times what it was at the first point counts as flat."""


async def measure(options: Options, once: Callable[[], Awaitable[Mapping[str, float]]]) -> Result:
    """Return one point of the curves: the medians of several short measurements, and what others used meanwhile."""
    if not options.quick:
        await calm(options.patience)
    others = Others()
    found = [await once() for _ in range(options.repeat)]
    figures = {name: round(statistics.median([one[name] for one in found]), 3) for name in found[0]}
    return {**figures, "others_cpus": round(others.cpus(), 2)}


def point(row: str, of: str, size: int, figures: Mapping[str, float]) -> Result:
    """Return one point as an object of the output, where it counts as a measurement of its own."""
    return {"row": row, "turn": 0, "target": f"{size} {of}", "size": size, **figures}


def summarise(
    row: str, of: str, points: Sequence[Result], figures: Mapping[str, tuple[str, int]], *, intact: bool = True
) -> Result:
    """Return the last object of a row.

    Args:
        row: its name.
        of: what there is more and more of.
        points: what was measured at each size.
        figures: name → what it is, in words; and from which size on it should be flat.
        intact: whether everything came that should have come.
    """
    curves: dict[str, list[list[float]]] = {}
    bars: list[Result] = []
    says: list[str] = []
    for name, (meaning, start) in figures.items():
        curve = [[at["size"], at[name]] for at in points if at["size"] >= start and name in at]
        (first, before), (last, after) = curve[0], curve[-1]
        curves[meaning] = curve
        if before <= 0:  # below what the kernel's clock resolves, as in a quick run: not to be compared with
            says.append(f"{meaning}: {before:g} at {first} {of}, {after:g} at {last}: cannot be told")
            continue
        flat = bar(after / before, FLAT, f" × {meaning} at {first} {of}")
        bars.append(flat)
        says.append(
            f"{meaning}: {before:g} at {first} {of}, {after:g} at {last}: {'flat' if flat['met'] else 'not flat'}, "
            f"× {flat['value']:.2f}"
        )
    return summary(row, f"cost against {of}", {}, bars, intact=intact, curves=curves, says=says)
