"""`python -m benchmarks.report RESULTS.jsonl … [--folder benchmarks/results]`: what the measurements say, as a table.

Reads what run.py wrote; of a row that is in several files, the last counts. With `--folder` it writes README.md and the
plots (plots.py) there, else the table to stdout. Nothing is judged here: a summary says itself whether its bars are met.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import plots
from benchmarks.measuring import DISTURBED

Result = dict[str, Any]
PLOTTED = {"S1": "fan-out", "S2": "latency", "P8": "memory"}
"""The rows with curves, and their plots' names."""


@dataclass
class Row:
    """All that is known of one row."""

    name: str
    run: Result
    turns: list[Result] = field(default_factory=list)
    summary: Result | None = None
    failed: str | None = None

    def mark(self) -> str:
        """What a reader has to know of how it was measured: of so many measurements, so many were not as they should be."""
        saturated = dict.fromkeys(("load generator", "machine"), 0)
        for turn in self.turns:
            for source in turn.get("saturated_by", ()):
                saturated[source] += 1
        disturbed = sum(turn.get("others_cpus", 0) >= DISTURBED for turn in self.turns)
        marks = [f"{source} saturated in {number}" for source, number in saturated.items() if number]
        marks += [f"disturbed in {disturbed}"] * bool(disturbed)
        return f"{'; '.join(marks)} of {len(self.turns)}" if marks else ""


def read_rows(lines: Iterable[str]) -> dict[str, Row]:
    """The rows, in the order of the measurements; of a repeated one the last.

    Raises:
        ValueError: a line is no JSON object of ours, or no machine comes before the first row.
    """
    rows: dict[str, Row] = {}
    run: Result | None = None
    for line in lines:
        said: Result = json.loads(line)
        if "machine" in said:
            run = said
            continue
        if run is None or "row" not in said:
            raise ValueError(f"not a result, or without its machine: {line[:100]}")
        name = said["row"]
        if name not in rows or rows[name].run is not run:
            rows.pop(name, None)
            rows[name] = Row(name, run)
        _add(rows[name], said)
    return dict(sorted(rows.items(), key=lambda item: _order(item[0])))


def _add(row: Row, said: Result) -> None:
    if "failed" in said:
        row.failed = said["failed"]
    elif "summary" in said:
        row.summary = said
    else:
        row.turns.append(said)


def _order(name: str) -> tuple[int, int]:
    digits = "".join(filter(str.isdigit, name))
    return f"PWGS{name[0]}".index(name[0]), int(digits or 0)


# The table


def table(rows: dict[str, Row]) -> str:
    """Markdown: each row's figures, medians with least and greatest, its bars, and whether they are met."""
    lines = ["| Row | What | Measured | Ours over … | Bar | Met | Remarks |", "|---|---|---|---|---|---|---|"]
    for row in rows.values():
        cells = [row.name, *_cells(row)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cells(row: Row) -> list[str]:
    if row.failed or row.summary is None:
        return ["", f"failed: {_safe(row.failed or 'not finished')}", "", "", "**no**", row.mark()]
    summary = row.summary
    ratios = [f"{_safe(name)}: {number(value)}" for name, value in summary.get("ratios", {}).items()]
    bars = [f"{one['bar']}: **{number(one['value'])}**" for one in summary["bars"]]
    met = ["yes" if one["met"] else "**no**" for one in summary["bars"]]
    wrong = "" if summary["intact"] else "**not intact: lost, doubled or out of order**"
    return [
        _safe(summary["summary"]),
        _stacked(_points(summary) or _figures(summary["figures"])),
        _stacked(ratios),
        _stacked(bars),
        _stacked(met),
        _stacked([wrong, _of_peers(summary), row.mark()]),
    ]


def _stacked(texts: Sequence[str]) -> str:
    return "<br>".join(filter(None, texts))


def _figures(figures: dict[str, dict[str, float]]) -> list[str]:
    return [
        f"{_safe(name)}: {number(of['median'])} ({number(of['min'])} … {number(of['max'])})"
        for name, of in figures.items()
    ]


def _points(summary: Result) -> list[str]:
    """Of a sweep, which has no bars: each curve in one line."""
    if summary["bars"] or not summary.get("curves"):
        return []
    return [
        f"{_safe(name)}: " + ", ".join(f"{number(at)} → {number(value)}" for at, value in points)
        for name, points in summary["curves"].items()
    ]


def _of_peers(summary: Result) -> str:
    """What peers lost or put out of order, which their speed is to be seen with."""
    found = summary.get("incumbent_in_all", {})
    wrong = [f"{found[key]} {key}" for key in ("lost", "doubled", "disordered") if found.get(key)]
    messages = found.get("transactions", found.get("rows"))
    said = [f"incumbent: {', '.join(wrong)} of {messages}"] if wrong else []
    for kind in ("lost", "disordered"):
        peers = {name: many for name, many in summary.get(f"{kind}_by_peers", {}).items() if many}
        said += [f"{name}: {many} {kind}" for name, many in peers.items()]
    return "; ".join(said)


def number(value: float) -> str:
    """Three digits are enough, and a space between thousands."""
    if abs(value) >= 100:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.3g}"


def _safe(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def machines(rows: dict[str, Row]) -> str:
    """What it was measured on; where runs differ, which rows are whose."""
    runs: list[Result] = []
    for row in rows.values():
        if row.run not in runs:
            runs.append(row.run)
    lines = []
    for run in runs:
        said = ", ".join(f"{name} {value}" for name, value in run["machine"].items() if value)
        of = "" if len(runs) == 1 else f"{', '.join(row.name for row in rows.values() if row.run == run)}: "
        quick = " **A quick run: the figures mean nothing.**" if run.get("quick") else ""
        lines.append(f"{of}{said}, PostgreSQL {run['postgres']}; {run['repeat']} times each.{quick}")
    return "\n\n".join(lines)


# The plots


def curves(rows: dict[str, Row]) -> dict[str, dict[str, list[list[float]]]]:
    """By the plot's name: each target's points."""
    found = {}
    for name, plot in PLOTTED.items():
        row = rows.get(name)
        if row and row.summary and row.summary.get("curves"):
            found[plot] = row.summary["curves"]
    return found


NOTE = (
    "Figures are medians, with least and greatest in brackets. *Saturated*: the load generator had no CPU left, or the "
    "machine as a whole had none, so that a rate is what the machine could do and not only the server. *Disturbed*: "
    f"other programs used {DISTURBED} CPUs or more.\n"
)


def page(rows: dict[str, Row], drawn: Sequence[str]) -> str:
    """The whole of results/README.md."""
    head = [
        "# Results\n",
        "Written by `python -m benchmarks.report` from what `make bench` measured. [What the rows are](../README.md).\n",
    ]
    pictures = [f"## {plots.TITLES[name]}\n\n![{plots.TITLES[name]}]({name}.svg)\n" for name in drawn]
    return "\n".join([*head, machines(rows) + "\n", NOTE, table(rows) + "\n", *pictures])


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report", description="Make a table and plots of results."
    )
    parser.add_argument("files", nargs="+", type=Path, help="what run.py wrote; later ones win")
    parser.add_argument(
        "--folder", type=Path, help="where README.md and the plots go; without it, the table is printed"
    )
    arguments = parser.parse_args()
    rows = read_rows(line for file in arguments.files for line in file.read_text().splitlines())
    if arguments.folder is None:
        print(f"{machines(rows)}\n\n{table(rows)}")
        return
    found = curves(rows)
    for plot, lines in found.items():
        plots.draw(plot, lines, arguments.folder)
    (arguments.folder / "README.md").write_text(page(rows, list(found)))
    print(f"{arguments.folder / 'README.md'} and {len(found)} plots")


if __name__ == "__main__":
    main()
