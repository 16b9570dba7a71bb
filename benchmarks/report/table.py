"""Markdown: the table of the rows, and the page around it."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.measuring import DISTURBED, Result
from benchmarks.report import plots
from benchmarks.report.results import Row

NOTE = (
    "Figures are medians, with least and greatest in brackets. *Saturated*: the load generator had no CPU left, or the "
    "machine as a whole had none, so that a rate is what the machine could do and not only the server. *Disturbed*: "
    f"other programs used {DISTURBED} CPUs or more.\n"
)


def page(rows: dict[str, Row], drawn: Sequence[str]) -> str:
    """Return the whole of results/README.md."""
    head = [
        "# Results\n",
        "Written by `python -m benchmarks.report` from what `make bench` measured. [What the rows are](../README.md).\n",
    ]
    pictures = [f"## {plots.TITLES[name]}\n\n![{plots.TITLES[name]}]({name}.svg)\n" for name in drawn]
    return "\n".join([*head, machines(rows) + "\n", NOTE, table(rows) + "\n", *pictures])


def machines(rows: dict[str, Row]) -> str:
    """Return what it was measured on; where runs differ, which rows are from which."""
    runs: list[Result] = []
    for row in rows.values():
        if row.run not in runs:
            runs.append(row.run)
    lines = []
    for run in runs:
        parts = ", ".join(f"{name} {value}" for name, value in run["machine"].items() if value)
        of = "" if len(runs) == 1 else f"{', '.join(row.name for row in rows.values() if row.run == run)}: "
        quick = " **A quick run: the figures mean nothing.**" if run.get("quick") else ""
        lines.append(f"{of}{parts}, PostgreSQL {run['postgres']}; {run['repeat']} times each.{quick}")
    return "\n\n".join(lines)


def table(rows: dict[str, Row]) -> str:
    """Return each row's figures, medians with least and greatest, its bars, and whether they are met."""
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
    if not bars and not summary.get("curves"):
        bars, met = ["none lost, none twice"], ["yes" if summary["intact"] else "**no**"]
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
    """Return the curves of a row that has no bars, or nothing but curves: each as one line."""
    if (summary["bars"] and summary["figures"]) or not summary.get("curves"):
        return []
    return [
        f"{_safe(name)}: " + ", ".join(f"{number(at)} → {number(value)}" for at, value in points)
        for name, points in summary["curves"].items()
    ]


def _of_peers(summary: Result) -> str:
    """Return what peers lost or put out of order, in the light of which to see their speed."""
    found = summary.get("incumbent_in_all", {})
    wrong = [f"{found[key]} {key}" for key in ("lost", "doubled", "disordered") if found.get(key)]
    messages = found.get("transactions", found.get("rows"))
    remarks = [f"incumbent: {', '.join(wrong)} of {messages}"] if wrong else []
    for kind in ("lost", "disordered"):
        peers = {name: many for name, many in summary.get(f"{kind}_by_peers", {}).items() if many}
        remarks += [f"{name}: {many} {kind}" for name, many in peers.items()]
    return "; ".join(remarks)


def number(value: float) -> str:
    """Return a number as text. Three digits are enough, and a space between thousands."""
    if abs(value) >= 100:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.3g}"


def _safe(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
