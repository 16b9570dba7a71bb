"""How one connection is opened: which host, for how long each is tried, and the settings that hold on it.

What lives here: the hosts of a URL (../dsn.py) in turn, TLS, keepalives, the session's settings, and which failures do not
pass by themselves. What does not: opening again (database.py), and any statement of the application.

**Hosts.** Each has a limit of its own, so that one which is silent does not keep us from the next. The next is tried after
whatever may be the fault of one host: it is away, silent, starting up, or of the wrong kind. A wrong password is nobody's.

**Settings.** A role or a database can have defaults (ALTER ROLE … SET) that would stop us, or change what a statement means:
`statement_timeout`, `standard_conforming_strings`, `row_security`. None of ours goes into the startup packet, where
PgBouncer refuses what it does not track. They are set in one round trip after it; on a pooled connection, whose
session is somebody else's next, at the beginning of each transaction, in the same round trip as BEGIN.
The search_path stays the role's own where policies and triggers run: they may need it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import asyncpg

from insforge_realtime.dsn import Dsn, Host
from insforge_realtime.errors import ConfigError
from insforge_realtime.pg.queries import query, written_out

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection

SHORTEST_SECONDS = 2.0
"""The least that a host gets of the time that all of them share."""
ROLLBACK_SECONDS = 3.0
"""How long the end of a failed transaction may take before the link counts as dead."""
KEEPALIVE = {"keepalives": 1, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
"""A link whose other end vanished while it was idle is noticed within a minute. In seconds, as libpq's."""
OPTIONS = {
    "keepalives_idle": "TCP_KEEPIDLE",
    "keepalives_interval": "TCP_KEEPINTVL",
    "keepalives_count": "TCP_KEEPCNT",
    "tcp_user_timeout": "TCP_USER_TIMEOUT",
}

NEXT_HOST = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.InternalClientError,
)
"""What may be the fault of one host."""


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """What holds on a connection, whatever the role's defaults are.

    Args:
        name: shown in `pg_stat_activity`.
        pooled: a pooler may hand every transaction to another session.
        statement_timeout, lock_timeout: seconds; 0 for none.
        search_path: None for the role's own.
    """

    name: str
    pooled: bool = False
    statement_timeout: float = 0.0
    lock_timeout: float = 0.0
    search_path: str | None = None


class WrongHost(ConnectionError):
    """The server is not of the kind that was asked for (`target_session_attrs`)."""


class Pooled(Connection):
    """A connection through a transaction pooler: each statement stands in a transaction that begins with our settings."""

    begin = "BEGIN"  # the driver's own, until it is replaced

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        if args and not self.is_in_transaction():
            async with self._transaction(timeout):
                return await super().execute(query, *args, timeout=timeout)
        if query == "ROLLBACK;":
            return await self._roll_back(query)
        # What the driver's transactions begin with.
        return await super().execute(f"{self.begin};" if query == "BEGIN;" else query, *args, timeout=timeout)

    async def _roll_back(self, query: str) -> str:
        """Also on a link that has gone silent, where it would wait for ever."""
        try:
            async with asyncio.timeout(ROLLBACK_SECONDS):
                return await super().execute(query)
        except TimeoutError:
            self.terminate()
            raise

    async def fetch(self, query: str, *args: Any, timeout: float | None = None, **options: Any) -> Any:
        async with self._transaction(timeout):
            return await super().fetch(query, *args, timeout=timeout, **options)

    async def fetchval(self, query: str, *args: Any, timeout: float | None = None, **options: Any) -> Any:
        async with self._transaction(timeout):
            return await super().fetchval(query, *args, timeout=timeout, **options)

    async def fetchrow(self, query: str, *args: Any, timeout: float | None = None, **options: Any) -> Any:
        async with self._transaction(timeout):
            return await super().fetchrow(query, *args, timeout=timeout, **options)

    @contextlib.asynccontextmanager
    async def _transaction(self, timeout: float | None) -> AsyncIterator[None]:
        """The one that there is, or one of its own."""
        if self.is_in_transaction():
            yield
        else:
            async with asyncio.timeout(timeout), self.transaction():
                yield


async def dial(dsn: Dsn, settings: SessionSettings, *, seconds: float) -> Connection:
    """Open a connection to the first host that will do.

    Args:
        dsn: where to.
        settings: what holds on it.
        seconds: for all hosts together, shared alike, where the URL has no connect_timeout.

    Raises:
        OSError, asyncpg.PostgresError, TimeoutError: none can be reached, or one does not let us in.
        ConfigError: a file of the URL cannot be used.
    """
    hosts: list[Host | None] = list(dsn.hosts) or [None]
    if dsn.spread:
        random.shuffle(hosts)
    limit = dsn.connect_timeout or (seconds if len(hosts) == 1 else max(SHORTEST_SECONDS, seconds / len(hosts)))
    failures: list[BaseException] = []
    for target in ("standby", "any") if dsn.target == "prefer-standby" else (dsn.target,):
        for host in hosts:
            try:
                return await _open(dsn, host, target, settings, limit)
            except NEXT_HOST as error:
                failures.append(error)
    raise failures[0] if len(hosts) == 1 else _none_of(hosts, failures[-len(hosts) :])


def _none_of(hosts: Sequence[Host | None], failures: Sequence[BaseException]) -> ConnectionError:
    each = "; ".join(f"{host.place if host else ''}: {error}" for host, error in zip(hosts, failures, strict=True))
    return ConnectionError(f"none of the hosts will do: {each}")


async def _open(dsn: Dsn, host: Host | None, target: str, settings: SessionSettings, limit: float) -> Connection:
    opened: list[Connection] = []
    try:
        async with asyncio.timeout(limit):
            connection: Connection = await asyncpg.connect(**_arguments(dsn, host, settings), timeout=limit)
            opened.append(connection)
            standing = await _standing(connection)
            _require(target, standing)
            _keep_alive(connection, {**KEEPALIVE, **dsn.keepalive})
            await _settle(connection, dsn, settings, standing)
            return connection
    except BaseException as error:
        for connection in opened:
            connection.terminate()
        if isinstance(error, TimeoutError):
            raise TimeoutError(f"{host.place if host else 'the database'} did not answer in {limit:g} s") from None
        raise


def _arguments(dsn: Dsn, host: Host | None, settings: SessionSettings) -> dict[str, Any]:
    """Return the driver's arguments: it gets one host. What it takes from a URL only, it gets in a URL."""
    context = _context(dsn)
    driver = dict(dsn.driver) if context is None else {}
    if dsn.sslmode is not None and context is None:
        driver["sslmode"] = dsn.sslmode
    startup = {} if dsn.startup is None else {"options": dsn.startup}
    if not settings.pooled:
        startup["application_name"] = f"{dsn.application or 'insforge-realtime'} {settings.name}"[:63]
    return {
        "dsn": f"postgresql://?{urlencode(driver)}" if driver else None,
        "host": host and host.name,
        "port": host and host.port,
        "user": dsn.user,
        "password": dsn.password,
        "database": dsn.database,
        "passfile": dsn.passfile,
        "ssl": context,
        "server_settings": startup,
        "target_session_attrs": "any",
        "statement_cache_size": 0 if settings.pooled else 100,
        "connection_class": Pooled if settings.pooled else asyncpg.Connection,
    }


def _context(dsn: Dsn) -> ssl.SSLContext | None:
    """Return the TLS that the driver has no word for: verified by what this machine trusts, or by nothing at all.

    Raises:
        ConfigError: the client's certificate or key cannot be used.
    """
    if dsn.sslmode != "no-verify" and dsn.driver.get("sslrootcert") != "system":
        return None
    context = ssl.create_default_context()
    if dsn.sslmode == "no-verify":
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["postgresql"])
    if certificate := dsn.driver.get("sslcert"):
        try:
            context.load_cert_chain(certificate, dsn.driver.get("sslkey"), dsn.driver.get("sslpassword", ""))
        except (OSError, ValueError) as error:
            raise ConfigError("sslcert and sslkey do not match, or cannot be read") from error
    return context


# ---- the kind of a server ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Standing:
    """Args:
    standby: it replays another server's WAL.
    read_only: sessions begin read-only.
    by_role: because this role's do, which is ours to change: the database's or the server's own word may be a fence.
    """

    standby: bool
    read_only: bool = False
    by_role: bool = False


async def _standing(connection: Connection) -> Standing:
    """Return what kind of server this is. PostgreSQL reports at the start what is nearly always so, a pooler does not."""
    reported = connection.get_settings()
    standby, read_only = (getattr(reported, name, None) for name in ("in_hot_standby", "default_transaction_read_only"))
    if (standby, read_only) == ("off", "off"):
        return Standing(standby=False)
    row = await connection.fetchrow(query("session_standing"))
    assert row is not None
    return Standing(row["standby"], row["read_only"] == "on", row["source"] in ("user", "database user"))


def _require(target: str, standing: Standing) -> None:
    """Raise WrongHost where the server is of another kind."""
    writes = not standing.standby and (standing.by_role or not standing.read_only)
    fits = {
        "read-write": writes,
        "read-only": not writes,
        "primary": not standing.standby,
        "standby": standing.standby,
    }
    if not fits.get(target, True):
        is_one = "is a standby" if standing.standby else "is read-only" if standing.read_only else "is a primary"
        raise WrongHost(f"it {is_one}, and target_session_attrs asks for {target}")


# ---- settings ----------------------------------------------------------------------------------------------


async def _settle(connection: Connection, dsn: Dsn, settings: SessionSettings, standing: Standing) -> None:
    others = dict(dsn.settings)
    if settings.search_path is not None:
        others["search_path"] = settings.search_path
    texts = [_set(name, value, local=settings.pooled) for name, value in others.items()]
    names = ["settle_transaction"] if settings.pooled else ["settle_session"]
    if connection.get_server_version().major >= 17:
        names.append(f"{names[0]}_17")
    limits = [str(int(seconds * 1000)) for seconds in (settings.statement_timeout, settings.lock_timeout)]
    texts += [written_out(name, *limits) for name in names]
    overrule = standing.read_only and standing.by_role and not standing.standby
    try:
        if settings.pooled:
            assert type(connection) is Pooled  # isinstance is true of any connection: asyncpg overrides it
            connection.begin = "; ".join([query("begin_writing" if overrule else "begin"), *texts])
            if others:
                await connection.fetchval(query("try_out"))
        else:
            await connection.execute("; ".join([*texts, *([query("settle_writing")] if overrule else [])]))
    except (
        asyncpg.UndefinedObjectError,
        asyncpg.InvalidParameterValueError,
        asyncpg.InsufficientPrivilegeError,
    ) as error:
        raise ConfigError(f"options: {error}") from error


def _set(name: str, value: str, *, local: bool) -> str:
    return written_out("set_one", _literal(name), _literal(value), str(local).lower())


def _literal(text: str) -> str:
    """Return a literal that means the same whatever standard_conforming_strings is."""
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def _keep_alive(connection: Connection, wanted: dict[str, int]) -> None:
    """Have the kernel see to it that the other end is there. The driver has no word for that, but the socket."""
    transport = getattr(connection, "_transport", None)
    found = transport and transport.get_extra_info("socket")
    if found is None or found.family == getattr(socket, "AF_UNIX", None):
        return
    with contextlib.suppress(OSError, AttributeError):
        found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(wanted["keepalives"] != 0))
        for name, option in OPTIONS.items():
            if wanted.get(name, 0) > 0 and hasattr(socket, option):
                found.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), wanted[name])


# ---- what does not pass by itself --------------------------------------------------------------------------

MISTAKES: tuple[tuple[type[BaseException], str], ...] = (
    (asyncpg.InvalidPasswordError, "correct the user or the password in the database's URL"),
    (asyncpg.InvalidAuthorizationSpecificationError, "check the user in the database's URL, and pg_hba.conf"),
    (asyncpg.InvalidCatalogNameError, "correct the database's name in its URL, or create it"),
    (asyncpg.InsufficientPrivilegeError, "grant the server's role what it lacks; `insforge-realtime check` says more"),
    (asyncpg.UndefinedTableError, "run `insforge-realtime migrate`"),
    (asyncpg.UndefinedFunctionError, "run `insforge-realtime migrate`"),
    (asyncpg.InvalidSchemaNameError, "run `insforge-realtime migrate`"),
    (asyncpg.ReadOnlySQLTransactionError, "the database is read-only; give the primary's address"),
    (asyncpg.ClientConfigurationError, "correct the database's URL"),
    (WrongHost, "give the address of a server of that kind"),
    (ssl.SSLCertVerificationError, "check sslmode and sslrootcert in the database's URL, and the server's certificate"),
    (ConfigError, "correct the database's URL"),
)
"""Errors that do not pass by themselves, and what to do."""


def remedy(error: BaseException) -> str | None:
    """Return what to do about an error; None where there is nothing to do but try again."""
    if isinstance(error, socket.gaierror):
        return "correct the host in the database's URL" if error.errno == socket.EAI_NONAME else None
    return next((advice for kind, advice in MISTAKES if isinstance(error, kind)), None)
