"""What the machine says: the CPU time of processes, read from outside, and what it is that we measure on."""

from __future__ import annotations

import os
import platform
import re
import statistics
import subprocess
from pathlib import Path

_TICK = 1.0 / os.sysconf("SC_CLK_TCK")


def tree(root: int) -> list[int]:
    """A process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def cpu_seconds(root: int) -> float:
    """User and system time of a process and its descendants so far, those that have ended (and were waited for) too."""
    ticks = 0
    for pid in tree(root):
        fields = _stat(pid)
        if fields:
            # utime, stime, cutime, cstime: the 14th to the 17th field, of which the first two are cut off.
            ticks += sum(map(int, fields[11:15]))
    return ticks * _TICK


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on: the second is a name, with anything in it."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def load() -> float:
    """How many processes wanted a CPU in the last minute: what somebody else's work did to the figures."""
    return round(os.getloadavg()[0], 2)


def spread(values: list[float], digits: int = 3) -> dict[str, float]:
    """Median, least and greatest."""
    return {
        "median": round(statistics.median(values), digits),
        "min": round(min(values), digits),
        "max": round(max(values), digits),
    }


def describe() -> dict[str, str]:
    """The machine and the versions, without names or dates."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    return {
        "cpu": f"{os.cpu_count()} x {model[1] if model else platform.machine()}",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "node": subprocess.run(["node", "--version"], capture_output=True, text=True).stdout.strip(),
        "cc": subprocess.run(["cc", "-dumpfullversion"], capture_output=True, text=True).stdout.strip(),
    }
