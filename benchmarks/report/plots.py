"""The pictures of the report: ours and the peers as curves on one of each. Here, and only here, is matplotlib used."""

from __future__ import annotations

from pathlib import Path

from benchmarks.measuring import OURS
from benchmarks.report.results import Row

PLOTTED = {"S1": "fan-out", "S2": "latency", "P8": "memory"}
"""The rows with curves, and their plots' names."""
AXES = {
    "fan-out": ("subscribers", "server CPU per delivery, µs", "log", "log"),
    "latency": ("messages per second", "ms from when it was due to its receipt", "log", "log"),
    "memory": ("connected clients", "MB (PSS) above the empty server", "linear", "linear"),
}
TITLES = {
    "fan-out": "What a delivery costs the server, by the number of subscribers",
    "latency": "From when a message was due to its receipt, by the rate (no point where a server did not keep up)",
    "memory": "The server's memory, by the number of connected clients",
}


def curves(rows: dict[str, Row]) -> dict[str, dict[str, list[list[float]]]]:
    """Return each target's points, by the plot's name."""
    found = {}
    for name, plot in PLOTTED.items():
        row = rows.get(name)
        if row and row.summary and row.summary.get("curves"):
            found[plot] = row.summary["curves"]
    return found


def draw(plot: str, lines: dict[str, list[list[float]]], folder: Path) -> Path:
    """Draw one picture of all targets as curves, and return its file. Text stays text, and no date goes in: the same points
    make the same file."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": plot, "font.size": 10})
    from matplotlib import pyplot

    across, up, scale_across, scale_up = AXES[plot]
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    colours: dict[str, str] = {}
    for name, points in lines.items():
        target = name.partition(",")[0]
        colour = colours.setdefault(target, f"C{len(colours)}")
        style = "--" if name.endswith("p99") else "-"
        width = 2.5 if target == OURS else 1.5
        xs, ys = [point[0] for point in points], [point[1] for point in points]
        axes.plot(xs, ys, style, marker="o", color=colour, linewidth=width, label=name)
    axes.set(xlabel=across, ylabel=up, xscale=scale_across, yscale=scale_up)
    axes.grid(alpha=0.3)
    axes.legend()
    file = folder / f"{plot}.svg"
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)
    return file
