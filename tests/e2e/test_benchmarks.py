"""The benchmarks themselves: the two rows that matter most, in a short form, show that everything they measure works.

Counts and order only: the times of a short run on a busy machine mean nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from insforge_realtime.pg.embedded import find_binaries

ROOT = Path(__file__).parents[2]


def run(*command: str) -> list[dict[str, Any]]:
    """Run a benchmark's command, and return what it prints, an object a line."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def results() -> list[dict[str, Any]]:
    """Run P1 and P3 in the short form. Skipped where a program is missing, never in continuous integration."""
    missing = [program for program in ("node", "npm", "cc") if shutil.which(program) is None]
    if not (find_binaries().bin_dir / "pgbench").exists():
        missing.append("pgbench")
    if missing:
        assert not os.environ.get("CI"), f"not installed: {missing}"
        pytest.skip(f"not installed: {', '.join(missing)}")
    return run("benchmarks.run", "P1", "P3", "--quick")


def of(results: list[dict[str, Any]], row: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return a row's measurements, and its summary."""
    *measurements, summary = [result for result in results if result.get("row") == row]
    assert "summary" in summary
    assert all("turn" in measurement for measurement in measurements)
    return measurements, summary


def test_the_short_benchmark_measures_every_target_and_finds_everything_intact(results: list[dict[str, Any]]) -> None:
    measurements, summary = of(results, "P1")
    found = {measurement["target"]: measurement for measurement in measurements}
    assert set(found) == {"insforge-realtime", "socket.io", "python-socketio", "c loop", "incumbent"}
    for target, measurement in found.items():
        # The incumbent's pipeline may lose messages and put them out of order: that is what is measured of it.
        assert measurement["intact"] or target == "incumbent", target
        assert measurement["messages"] >= 20, target
        assert measurement["subscribers"] >= 100, target
    ours = found["insforge-realtime"]
    assert (ours["messages"], ours["lost"], ours["disordered"]) == (100, 0, 0)
    assert summary["intact"]

    measurements, summary = of(results, "P3")
    found = {measurement["target"]: measurement for measurement in measurements}
    assert set(found) == {"insforge-realtime", "without us", "incumbent"}
    assert all(measurement["transactions"] > 0 for measurement in measurements)
    ours = found["insforge-realtime"]
    assert (ours["lost"], ours["doubled"], ours["disordered"]) == (0, 0, 0)
    assert summary["intact"]


def test_a_short_soak_finds_everything_intact() -> None:
    *samples, summary = run("benchmarks.soak", "--minutes", "0.1", "--clients", "80")[1:]
    assert all(sample["soak"] == "sample" for sample in samples)
    assert samples
    assert summary["intact"]
    assert summary["messages"] > 0
    assert summary["deliveries"] > summary["messages"] // 2
    assert (summary["lost"], summary["doubled"], summary["disordered"], summary["closed"]) == (0, 0, 0, {})


def test_a_short_attack_leaves_honest_clients_unharmed() -> None:
    """One by strangers and one by a member: what is measured of them is there, and nobody honest was kept out."""
    silent, publishing = run("benchmarks.attacks", "silent", "fifty_sockets", "--seconds", "2")
    assert (silent["attack"], publishing["attack"]) == ("silent", "fifty_sockets")
    assert silent["sockets_held"] > 0
    assert publishing["accepted"] > 0
    for report in (silent, publishing):
        assert report["connects"] > 0
        assert report["connects_failed"] == 0
