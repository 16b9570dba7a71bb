"""A PostgreSQL whose clock can be set: libfaketime stands between it and the system's. (Debian: libfaketime.)"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from insforge_realtime.pg.embedded import EmbeddedPostgres
from insforge_realtime.pg.embedded.accounts import Account
from support.databases import FAST, MAJORS, data_folder, installed

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


class ClockedPostgres(EmbeddedPostgres):
    """A PostgreSQL whose clock is so far ahead of this machine's as a file says, at every moment."""

    difference: Path

    def set_clock(self, seconds: int) -> None:
        """Set the clock of the running server: so far ahead of ours."""
        scratch = self.difference.with_suffix(".new")
        scratch.write_text(f"{seconds:+d}")
        scratch.rename(self.difference)

    def _spawn(self, argv: list[str], account: Account | None) -> subprocess.Popen[bytes]:
        preloaded = (
            f"LD_PRELOAD={LIBRARY}",
            f"FAKETIME_TIMESTAMP_FILE={self.difference}",
            "FAKETIME_NO_CACHE=1",
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
        )
        return super()._spawn(["/usr/bin/env", *preloaded, *argv], account)


@contextlib.contextmanager
def clocked_cluster() -> Iterator[ClockedPostgres]:
    """The newest PostgreSQL, with the right time."""
    binaries = installed(MAJORS[-1])
    assert binaries is not None
    with data_folder() as folder:
        postgres = ClockedPostgres(folder / "pg", binaries=binaries, settings=FAST)
        postgres.difference = folder / "difference"
        postgres.set_clock(0)
        with postgres:
            yield postgres
