"""The rows, read from the lines that run.py wrote: what was measured of each, where, and how far it can be trusted."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from benchmarks.measuring import DISTURBED, Result


@dataclass
class Row:
    """All that is known of one row."""

    name: str
    run: Result
    turns: list[Result] = field(default_factory=list)
    summary: Result | None = None
    failed: str | None = None

    def mark(self) -> str:
        """Return what readers must know of how it was measured: how many of the measurements were not as they should be."""
        saturated = dict.fromkeys(("load generator", "machine"), 0)
        for turn in self.turns:
            for source in turn.get("saturated_by", ()):
                saturated[source] += 1
        disturbed = sum(turn.get("others_cpus", 0) >= DISTURBED for turn in self.turns)
        marks = [f"{source} saturated in {number}" for source, number in saturated.items() if number]
        marks += [f"disturbed in {disturbed}"] * bool(disturbed)
        return f"{'; '.join(marks)} of {len(self.turns)}" if marks else ""


def read_rows(lines: Iterable[str]) -> dict[str, Row]:
    """Return the rows, in the order of README.md; of a repeated one the last.

    Raises:
        ValueError: a line is not a result, or no machine comes before the first row.
    """
    rows: dict[str, Row] = {}
    run: Result | None = None
    for line in lines:
        result: Result = json.loads(line)
        if "machine" in result:
            run = result
            continue
        if run is None or "row" not in result:
            raise ValueError(f"not a result, or without its machine: {line[:100]}")
        name = result["row"]
        if name not in rows or rows[name].run is not run:
            rows.pop(name, None)
            rows[name] = Row(name, run)
        _add(rows[name], result)
    return dict(sorted(rows.items(), key=lambda item: _order(item[0])))


def _add(row: Row, result: Result) -> None:
    if "failed" in result:
        row.failed = result["failed"]
    elif "summary" in result:
        row.summary = result
    else:
        row.turns.append(result)


def _order(name: str) -> tuple[int, int]:
    digits = "".join(filter(str.isdigit, name))
    return f"PWGS{name[0]}".index(name[0]), int(digits or 0)
