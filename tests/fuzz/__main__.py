"""`python -m fuzz [TARGET …] [--seconds 60]`: targets in the hands of libFuzzer, one after the other (libfuzzer.py).

An input that breaks a promise is written to finds/TARGET/, and the exit status is not 0.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from fuzz.seeds import seeds
from fuzz.targets import TARGETS

FINDS = Path(__file__).parent / "finds"
LONGEST = 2048
"""Of an input, in bytes: more than any of the limits that the targets set."""
SLOWEST = 5
"""Seconds that one input may take."""


def fuzz(target: str, seconds: int) -> bool:
    """Look for so long. Whether every promise was kept; else what libFuzzer says is printed."""
    finds = FINDS / target
    with tempfile.TemporaryDirectory(prefix="insforge-realtime-fuzz-") as corpus:
        for number, seed in enumerate(seeds()):
            (Path(corpus) / str(number)).write_bytes(seed)
        known = [str(finds)] if finds.exists() else []
        finds.mkdir(parents=True, exist_ok=True)  # where libFuzzer writes to, if it finds anything
        settings = [
            f"-max_total_time={seconds}", f"-max_len={LONGEST}", f"-timeout={SLOWEST}", f"-artifact_prefix={finds}/",
            "-print_final_stats=1",
        ]  # fmt: skip
        command = [sys.executable, "-m", "fuzz.libfuzzer", target, *settings, corpus, *known]
        ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    if not any(finds.iterdir()):
        finds.rmdir()
    return _told(target, ran)


def _told(target: str, ran: subprocess.CompletedProcess[str]) -> bool:
    number = re.search(r"number_of_executed_units: (\d+)", ran.stdout)
    if ran.returncode or not number:
        print(f"{ran.stdout[-8000:]}\n{target}: a promise is broken; the input is in {FINDS / target}", flush=True)
        return False
    print(f"{target}: {int(number[1]):,} inputs, every promise kept", flush=True)
    return True


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Look for input that breaks a promise.")
    parser.add_argument("target", nargs="*", metavar="TARGET", help=f"{', '.join(TARGETS)}; all of them by default")
    parser.add_argument("--seconds", type=int, default=60, help="how long to look, for each target (default: 60)")
    arguments = parser.parse_args()
    unknown = set(arguments.target) - set(TARGETS)
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    kept = [fuzz(target, arguments.seconds) for target in arguments.target or TARGETS]
    if not any(FINDS.iterdir()):
        FINDS.rmdir()
    sys.exit(not all(kept))


if __name__ == "__main__":
    main()
