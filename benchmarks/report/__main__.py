"""`python -m benchmarks.report RESULTS.jsonl … [--folder benchmarks/results]`: what run.py wrote, as a table.

Of a row that is in several files, the last counts. With `--folder` README.md and the plots are written there; without it,
the table is printed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.report import plots
from benchmarks.report.results import read_rows
from benchmarks.report.table import machines, page, table


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
    found = plots.curves(rows)
    for plot, lines in found.items():
        plots.draw(plot, lines, arguments.folder)
    (arguments.folder / "README.md").write_text(page(rows, list(found)))
    print(f"{arguments.folder / 'README.md'} and {len(found)} plots")


if __name__ == "__main__":
    main()
