"""How connections are opened: host by host, with TLS as asked for, and with no default of a role in our way."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import asyncpg
import psutil
import pytest

from insforge_realtime.errors import ConfigError
from insforge_realtime.pg import database
from insforge_realtime.pg.database import Database
from insforge_realtime.pg.demo import ALICE, ROOM
from insforge_realtime.pg.dial import WrongHost, remedy
from insforge_realtime.pg.embedded import accounts
from support import forkserver
from support.databases import MAJORS, Cluster, bare_server, data_folder, free_port, installed, running_cluster
from support.receivers import LOOPBACK, receiving
from support.servers import Server, token
from support.tls import Certificate, certificate
from support.wire import WireClient

Start = Callable[..., Server]
CHAT = f"chat:{ROOM}"


def with_hosts(url: str, *places: str) -> str:
    """The URL, with these hosts in place of its own; `*` stands for that."""
    parts = urlsplit(url)
    own = f"{parts.hostname}:{parts.port}"
    hosts = ",".join(own if place == "*" else place for place in places)
    return url.replace(f"@{own}", f"@{hosts}")


def and_(url: str, parameters: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}{parameters}"


# ---- hosts -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def silent() -> Iterator[str]:
    """A host that takes connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(100)
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@contextlib.contextmanager
def black_hole() -> Iterator[str]:
    """A host that answers no SYN: its queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        time.sleep(0.1)
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@contextlib.contextmanager
def frozen() -> Iterator[str]:
    """A PostgreSQL that is stopped in its tracks."""
    with running_cluster() as cluster:
        assert cluster.pid is not None
        processes = [cluster.pid, *(child.pid for child in psutil.Process(cluster.pid).children(recursive=True))]
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield f"127.0.0.1:{urlsplit(cluster.dsn).port}"
        finally:
            for pid in reversed(processes):
                os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def refusing() -> Iterator[str]:
    """A host where nobody listens."""
    yield f"127.0.0.1:{free_port()}"


WAYS = {"silent": silent, "black hole": black_hole, "frozen": frozen, "refusing": refusing}


@pytest.mark.parametrize("pooled", [False, True], ids=["own session", "pooled"])
@pytest.mark.parametrize("way", WAYS)
async def test_a_host_that_is_away_in_any_way_does_not_keep_us_from_the_next(
    newest: Cluster, way: str, pooled: bool
) -> None:
    with WAYS[way]() as away:
        for places in ((away, "*"), ("*", away)):
            began = time.monotonic()
            async with Database(with_hosts(newest.postgres.dsn, *places)).connected("test", pooled=pooled) as link:
                assert await link.fetchval("SELECT 1") == 1
            assert time.monotonic() - began < database.CONNECT_SECONDS


async def test_each_host_has_the_connect_timeout_that_the_url_gives(newest: Cluster) -> None:
    with silent() as one, silent() as two:
        began = time.monotonic()
        url = and_(with_hosts(newest.postgres.dsn, one, two, "*"), "connect_timeout=2")
        async with Database(url).connected("test"):
            assert 3.9 < time.monotonic() - began < 8


async def test_when_no_host_will_do_each_is_named_and_no_password(newest: Cluster, monkeypatch: Any) -> None:
    monkeypatch.setattr("insforge_realtime.pg.dial.SHORTEST_SECONDS", 0.3)
    monkeypatch.setattr(database, "CONNECT_SECONDS", 0.3)
    with silent() as one, refusing() as two:
        with pytest.raises(ConnectionError) as caught:
            await Database(with_hosts(newest.postgres.dsn, one, two)).connect("test")
        assert one in str(caught.value)
        assert two in str(caught.value)
        assert "did not answer in 0.3 s" in str(caught.value)
        assert str(urlsplit(newest.postgres.dsn).password) not in str(caught.value)
        with pytest.raises(TimeoutError, match=f"{one} did not answer"):
            await Database(with_hosts(newest.postgres.dsn, one)).connect("test")


async def test_a_wrong_password_is_not_tried_on_the_next_host(newest: Cluster) -> None:
    url = with_hosts(newest.postgres.url("postgres", password="wrong"), "*", "*")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await Database(url).connect("test")


async def test_the_kind_of_server_that_is_asked_for_is_found_in_any_order(newest: Cluster, tmp_path: Path) -> None:
    with bare_server("standby.signal") as (url, _):
        servers = [urlsplit(address) for address in (newest.postgres.dsn, url)]
        here, there = (f"127.0.0.1:{parts.port}" for parts in servers)
        passwords = tmp_path / "pgpass"
        passwords.write_text("".join(f"127.0.0.1:{parts.port}:*:*:{parts.password}\n" for parts in servers))
        passwords.chmod(0o600)
        for places in (f"{there},{here}", f"{here},{there}"):
            both = f"postgresql://postgres@{places}/postgres?passfile={passwords}"
            for target, found in (
                (None, here), ("read-write", here), ("primary", here),
                ("standby", there), ("read-only", there), ("prefer-standby", there),
                ("any", places.partition(",")[0]),
            ):  # fmt: skip
                for pooled in (False, True):
                    address = both if target is None else and_(both, f"target_session_attrs={target}")
                    async with Database(address).connected("test", pooled=pooled) as link:
                        assert await link.fetchval("SELECT inet_server_port()") == int(found.rpartition(":")[2])
        with pytest.raises(WrongHost, match="is a standby") as caught:
            await Database(and_(url, "target_session_attrs=read-write")).connect("test")
        assert "kind" in str(remedy(caught.value))
        async with Database(and_(newest.postgres.dsn, "target_session_attrs=prefer-standby")).connected("test"):
            pass


async def test_a_server_finds_the_second_host_while_the_first_is_silent(demo: str, start: Start) -> None:
    with silent() as away:
        server = start(with_hosts(demo, away, "*"))
        await asyncio.to_thread(server.wait_for_log, "feed is live")
        await _until_it_answers(server)


async def _until_it_answers(server: Server, seconds: float = 20) -> None:
    async with WireClient(server.ws_url, {"token": token(ALICE)}) as alice, asyncio.timeout(seconds):
        while not (await alice.subscribe(CHAT))["ok"]:
            await asyncio.sleep(0.05)
        while not (await alice.publish(CHAT, "said", {}))["ok"]:
            await asyncio.sleep(0.05)
        await alice.wait_for("said")


# ---- sockets, names, passwords -----------------------------------------------------------------------------


async def test_a_socket_of_this_machine_a_password_file_and_a_variable_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bare_server() as (url, folder):
        parts = urlsplit(url)
        by_socket = f"postgresql:///postgres?host={folder}&port={parts.port}&user=postgres"
        file = tmp_path / "pgpass"
        file.write_text(f"*:{parts.port}:*:postgres:{parts.password}\n")
        file.chmod(0o600)
        monkeypatch.setenv("PGPASSWORD", "wrong")
        for address in (
            f"{by_socket}&password={parts.password}&sslmode=require",
            f"postgresql://postgres:{parts.password}@{quote(str(folder), safe='')}:{parts.port}/postgres",
        ):
            async with Database(address).connected("test") as link:
                assert await link.fetchval("SELECT inet_server_port()") is None
        monkeypatch.delenv("PGPASSWORD")
        async with Database(f"{by_socket}&passfile={file}").connected("test"):
            pass
        monkeypatch.setenv("PGPASSFILE", str(file))
        async with Database(f"postgresql://postgres@127.0.0.1:{parts.port}/postgres").connected("test"):
            pass
        monkeypatch.delenv("PGPASSFILE")
        monkeypatch.setenv("PGPASSWORD", str(parts.password))
        async with Database(by_socket).connected("test"):
            pass


@pytest.mark.parametrize("password", ["p@ss:w#rd", "p?d", "100%", "[x]", "ä €", "a/b"])
async def test_a_password_with_special_characters_lets_us_in(newest: Cluster, password: str) -> None:
    role = f"special_{os.getpid()}"
    await newest.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{password}'")
    written = quote(password, safe="") if "/" in password else password
    url = newest.postgres.url("postgres", role, "x").replace(":x@", f":{written}@")
    try:
        async with Database(url).connected("test") as link:
            assert await link.fetchval("SELECT current_user") == role
    finally:
        await newest.execute(f"DROP ROLE {role}")


async def test_names_options_and_keepalives_of_the_url_hold(newest: Cluster) -> None:
    url = and_(
        newest.postgres.dsn,
        "application_name=shop&options=-c%20search_path%3Dshop,public%20-c%20statement_timeout%3D1&keepalives_idle=77"
        "&pgbouncer=true&channel_binding=require&gssencmode=prefer&fallback_application_name=x",
    )
    async with Database(url).connected("test") as link:
        assert await link.fetchval("SHOW application_name") == "shop test"
        assert await link.fetchval("SHOW search_path") == "shop,public"
        assert await link.fetchval("SHOW statement_timeout") == "0"
        found: socket.socket = link._transport.get_extra_info("socket")  # type: ignore[attr-defined]
        assert found.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert found.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 77


@pytest.mark.parametrize("pooled", [False, True])
async def test_a_wrong_setting_in_the_options_is_a_mistake_in_the_url(newest: Cluster, pooled: bool) -> None:
    for options in ("-c nonsense%3D1", "-c jit%3Dbanana"):
        with pytest.raises(ConfigError, match=r"^options: "):
            await Database(and_(newest.postgres.dsn, f"options={options}")).connect("test", pooled=pooled)


# ---- TLS ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def secure() -> Iterator[tuple[str, Certificate]]:
    """A PostgreSQL with a certificate for localhost and no other name. The wheel's speaks no TLS, the system's does."""
    if installed(MAJORS[0]) is None:
        assert not os.environ.get("CI"), f"PostgreSQL {MAJORS[0]} is not installed"
        pytest.skip(f"PostgreSQL {MAJORS[0]} is not installed")
    with data_folder() as folder:
        made = certificate(folder / "tls", "localhost")
        made.key.chmod(0o600)
        if (account := accounts.lent(folder / "none")) is not None:
            os.chown(made.key, account.uid, account.gid)
        files = {"ssl_cert_file": str(made.certificate), "ssl_key_file": str(made.key)}
        with running_cluster(MAJORS[0], port=None, ssl="on", **files) as cluster:
            yield cluster.dsn.replace("@127.0.0.1:", "@localhost:"), made


async def encrypted(url: str) -> bool:
    async with Database(url).connected("test") as link:
        return bool(await link.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"))


async def test_each_sslmode_means_what_it_says(secure: tuple[str, Certificate], tmp_path: Path) -> None:
    url, made = secure
    stranger = certificate(tmp_path / "stranger").authority
    assert not await encrypted(and_(url, "sslmode=disable"))
    for parameters in (
        "sslmode=prefer", "sslmode=require", "sslmode=no-verify", "ssl=true", "sslmode=require&channel_binding=require",
        f"sslmode=verify-ca&sslrootcert={made.authority}", f"sslmode=verify-full&sslrootcert={made.authority}",
    ):  # fmt: skip
        assert await encrypted(and_(url, parameters)), parameters
    for parameters in (
        f"sslmode=verify-ca&sslrootcert={stranger}", f"sslmode=verify-full&sslrootcert={stranger}",
        f"sslmode=require&sslrootcert={stranger}", "sslrootcert=system", "sslmode=verify-full&sslrootcert=system",
    ):  # fmt: skip
        with pytest.raises(OSError, match="certificate verify failed") as caught:
            await Database(and_(url, parameters)).connect("test")
        assert "sslrootcert" in str(remedy(caught.value))


async def test_full_verification_is_of_the_name_too(secure: tuple[str, Certificate]) -> None:
    url, made = secure
    by_address = url.replace("@localhost:", "@127.0.0.1:")
    assert await encrypted(and_(by_address, f"sslmode=verify-ca&sslrootcert={made.authority}"))
    with pytest.raises(OSError, match="certificate verify failed"):
        await Database(and_(by_address, f"sslmode=verify-full&sslrootcert={made.authority}")).connect("test")


async def test_the_machines_own_certificates_are_those_that_openssl_trusts(
    secure: tuple[str, Certificate], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, made = secure
    monkeypatch.setenv("SSL_CERT_FILE", str(made.authority))
    assert await encrypted(and_(url, "sslrootcert=system"))


# ---- what a role's defaults may not do ---------------------------------------------------------------------

HOSTILE = (
    "statement_timeout = '100ms'", "lock_timeout = '1ms'", "idle_session_timeout = '1s'",
    "idle_in_transaction_session_timeout = '1ms'", "standard_conforming_strings = off", "row_security = off",
    "default_transaction_isolation = 'serializable'", "default_transaction_read_only = on", "search_path = public, extra",
    "datestyle = 'German'", "intervalstyle = 'sql_standard'", "timezone = 'Asia/Tokyo'", "bytea_output = 'escape'",
)  # fmt: skip


@pytest.fixture
async def hostile(cluster: Cluster) -> AsyncIterator[str]:
    """A database with the demo in it, where everything is against us."""
    url = await cluster.database("demo")
    name = url.rpartition("/")[2]
    settings = [*HOSTILE, *(["transaction_timeout = '50ms'"] if cluster.major >= 17 else [])]
    for setting in settings:
        await cluster.execute(f"ALTER ROLE postgres IN DATABASE {name} SET {setting}")
    yield url
    await cluster.execute(f"ALTER ROLE postgres IN DATABASE {name} RESET ALL")
    await cluster.drop(url)


@contextlib.asynccontextmanager
async def mine(url: str) -> AsyncIterator[Any]:
    """A connection of the test's own, without those defaults, also while it is opened: the machine may be busy."""
    async with Database(f"{url}?options=-c%20statement_timeout%3D0").connected("the test's") as link:
        yield link


async def test_a_burst_publish_counters_and_webhooks_survive_the_defaults_of_a_role(hostile: str, start: Start) -> None:
    async with receiving() as receiver, mine(hostile) as sql:
        await sql.execute(
            "UPDATE realtime.channels SET webhook_urls = ARRAY[$1] WHERE pattern = 'chat:%'", receiver.url
        )
        await sql.execute("INSERT INTO realtime.channels (pattern) VALUES ('burst')")
        server = start(hostile, webhook_allow_networks=LOOPBACK)
        async with WireClient(server.ws_url, {"token": token(ALICE)}) as alice:
            assert (await alice.subscribe(CHAT))["ok"]
            assert (await alice.publish(CHAT, "said", {"n": 1}))["ok"]
            await asyncio.sleep(1.5)  # longer than a session of this role may be idle
            await sql.execute(
                """INSERT INTO realtime.messages (event_name, channel_id, channel_name, payload)
                   SELECT 'e', id, pattern, '{}' FROM realtime.channels, generate_series(1, 300000)
                   WHERE pattern = 'burst'"""
            )
            assert (await alice.publish(CHAT, "said", {"n": 2}))["ok"]
            await sql.execute("SELECT realtime.publish($1, 'said', '{\"n\": 3}')", CHAT)
            said = await alice.wait_for("said", 3, 60)
            assert [message["n"] for message in said] == [1, 2, 3]
        async with asyncio.timeout(30):
            while await sql.fetchval("SELECT count(*) FROM realtime.messages WHERE ws_audience_count = 1") != 3:
                await asyncio.sleep(0.05)
            while len(receiver.ids) < 3:
                await asyncio.sleep(0.05)
    assert [line for line in server.lines if line["event"] in ("database link lost", "feed is down")] == []
    assert server.errors() == []


async def test_a_link_has_its_own_limits_and_the_roles_path_unless_told_otherwise(hostile: str) -> None:
    async with Database(hostile).connected("test", statement_timeout=12, lock_timeout=5) as link:
        for setting, value in (
            ("statement_timeout", "12s"), ("lock_timeout", "5s"), ("idle_session_timeout", "0"),
            ("search_path", "public, extra"), ("timezone", "Asia/Tokyo"), ("transaction_read_only", "off"),
            ("transaction_isolation", "read committed"), ("jit", "off"),
        ):  # fmt: skip
            assert await link.fetchval(f"SHOW {setting}") == value, setting
    async with Database(hostile).connected("test", search_path="pg_catalog, pg_temp") as link:
        assert await link.fetchval("SHOW search_path") == "pg_catalog, pg_temp"


async def test_a_database_that_is_fenced_is_not_written_to_and_is_named(newest: Cluster) -> None:
    url = await newest.database("empty")
    await newest.execute(f"ALTER DATABASE {url.rpartition('/')[2]} SET default_transaction_read_only = on")
    async with Database(url).connected("test") as link:
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError) as caught:
            await link.execute("CREATE TABLE t ()")
        assert "primary" in str(remedy(caught.value))
    await newest.drop(url)


# ---- what the log says -------------------------------------------------------------------------------------


async def _log_of(start: Start, url: str, seconds: float = 6.0) -> list[dict[str, Any]]:
    server = start(url)
    await asyncio.sleep(seconds)  # what is shown is that no more comes
    assert str(urlsplit(url).password) not in "\n".join(server.raw)
    return [line for line in server.lines if line["event"].startswith(("the database", "database"))]


@pytest.mark.parametrize(
    ("change", "error", "advice"),
    [
        (lambda url: url.replace("@", "%21@", 1), "InvalidPasswordError", "the password"),
        (lambda url: url + "_missing", "InvalidCatalogNameError", "the database's name"),
        (lambda url: url.replace("//postgres:", "//nobody_of_that_name:"), "InvalidPasswordError", "the user"),
        (lambda url: url.replace("127.0.0.1", "no-such-host.invalid"), "gaierror", "the host"),
    ],
    ids=["password", "database", "role", "host"],
)
async def test_what_does_not_pass_by_itself_is_said_once_with_what_to_do(
    demo: str, start: Start, change: Callable[[str], str], error: str, advice: str
) -> None:
    [line] = await _log_of(start, change(demo))
    assert line["event"] == "the database cannot be used"
    assert line["error"].startswith(error)
    assert advice in line["advice"]


async def test_what_a_url_has_that_means_nothing_is_said_once(demo: str, start: Start) -> None:
    lines = await _log_of(start, and_(demo, "pgbouncer=true&channel_binding=require"), 1.0)
    assert {line["event"] for line in lines} == {"database URL"}
    assert sorted(line["note"].split()[0] for line in lines) == ["channel_binding=require", "the"]


def run(url: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("REALTIME_", "PG"))}
    return forkserver.run(arguments, {**clean, "DATABASE_URL": url, "REALTIME_JWT_SECRET": "x" * 32}, str(cwd))


@pytest.mark.parametrize("command", ["migrate", "check", "webhooks list --json"])
def test_a_command_says_on_standard_error_what_a_url_has_that_means_nothing(
    demo: str, command: str, tmp_path: Path
) -> None:
    done = run(and_(demo, "pgbouncer=true"), *command.split(), cwd=tmp_path)
    assert done.returncode == 0
    assert "pgbouncer" not in done.stdout
    assert done.stderr.count("the parameter pgbouncer means nothing to this server") == 1


@pytest.mark.parametrize("command", ["serve", "migrate", "check", "webhooks list", "dev"])
def test_a_mistake_in_a_url_ends_every_command_with_status_2_and_one_line(command: str, tmp_path: Path) -> None:
    done = run("postgresql://u:hunter2@127.0.0.1:1/d?sslmod=require", *command.split(), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: DATABASE_URL: there is no parameter sslmod; did you mean sslmode?\n"
