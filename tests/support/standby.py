"""PostgreSQL with standbys, for tests of what a failover does: a primary, what follows it, and an address that moves.

What lives here: how a standby is made and promoted, how it lags, and how a server is killed, frozen and stopped. What does
not: what was written and delivered, which is `support.ledger`. WAL reaches a standby through a proxy of its own, so that it
can lag as it does in life: what it lacks has not even arrived. Settings are as an operator has them, except that `fsync` is
off: the faults end processes, and the kernel keeps what they wrote.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import asyncpg
import psutil

from insforge_realtime.pg.database import Database
from insforge_realtime.pg.embedded import EmbeddedPostgres, accounts
from insforge_realtime.pg.embedded.processes import until
from insforge_realtime.pg.migrate import migrate
from support.databases import data_folder, free_port, installed
from support.proxy import Proxy

SETTINGS = {
    "synchronous_commit": "on",
    "fsync": "off",
    "max_connections": "100",
    "wal_keep_size": "256MB",
    "wal_retrieve_retry_interval": "100ms",
    "max_prepared_transactions": "5",
}

if TYPE_CHECKING:
    from insforge_realtime.pg.database import Connection


@contextlib.asynccontextmanager
async def connection_to(dsn: str) -> AsyncIterator[Connection]:
    """A connection that is cut at the end, whatever the server does."""
    connection = await asyncpg.connect(dsn, timeout=20)
    try:
        yield connection
    finally:
        connection.terminate()


async def use_up_ids(connection: Connection, number: int) -> int:
    """In the connection's transaction, roll back so many savepoints that have written something; the last one's id."""
    await connection.execute(f"""
        DO $$ BEGIN
            FOR i IN 1..{number} LOOP
                BEGIN
                    INSERT INTO scratch DEFAULT VALUES;
                    RAISE division_by_zero;
                EXCEPTION WHEN division_by_zero THEN  -- a block with handlers is a savepoint
                END;
            END LOOP;
        END $$""")
    last: int = await connection.fetchval("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1")
    return last


class Node:
    """One PostgreSQL, by an address that it keeps through every restart.

    Args:
        postgres: the server, started.
        link: what it receives its WAL through, if it began as a standby.
    """

    def __init__(self, postgres: EmbeddedPostgres, link: Proxy | None = None) -> None:
        self.postgres = postgres
        self.dsn = postgres.dsn
        self._link = link

    @property
    def port(self) -> int:
        port = urlsplit(self.dsn).port
        assert port is not None
        return port

    def through(self, proxy: Proxy) -> str:
        """Its DSN, by way of a proxy."""
        return self.dsn.replace(f":{self.port}/", f":{proxy.port}/")

    async def take_password_of(self, node: Node) -> None:
        """Let in whoever knows the other's password, as a restored database does."""
        own, self.dsn = self.dsn, node.dsn.replace(f":{node.port}/", f":{self.port}/")
        password = urlsplit(self.dsn).password
        async with connection_to(own) as connection:
            await connection.execute(f"ALTER ROLE postgres PASSWORD '{password}'")

    # Faults

    def kill(self) -> None:
        """SIGKILL the postmaster and all its children at once, frozen ones as well."""
        processes = self.processes()
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.postgres.stop()
        assert until(lambda: all(map(_is_gone, processes)), 10), "killed, and still there"

    def freeze(self) -> None:
        """Stop all its processes: the kernel goes on accepting its connections, and nobody ever answers."""
        for process in self.processes():
            process.suspend()

    def quit(self) -> None:
        """An immediate shutdown, as of `pg_ctl -m immediate`."""
        assert self.postgres.pid is not None
        os.kill(self.postgres.pid, signal.SIGQUIT)
        self.postgres.stop()

    async def stop(self) -> None:
        """A fast shutdown, which sends everything to the standbys first; so the event loop's proxies must go on."""
        await asyncio.to_thread(self.postgres.stop, 15)

    def processes(self) -> list[psutil.Process]:
        """The postmaster first: it must not start anybody anew."""
        if self.postgres.pid is None:
            return []
        postmaster = psutil.Process(self.postgres.pid)
        return [postmaster, *postmaster.children(recursive=True)]

    # A standby's life

    def lag(self) -> None:
        """From now on no WAL arrives."""
        assert self._link is not None
        self._link.stall()

    async def catch_up(self, leader: Node) -> None:
        """Until it has replayed all that the leader has flushed by now."""
        async with connection_to(leader.dsn) as connection:
            wanted = await connection.fetchval("SELECT pg_current_wal_flush_lsn()::text")
        async with connection_to(self.dsn) as connection, asyncio.timeout(20):
            while not await connection.fetchval("SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", wanted):
                await asyncio.sleep(0.01)

    async def part(self) -> None:
        """Cut it off from its leader for good, with what was under way."""
        assert self._link is not None
        await self._link.refuse()
        self._link.resume()

    async def promote(self) -> None:
        """Part it from its leader, and make it a primary."""
        await self.part()
        async with connection_to(self.dsn) as connection:
            assert await connection.fetchval("SELECT pg_promote(true, 20)"), "it was not promoted"


def _is_gone(process: psutil.Process) -> bool:
    """Ended, even if nobody has asked for its exit status."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


@dataclass
class Replication:
    """A primary and its standby, and the address that the feed knows, as a load balancer or DNS would give it.

    Args:
        primary, standby: the servers.
        address: leads to the primary, until it is moved.
    """

    primary: Node
    standby: Node
    address: Proxy
    _stack: AsyncExitStack

    @property
    def dsn(self) -> str:
        """By the address that moves."""
        return self.primary.through(self.address)

    @property
    def both(self) -> str:
        """By the names of both hosts, of which the one that takes writes is meant."""
        hosts = f":{self.primary.port},127.0.0.1:{self.standby.port}/"
        return self.primary.dsn.replace(f":{self.primary.port}/", hosts) + "?target_session_attrs=read-write"

    async def hide(self) -> None:
        """Cut who is at the address, and let nobody in."""
        await self.address.refuse()

    async def move_to(self, node: Node) -> None:
        """Let the address lead there; whoever is connected by it is cut."""
        await self.address.refuse()
        self.address.point_at(node.port)
        await self.address.listen()

    async def follow(self, leader: Node) -> Node:
        """A new standby of any primary."""
        return await _standby_of(leader, self._stack)

    async def synchronous(self) -> None:
        """From now on a commit waits for the standby to have it on disk."""
        async with connection_to(self.primary.dsn) as connection:
            await connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            await connection.execute("SELECT pg_reload_conf()")
            async with asyncio.timeout(20):
                while not await connection.fetchval(
                    "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
                ):
                    await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def lone_server(major: int, **settings: str) -> AsyncIterator[Node]:
    """A migrated database with the channels `room:…`, on a server that the test may kill."""
    async with AsyncExitStack() as stack:
        yield await _server(major, stack, settings)


@contextlib.asynccontextmanager
async def replicated(major: int, **settings: str) -> AsyncIterator[Replication]:
    """The same, with a standby that streams from it. `settings` are the primary's."""
    async with AsyncExitStack() as stack:
        primary = await _server(major, stack, settings)
        standby = await _standby_of(primary, stack)
        await standby.catch_up(primary)
        address = await stack.enter_async_context(Proxy(primary.port))
        yield Replication(primary, standby, address, stack)


async def _server(major: int, stack: AsyncExitStack, settings: dict[str, str]) -> Node:
    binaries = installed(major)
    assert binaries is not None, f"PostgreSQL {major} is not installed"
    folder = stack.enter_context(data_folder()) / "pg"
    postgres = EmbeddedPostgres(folder, binaries=binaries, port=free_port(), settings={**SETTINGS, **settings})
    postgres.start()
    node = Node(postgres)
    stack.callback(node.kill)
    await migrate(Database(node.dsn))
    async with connection_to(node.dsn) as connection:
        await connection.execute("INSERT INTO realtime.channels (pattern) VALUES ('room:%'); CREATE TABLE scratch ()")
    return node


async def _standby_of(leader: Node, stack: AsyncExitStack) -> Node:
    link = await stack.enter_async_context(Proxy(leader.port))
    folder = stack.enter_context(data_folder()) / "pg"
    await asyncio.to_thread(_copy, leader, folder)
    settings = {**SETTINGS, "primary_conninfo": leader.through(link)}
    postgres = EmbeddedPostgres(folder, port=free_port(), settings=settings)  # of the major that its folder is of
    postgres.start()
    node = Node(postgres, link)
    stack.callback(node.kill)
    return node


def _copy(leader: Node, folder: Path) -> None:
    """Make the data folder of a standby, as the launcher would find it after a restart."""
    folder.mkdir()
    (folder / "lock").touch()
    shutil.copy(leader.postgres.data_dir / "password", folder)
    account = accounts.lent(leader.postgres.data_dir / "cluster")
    cluster = folder / "cluster"
    cluster.mkdir(mode=0o700)
    if account is not None:
        os.chown(cluster, account.uid, account.gid)
    assert leader.postgres.psql is not None
    program = leader.postgres.psql.with_name("pg_basebackup")
    argv = [
        str(program),
        "-d",
        leader.dsn,
        "-D",
        str(cluster),
        "--checkpoint=fast",
        "--no-sync",
        "--write-recovery-conf",
    ]
    process = accounts.popen(argv, account, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said.decode()
