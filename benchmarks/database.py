"""PostgreSQL under a benchmark: a migrated database with production settings, and pgbench, which writes to it."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeAlias

import asyncpg

from insforge_realtime.pg import database as pg_database
from insforge_realtime.pg.embedded import EmbeddedPostgres, find_binaries
from insforge_realtime.pg.embedded.binaries import Binaries
from insforge_realtime.pg.embedded.processes import death_watch
from insforge_realtime.pg.migrate import migrate

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
"""To PostgreSQL. In these folders a client's is a socket."""
CHANNEL = "bench-room"
"""No colon: pgbench would take what follows it for a variable."""
PRODUCTION = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "max_connections": "100",
}
"""What a production server has: nothing here makes a commit cheaper than it is there."""


class Database:
    """A migrated database on a PostgreSQL of its own, with one channel that the crowd may subscribe to."""

    def __init__(self, postgres: EmbeddedPostgres, found: Binaries, folder: Path, name: str = "") -> None:
        self.url = postgres.url(name) if name else postgres.dsn
        self.version = found.version
        assert postgres.pid is not None
        self.pid = postgres.pid
        self.postgres = postgres
        self.binaries = found
        self._script = folder / "publish.sql"
        self._script.write_text(
            "\\set n :n + 1\n"
            f"SELECT realtime.publish('{CHANNEL}', 'tick', jsonb_build_object('w', :client_id::int, 'n', :n::int, "
            "'text', 'forty characters of what happened to it'));\n"
        )

    async def execute(self, sql: str) -> None:
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    async def open_to_the_crowd(self) -> None:
        await self.execute("INSERT INTO realtime.channels (pattern) VALUES ('bench-%')")
        await self.execute(
            "CREATE POLICY benchmark ON realtime.channels FOR SELECT TO authenticated USING (pattern = 'bench-%')"
        )

    async def tidy(self) -> None:
        """Begin a measurement with an empty table, and without the last one's dirty pages."""
        await self.execute("TRUNCATE realtime.messages CASCADE")
        await self.execute("VACUUM ANALYZE realtime.messages")
        await self.execute("CHECKPOINT")

    async def doorbell(self, *, on: bool) -> None:
        await self.trigger("ring", on=on)

    async def trigger(self, name: str, *, on: bool) -> None:
        """Switch a trigger of `realtime.messages` on or off."""
        await self.execute(f"ALTER TABLE realtime.messages {'ENABLE' if on else 'DISABLE'} TRIGGER {name}")

    async def pgbench(self, clients: int, seconds: float) -> tuple[float, int]:
        """Publish one row per transaction, as fast as the commits go.

        Returns:
            Transactions per second, and in all.

        Raises:
            RuntimeError: pgbench failed, or one of its transactions.
        """
        process = await asyncio.create_subprocess_exec(
            *(
                str(self.binaries.bin_dir / "pgbench"),
                "--no-vacuum",
                "--protocol=prepared",
                f"--client={clients}",
                "--jobs=2",
            ),
            *(f"--time={max(1, round(seconds))}", "--define=n=0", f"--file={self._script}", self.url),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            preexec_fn=death_watch(),
        )
        try:
            output, errors = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        text = output.decode()
        rate = re.search(r"^tps = ([\d.]+)", text, re.MULTILINE)
        number = re.search(r"actually processed: (\d+)", text)
        failed = re.search(r"failed transactions: (\d+)", text)
        if process.returncode or not rate or not number or (failed and int(failed[1])):
            raise RuntimeError(f"pgbench failed:\n{text}{errors.decode()}")
        return float(rate[1]), int(number[1])


async def all_reaped() -> None:
    """Wait until the backends of clients that have left are reaped: until then, their CPU time is counted nowhere."""
    await asyncio.sleep(0.5)


@contextlib.asynccontextmanager
async def database(folder: Path, major: int) -> AsyncIterator[Database]:
    """Run PostgreSQL with production settings for the length of a block.

    Args:
        folder: where its files go.
        major: which version.
    """
    found = find_binaries(major)
    with EmbeddedPostgres(folder / "pg", binaries=found, settings=PRODUCTION) as postgres:
        await migrate(pg_database.Database(postgres.dsn))
        prepared = Database(postgres, found, folder)
        await prepared.open_to_the_crowd()
        yield prepared
