"""How everything is measured: what the command line says, and the waiting for a quiet machine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from benchmarks.machine import Others, calm

Result = dict[str, Any]
DISTURBED = 0.2
"""So many CPUs' worth of somebody else's work spoils a measurement."""


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    repeat: int
    quick: bool
    postgres: int
    patience: float

    def seconds(self, usual: float) -> float:
        return 2.0 if self.quick else usual


async def undisturbed(options: Options, measure: Callable[[], Awaitable[Result]]) -> Result:
    """Measure while nobody else computes: wait for it, and measure again what was disturbed all the same. What decides is
    what the others did, never the figure; of two disturbed ones, the less disturbed counts."""
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
