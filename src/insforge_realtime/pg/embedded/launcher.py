"""One cluster: created, found again, started, stopped. The package's docstring describes a data folder."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import secrets
import shutil
import subprocess
import threading
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from insforge_realtime.errors import EmbeddedPostgresError
from insforge_realtime.pg.embedded import accounts, processes
from insforge_realtime.pg.embedded.accounts import (
    WAY_OUT,
    Account,
    can_use,
    make_traversable,
    open_own,
    popen,
    write_own,
)
from insforge_realtime.pg.embedded.binaries import Binaries, find_binaries, install
from insforge_realtime.pg.embedded.processes import clear_pid_file, death_watch, is_ready, shut_down, until

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger("insforge_realtime.embedded")

# A small footprint for development, but nothing that changes what a query or a crash does: fsync stays on.
DEFAULTS = {
    "max_connections": "100",
    "shared_buffers": "64MB",
    "min_wal_size": "32MB",
    "max_wal_size": "512MB",
}
INITDB_LIMIT, READY_LIMIT = 120.0, 30.0
PORT_ATTEMPTS = 5


class EmbeddedPostgres:
    """One cluster in `data_dir`, which runs between `start` and `stop`."""

    def __init__(
        self,
        data_dir: Path,
        *,
        binaries: Binaries | None = None,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.data_dir = data_dir.expanduser().resolve()
        self._given_binaries = self._binaries = binaries
        self._given_port = self._port = port
        self._settings = dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None
        self._password = ""

    def start(self) -> None:
        """Start the server, and return once it accepts connections.

        Raises:
            EmbeddedPostgresError: anything went wrong.
        """
        if threading.current_thread() is not threading.main_thread():
            # The kernel's death signal is tied to the thread that forked, not to the process.
            raise self._error("it must be started from the main thread")
        if self.pid is not None:
            return
        self.stop()
        try:
            self._start()
        except (OSError, subprocess.SubprocessError) as error:
            self.stop()
            raise self._error(str(error)) from error
        except BaseException:
            self.stop()
            raise

    def stop(self, timeout: float = 5.0) -> None:
        """Stop: a fast shutdown, after `timeout` seconds an immediate one, finally SIGKILL; stopping twice is harmless."""
        process = self._process
        if process is not None:
            shut_down(process.pid, lambda: process.poll() is not None, timeout)
        self._process = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> EmbeddedPostgres:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """The postmaster's pid, while it runs."""
        process = self._process
        return process.pid if process and process.poll() is None else None

    @property
    def dsn(self) -> str:
        """The URL for the superuser and the database `postgres`."""
        return self.url("postgres")

    def url(self, database: str, user: str = "postgres", password: str | None = None) -> str:
        """Return the URL for any role; the superuser's password is filled in, others are for the caller to know."""
        if self._process is None:
            raise self._error("it is not started, and so has no address")
        if password is None and user == "postgres":
            password = self._password
        login = quote(user, safe="") + ("" if password is None else f":{quote(password, safe='')}")
        return f"postgresql://{login}@127.0.0.1:{self._port}/{quote(database, safe='')}"

    @property
    def psql(self) -> Path | None:
        """The client that was installed with the server, if any; known once the server is started."""
        path = self._binaries.bin_dir / "psql" if self._binaries else None
        return path if path and path.exists() else None

    def _error(self, text: str) -> EmbeddedPostgresError:
        end = "\n" if "\n" in text else ". "
        return EmbeddedPostgresError(f"The embedded PostgreSQL in {self.data_dir}: {text}{end}{WAY_OUT}")

    # -- a start, step by step

    def _start(self) -> None:
        self._claim_folder()
        os.close(open_own(self.data_dir / "postgres.log", os.O_TRUNC))
        account = accounts.lent(self.data_dir / "cluster")
        cluster = self._locate(account)
        self._binaries = self._choose_binaries(cluster)
        if account and not can_use(account, self._binaries.bin_dir / "postgres"):
            self._binaries = self._within_reach(self._binaries)
        if not self._check_cluster(cluster):
            self._initialise(cluster, self._binaries, account)
        self._password = self._read_password()
        self._launch(cluster, self._binaries, account)

    def _claim_folder(self) -> None:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        names = {name for name in os.listdir(self.data_dir) if not name.startswith(".")} - {"lost+found"}
        if names and "lock" not in names:
            raise self._error("the folder holds something else; choose a separate folder for the data")
        self._lock = open_own(self.data_dir / "lock", mode=0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._lock, 32).decode(errors="replace").strip()
            raise self._error(f"another process uses the folder (pid {holder or 'unknown'})") from None
        os.ftruncate(self._lock, 0)
        os.write(self._lock, f"{os.getpid()}\n".encode())

    def _locate(self, account: Account | None) -> Path:
        """Return where PGDATA is or will be, free of symlinks: it has to match a postmaster's command line."""
        link = self.data_dir / "cluster"
        home = accounts.STATE_DIR / hashlib.sha256(os.fsencode(self.data_dir)).hexdigest()[:16]
        if not link.is_symlink():
            if account is None or can_use(account, self.data_dir):
                return link
            self._relocate(link, home)
        elif link.readlink() != home / "cluster":
            # A copied folder would share its cluster with the original: each would stop the other's server.
            raise self._error(
                f"it was moved or copied, and its data is in {link.readlink()}: move it back or remove {link}"
            )
        if account:
            make_traversable(accounts.STATE_DIR, home)
        return home / "cluster"

    def _relocate(self, link: Path, home: Path) -> None:
        if link.exists():
            raise self._error(f"PostgreSQL's account can no longer reach {link}: restore the permissions above it")
        if home.exists():  # with no link to it: the data folder was removed, so its data should not come back
            old = home.with_name(f"{home.name}.old")
            shutil.rmtree(old, ignore_errors=True)
            home.rename(old)
        link.symlink_to(home / "cluster")
        logger.warning("PostgreSQL's account cannot reach %s: its cluster is kept in %s", self.data_dir, home)

    def _choose_binaries(self, cluster: Path) -> Binaries:
        file = cluster / "PG_VERSION"
        major = int(file.read_text().split(".")[0]) if file.exists() else None
        with suppress(EmbeddedPostgresError):
            binaries = self._given_binaries or find_binaries(major)
            if major in (None, binaries.major):
                return binaries
        other = self._given_binaries or find_binaries()
        raise self._error(
            f"its cluster was made by PostgreSQL {major}, and the server at hand is {other.version}. Install "
            f"PostgreSQL {major}, upgrade the cluster with pg_upgrade, or start elsewhere with --data-dir"
        )

    def _within_reach(self, binaries: Binaries) -> Binaries:
        try:
            return install(binaries)
        except ValueError:
            raise self._error(f"PostgreSQL's account cannot run {binaries.bin_dir / 'postgres'}") from None

    def _check_cluster(self, cluster: Path) -> bool:
        if (cluster / "PG_VERSION").exists():
            clear_pid_file(cluster)
            return True
        if cluster.exists() and os.listdir(cluster):
            raise self._error(f"{cluster} is not empty, and not a PostgreSQL cluster; move it away")
        return False

    def _initialise(self, cluster: Path, binaries: Binaries, account: Account | None) -> None:
        password = secrets.token_urlsafe(24)
        write_own(self.data_dir / "password", password)
        scratch = cluster.with_name("initdb.tmp")
        for locale in ("C.UTF-8", "C"):  # macOS may have no C.UTF-8
            self._prepare(scratch, password, account)
            if self._run_initdb(scratch, binaries, account, locale):
                break
        else:
            raise self._error(f"initdb failed:\n{self._log_tail()}")
        (scratch / "cluster").rename(cluster)
        shutil.rmtree(scratch)

    def _prepare(self, scratch: Path, password: str, account: Account | None) -> None:
        marker = scratch / "password"  # for initdb to read, and the sign that the folder is ours to delete
        if scratch.exists() and os.listdir(scratch) and not marker.exists():
            raise self._error(f"{scratch} holds something else; move it away")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(mode=0o700)
        write_own(marker, password)
        if account:
            os.chown(marker, account.uid, account.gid, follow_symlinks=False)
            os.chown(scratch, account.uid, account.gid, follow_symlinks=False)

    def _run_initdb(self, scratch: Path, binaries: Binaries, account: Account | None, locale: str) -> bool:
        # --no-sync: syncing a thousand files costs 0.4 s here, far more on a slow disk. It would guard an
        # empty cluster against a power cut in the half minute until the kernel writes it out.
        argv = [str(binaries.bin_dir / "initdb"), "-D", str(scratch / "cluster"), "--no-sync"]
        argv += [f"--pwfile={scratch / 'password'}", "--username=postgres", "--auth=scram-sha-256"]
        process = self._spawn([*argv, f"--locale={locale}", "--encoding=UTF8"], account)
        try:
            return process.wait(INITDB_LIMIT) == 0
        finally:
            process.kill()
            process.wait()

    def _read_password(self) -> str:
        path = self.data_dir / "password"
        if not path.exists():
            raise self._error(f"{path} is missing; put it back, or remove the data folder to start over")
        return path.read_text()

    def _launch(self, cluster: Path, binaries: Binaries, account: Account | None) -> None:
        for attempts_left in reversed(range(PORT_ATTEMPTS)):
            self._port = self._given_port or processes.free_port()
            self._process = self._spawn(self._command(cluster, binaries), account)
            try:
                return self._await_ready(self._process, cluster)
            except EmbeddedPostgresError:
                # Between our choice of the port and its bind, somebody else may have taken it.
                if self._given_port or not attempts_left or "Address already in use" not in self._log_tail():
                    raise

    def _command(self, cluster: Path, binaries: Binaries) -> list[str]:
        # No Unix socket: its path may not exceed 107 bytes. Ours come last: this module relies on them.
        ours = {"listen_addresses": "127.0.0.1", "port": str(self._port), "unix_socket_directories": ""}
        ours |= {"logging_collector": "off", "log_destination": "stderr"}
        settings = {**DEFAULTS, **self._settings, **ours}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(binaries.bin_dir / "postgres"), "-D", str(cluster), *options]

    def _await_ready(self, process: subprocess.Popen[bytes], cluster: Path) -> None:
        ready = until(lambda: process.poll() is not None or is_ready(cluster, process.pid), READY_LIMIT)
        if process.poll() is not None:
            raise self._error(f"the server did not start:\n{self._log_tail()}")
        if not ready:
            raise self._error(f"the server is not ready after {READY_LIMIT:.0f} s:\n{self._log_tail()}")

    def _spawn(self, argv: list[str], account: Account | None) -> subprocess.Popen[bytes]:
        """Start a child that dies with us, in its own session: a terminal's Ctrl-C is for us to handle."""
        log = open_own(self.data_dir / "postgres.log", os.O_APPEND)
        with os.fdopen(log, "ab"), warnings.catch_warnings():
            # Python >= 3.12 warns of preexec_fn beside threads: ours takes no lock that a thread may hold.
            warnings.simplefilter("ignore", DeprecationWarning)
            watch = death_watch()
            return popen(argv, account, stdout=log, stderr=log, start_new_session=True, preexec_fn=watch)

    def _log_tail(self) -> str:
        text = (self.data_dir / "postgres.log").read_text(errors="replace")
        return "\n".join(f"    {line}" for line in text.splitlines()[-8:])
