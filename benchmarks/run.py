"""`python -m benchmarks.run P1 [P2 …] [--repeat 5] [--quick]`: one JSON object per measurement, and a summary for each row.

`all` stands for all rows. `--quick` takes a few seconds and shows only that the benchmark works. Progress goes to stderr.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import TextIO

from benchmarks.machine import describe, many_files
from benchmarks.measuring import Options, Result
from benchmarks.processes import temporary_folder
from benchmarks.rows import ROWS


async def run(rows: list[str], options: Options, output: TextIO) -> list[str]:
    """Measure the rows one after the other, and return those that failed; why is in the output."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    write(
        output, {"machine": describe(), "postgres": options.postgres, "repeat": options.repeat, "quick": options.quick}
    )
    failed = []
    begun = time.monotonic()
    for number, row in enumerate(rows, 1):
        try:
            with temporary_folder() as folder:
                async for result in ROWS[row](options, folder):
                    write(output, result)
                    progress(
                        f"{time.monotonic() - begun:5.0f} s  row {number} of {len(rows)}  {described(result, options)}"
                    )
        except Exception as error:
            # The other rows are worth having all the same.
            traceback.print_exc()
            write(output, {"row": row, "failed": f"{type(error).__name__}: {error}".splitlines()[0]})
            failed.append(row)
    return failed


def write(output: TextIO, result: Result) -> None:
    print(json.dumps(result, ensure_ascii=False), file=output, flush=True)


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def described(result: Result, options: Options) -> str:
    """Return one line about a result."""
    if "summary" in result:
        return f"{result['row']}: {'met' if result['met'] else 'not met'}"
    return f"{result['row']}  turn {result['turn'] + 1} of {options.repeat}  {result['target']}"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run", description="Measure rows of the table in README.md."
    )
    parser.add_argument("rows", nargs="+", choices=[*ROWS, "all"], metavar="ROW", help=f"{', '.join(ROWS)}, or all")
    parser.add_argument("--repeat", type=int, default=5, help="how often each is measured")
    parser.add_argument(
        "--quick", action="store_true", help="a few seconds, for a smoke test: the figures mean nothing"
    )
    parser.add_argument("--postgres", type=int, default=18, help="which major version (default: 18)")
    parser.add_argument(
        "--patience", type=float, default=20, help="seconds to wait, before each measurement, for others to be idle"
    )
    parser.add_argument("--output", type=Path, help="a file for the results, instead of stdout")
    arguments = parser.parse_args()
    options = Options(
        repeat=1 if arguments.quick else arguments.repeat,
        quick=arguments.quick,
        postgres=arguments.postgres,
        patience=arguments.patience,
    )
    many_files()
    rows = list(ROWS) if "all" in arguments.rows else arguments.rows
    try:
        with contextlib.ExitStack() as stack:
            output = stack.enter_context(arguments.output.open("w")) if arguments.output else sys.stdout
            failed = asyncio.run(run(rows, options, output))
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise SystemExit(130) from None
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
