"""How every row is measured: the command line's options, the wait for a quiet machine, the alternation, the bars."""

from __future__ import annotations

import statistics
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from benchmarks.figures import spread
from benchmarks.machine import Others, calm

Result = dict[str, Any]
OURS, INCUMBENT, NODE, PYTHON, C_LOOP = "insforge-realtime", "incumbent", "socket.io", "python-socketio", "c loop"
"""The names of targets in the results."""
DISTURBED = 0.2
"""How many CPUs' worth of other people's work spoils a measurement."""


@dataclass(frozen=True)
class Options:
    """Of the command line."""

    repeat: int
    quick: bool
    postgres: int
    patience: float

    def seconds(self, usual: float) -> float:
        """Return how long a measurement lasts that usually lasts so long."""
        return 2.0 if self.quick else usual


async def undisturbed(options: Options, measure: Callable[[], Awaitable[Result]]) -> Result:
    """Measure while nobody else computes, once more if it was disturbed all the same, and return the less disturbed result.
    What decides is what the others did, never the figure."""
    tries: list[Result] = []
    while True:
        if not options.quick:
            await calm(options.patience)
        others = Others()
        result = await measure()
        result["others_cpus"] = round(others.cpus(), 2)
        tries.append(result)
        if result["others_cpus"] < DISTURBED or options.quick or len(tries) == 2:
            return min(tries, key=itemgetter("others_cpus"))


class Series:
    """The results of a row so far, by what was measured."""

    def __init__(self) -> None:
        self.results: dict[str, list[Result]] = {}

    def values(self, target: str, key: str) -> list[float]:
        return [result[key] for result in self.results[target]]

    def median(self, target: str, key: str) -> float:
        return statistics.median(self.values(target, key))

    def figures(self, key: str, digits: int = 3) -> dict[str, dict[str, float]]:
        """Return median, least and greatest of every target."""
        return {target: spread(self.values(target, key), digits) for target in self.results}

    def ratio(self, target: str, other: str, key: str) -> float:
        """Return the median of the ratios of neighbouring measurements."""
        pairs = zip(self.values(target, key), self.values(other, key), strict=False)
        return statistics.median(mine / theirs if theirs else float("inf") for mine, theirs in pairs)

    def intact(self, target: str) -> bool:
        return all(result["intact"] for result in self.results[target])


async def alternate(
    row: str, options: Options, variants: Mapping[str, Callable[[], Awaitable[Result]]], series: Series
) -> AsyncIterator[Result]:
    """Measure each variant in each turn, in a rotating order, and yield the results; `series` gets them, too."""
    names = list(variants)
    for turn in range(options.repeat):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            result = await undisturbed(options, variants[name])
            series.results.setdefault(name, []).append(result)
            yield {"row": row, "turn": turn, "target": name, **result}


def bar(value: float, limit: float, text: str = "", *, least: bool = False) -> Result:
    """Return what a row has to reach, and whether it does: at most `limit`, or at least."""
    met = value >= limit if least else value <= limit
    return {"bar": f"{'≥' if least else '≤'} {limit:g}{text}", "value": round(value, 3), "met": met}


def summary(
    row: str,
    text: str,
    figures: dict[str, dict[str, float]],
    bars: list[Result],
    *,
    intact: bool = True,
    **more: object,
) -> Result:
    """Return the last object of a row, which the report is made of."""
    return {
        "row": row,
        "summary": text,
        "figures": figures,
        "bars": bars,
        "intact": intact,
        "met": intact and all(one["met"] for one in bars),
        **more,
    }
