"""Memory of processes, as the kernel accounts for it: the proportional set size."""

from __future__ import annotations

from pathlib import Path

from benchmarks.machine import tree


def pss_bytes(root: int) -> int:
    """PSS of a process and its descendants: pages that several share are counted in parts, so nothing twice."""
    return sum(_pss(pid) for pid in tree(root))


def _pss(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0  # it has just ended
    return int(text.partition("\nPss:")[2].split()[0]) * 1024
