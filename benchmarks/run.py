"""`python -m benchmarks.run P1 [P2 …] [--repeat 5] [--quick]`: one JSON object per measurement, and a summary for each row.

`--quick` takes a few seconds and says only that the benchmark works.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal

from benchmarks.machine import describe
from benchmarks.measuring import Options
from benchmarks.processes import temporary_folder
from benchmarks.rows import ROWS


async def run(rows: list[str], options: Options) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    print(json.dumps({"machine": describe(), "postgres": options.postgres, "repeat": options.repeat}), flush=True)
    for row in rows:
        with temporary_folder() as folder:
            async for result in ROWS[row](options, folder):
                print(json.dumps(result, ensure_ascii=False), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run", description="Measure rows of the table in README.md."
    )
    parser.add_argument("rows", nargs="+", choices=list(ROWS), help="which rows")
    parser.add_argument("--repeat", type=int, default=5, help="how often each is measured")
    parser.add_argument(
        "--quick", action="store_true", help="a few seconds, for a smoke test: the figures mean nothing"
    )
    parser.add_argument("--postgres", type=int, default=18, help="which major version (default: 18)")
    parser.add_argument(
        "--patience", type=float, default=20, help="seconds to wait, before each measurement, for others to be idle"
    )
    arguments = parser.parse_args()
    options = Options(
        repeat=1 if arguments.quick else arguments.repeat,
        quick=arguments.quick,
        postgres=arguments.postgres,
        patience=arguments.patience,
    )
    try:
        asyncio.run(run(arguments.rows, options))
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
