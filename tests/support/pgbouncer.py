"""Debian's PgBouncer in a process of its own, with the settings that it comes with: nothing is there for our sake."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from insforge_realtime.pg.embedded import accounts
from support.databases import data_folder, free_port

CONFIGURATION = """\
[databases]
* = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users.txt
admin_users = postgres
pool_mode = {mode}
default_pool_size = {size}
server_login_retry = 0.2
"""


def binary() -> str:
    """Where PgBouncer is; without it the test is skipped, but never in continuous integration."""
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        assert not os.environ.get("CI"), "pgbouncer is not installed"
        pytest.skip("pgbouncer is not installed")
    return found


class PgBouncer:
    """A PgBouncer in front of one PostgreSQL.

    Args:
        folder: for its files.
        url: of any database there; its role is the one that can log in.
        mode: `session` or `transaction`.
        size: how many connections to PostgreSQL it shares out, for each database and role.
    """

    def __init__(self, folder: Path, url: str, mode: str, size: int) -> None:
        parts = urlsplit(url)
        self.port = free_port()
        self._folder = folder
        (folder / "users.txt").write_text(f'"{parts.username}" "{parts.password}"\n')
        (folder / "pgbouncer.ini").write_text(
            CONFIGURATION.format(server=parts.port, port=self.port, folder=folder, mode=mode, size=size)
        )
        self.process: subprocess.Popen[bytes] | None = None

    def url(self, url: str) -> str:
        """The address of a database, through here."""
        parts = urlsplit(url)
        return urlunsplit(parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{self.port}"))

    def start(self) -> None:
        log = (self._folder / "pgbouncer.log").open("ab")
        # It refuses to run as root, as PostgreSQL does.
        account = accounts.lent(self._folder / "none")
        self.process = accounts.popen([binary(), str(self._folder / "pgbouncer.ini")], account, stdout=log, stderr=log)
        log.close()
        deadline = time.monotonic() + 20
        while True:
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5):
                return
            time.sleep(0.02)

    def stop(self) -> None:
        """At once: whoever is in the middle of something is cut off."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)
            self.process = None

    @property
    def log(self) -> str:
        return (self._folder / "pgbouncer.log").read_text()


@contextlib.contextmanager
def pooling(url: str, mode: str, *, size: int = 4) -> Iterator[PgBouncer]:
    """A PgBouncer that runs for the length of a block."""
    binary()
    with data_folder() as folder:
        pooler = PgBouncer(folder, url, mode, size)
        try:
            pooler.start()
            yield pooler
        finally:
            pooler.stop()
