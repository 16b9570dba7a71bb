"""The measurements: each row yields one object per measurement, and its summary at the end. README.md defines them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

from benchmarks.measuring import Options, Result
from benchmarks.rows import commands, connections, doorbell, fan_out, ingest, latency, startup, webhooks

ROWS: dict[str, Callable[[Options, Path], AsyncIterator[Result]]] = {
    "P1": fan_out.p1,
    "P2": fan_out.p2,
    "P3": ingest.p3,
    "P4": ingest.p4,
    "P5": commands.p5,
    "P6": commands.p6,
    "P7": latency.p7,
    "P8": connections.p8,
    "P9": connections.p9,
    "P10": doorbell.p10,
    "P11": ingest.p11,
    "P12": startup.p12,
    "W1": webhooks.w1,
    "W2": webhooks.w2,
    "S1": fan_out.s1,
    "S2": latency.s2,
}
