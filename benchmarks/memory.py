"""Memory of processes, as the kernel accounts for it: the proportional set size."""

from __future__ import annotations

from pathlib import Path

from benchmarks.machine import tree


def pss_bytes(root: int, kind: str = "Pss") -> int:
    """PSS of a process and its descendants: pages that several share are counted in parts, so nothing twice.

    Args:
        root: the process.
        kind: all of it, or only `Pss_Anon` (its own), `Pss_Shmem` (as PostgreSQL's buffers), `Pss_File`.
    """
    return sum(_pss(pid, kind) for pid in tree(root))


def _pss(pid: int, kind: str) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0  # it has just ended
    return int(text.partition(f"\n{kind}:")[2].split()[0]) * 1024
