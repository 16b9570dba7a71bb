"""How cost grows: what should stay flat, against what there is more and more of. `benchmarks.run` runs its rows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

from benchmarks.growth.channels import g2
from benchmarks.growth.connections import g5
from benchmarks.growth.patterns import g4
from benchmarks.growth.stored import g3
from benchmarks.growth.subscribers import g1
from benchmarks.measuring import Options, Result

GROWTH: dict[str, Callable[[Options, Path], AsyncIterator[Result]]] = {"G1": g1, "G2": g2, "G3": g3, "G4": g4, "G5": g5}
