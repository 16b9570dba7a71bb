"""The machine: the CPU time and the memory of processes, read from outside; who else is busy; and what we measure on."""

from __future__ import annotations

import asyncio
import os
import platform
import re
import resource
import subprocess
import time
from pathlib import Path

_TICK = 1.0 / os.sysconf("SC_CLK_TCK")


def tree(root: int) -> list[int]:
    """Return a process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def cpu_seconds(root: int) -> float:
    """Return user and system time of a process and its descendants so far, ended (and reaped) ones too."""
    ticks = 0
    for pid in tree(root):
        fields = _stat(pid)
        if fields:
            # utime, stime, cutime, cstime: the 14th to the 17th field, of which the first two are cut off.
            ticks += sum(map(int, fields[11:15]))
    return ticks * _TICK


def pss_bytes(root: int, kind: str = "Pss") -> int:
    """Return the memory of a process and its descendants; what several processes share counts in parts.

    Args:
        root: the process.
        kind: all of it, or `Pss_Anon`, what is only their own, or `Pss_Shmem`, what is shared as PostgreSQL's buffers are.
    """
    found = 0
    for pid in tree(root):
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        if pss := re.search(rf"^{kind}:\s+(\d+) kB", text, re.MULTILINE):
            found += int(pss[1]) * 1024
    return found


def many_files() -> None:
    """Allow this process and its children as many open files as the system does."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third on: the second is a name, with anything in it."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return text.rpartition(")")[2].split()


class Others:
    """How busy the machine is with what is not ours, in CPUs, since this was made."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._busy = _busy_seconds() - cpu_seconds(os.getpid())

    def cpus(self) -> float:
        """Return the mean since then."""
        passed = time.monotonic() - self._begun
        return max(0.0, (_busy_seconds() - cpu_seconds(os.getpid()) - self._busy) / passed)


BUSY_CROWD = 0.9
"""Of one CPU: above this, a load generator of one thread measures itself."""
NO_IDLE = 0.05
"""Of the whole machine: below this, rates are what the machine has left for them."""


class Saturation:
    """Whether what measures gets in the way of what is measured, since this was made.

    Args:
        crowd: the load generator's process, or None where there is none of ours.
    """

    def __init__(self, crowd: int | None = None) -> None:
        self._crowd = crowd
        self._begun = time.monotonic()
        self._crowd_cpu = cpu_seconds(crowd) if crowd else 0.0
        self._idle, self._all = _idle_and_all_seconds()

    def report(self) -> dict[str, object]:
        """Return the shares for the results, and what was saturated, if anything was."""
        idle, everything = _idle_and_all_seconds()
        left = (idle - self._idle) / max(everything - self._all, _TICK)
        shares: dict[str, object] = {"machine_idle_share": round(left, 3)}
        saturated = [] if left >= NO_IDLE else ["machine"]
        if self._crowd:
            share = (cpu_seconds(self._crowd) - self._crowd_cpu) / max(time.monotonic() - self._begun, _TICK)
            shares["crowd_cpu_share"] = round(share, 3)
            saturated += ["load generator"] * (share > BUSY_CROWD)
        if saturated:
            shares |= {"saturated": True, "saturated_by": saturated}
        return shares


async def calm(seconds: float) -> None:
    """Wait until nobody else computes, at most so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        others = Others()
        await asyncio.sleep(1.0)
        if others.cpus() < 0.1:
            return


def _idle_and_all_seconds() -> tuple[float, float]:
    """Return how long all CPUs together have been idle so far, and how long they have been there."""
    numbers = list(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]))
    return (numbers[3] + numbers[4]) * _TICK, sum(numbers) * _TICK


def _busy_seconds() -> float:
    """Return how long all CPUs together have worked so far."""
    user, nice, system, _idle, _iowait, irq, softirq, *_ = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) * _TICK


def describe() -> dict[str, str]:
    """Return the machine and the versions, without names or dates."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    memory = re.search(r"^MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    model = re.search(r"^model name\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    return {
        "cpu": f"{os.cpu_count()} x {model[1] if model else platform.machine()}",
        "memory": f"{int(memory[1]) / 2**20:.1f} GiB" if memory else "",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "node": subprocess.run(["node", "--version"], capture_output=True, text=True).stdout.strip(),
        "cc": subprocess.run(["cc", "-dumpfullversion"], capture_output=True, text=True).stdout.strip(),
    }
