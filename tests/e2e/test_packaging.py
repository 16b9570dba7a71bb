"""The extras: whoever installs `[client]` gets nothing of the server, and what then works works."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import venv
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

PACKAGE = "insforge-realtime"
SOURCE = Path(__file__).parents[2] / "src" / "insforge_realtime"


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(extra: str) -> dict[str, Distribution]:
    """What `pip install 'insforge-realtime[extra]'` brings along, by name, read off the metadata of what is installed.
    No extra is ''.
    """
    found: dict[str, Distribution] = {}
    wanted = [(PACKAGE, frozenset([extra]))]
    while wanted:
        name, extras = wanted.pop()
        try:
            one = distribution(name)
        except PackageNotFoundError:
            continue  # for another platform or Python
        for text in one.requires or []:
            requirement = Requirement(text)
            applies = [not requirement.marker or requirement.marker.evaluate({"extra": it}) for it in (extras or {""})]
            key = canonical(requirement.name)
            if any(applies) and key not in found:
                wanted.append((key, frozenset(requirement.extras)))
                try:
                    found[key] = distribution(key)
                except PackageNotFoundError:
                    continue
    return found


@pytest.fixture(scope="module")
def client_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has the base and `[client]`, and nothing else."""
    folder = tmp_path_factory.mktemp("client-only")
    venv.create(folder, with_pip=False, symlinks=True)
    [site_packages] = folder.glob("lib/python*/site-packages")
    (site_packages / "insforge_realtime").symlink_to(SOURCE)
    for one in closure("client").values():
        for top in {file.parts[0] for file in one.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            if not (site_packages / top).exists():
                (site_packages / top).symlink_to(str(one.locate_file(top)))
    return folder / "bin" / "python"


def run(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([python, *arguments], capture_output=True, text=True, cwd="/", timeout=60, check=False)


def directly(extra: str) -> set[str]:
    """What an extra names itself."""
    requires = distribution(PACKAGE).requires or []
    return {canonical(Requirement(text).name) for text in requires if f'extra == "{extra}"' in text.replace("'", '"')}


def test_a_wheel_takes_every_statement_along() -> None:
    """hatchling packs whole folders, except what .gitignore names."""
    root = SOURCE.parents[1]
    wheel = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel == {"packages": ["src/insforge_realtime"]}
    statements = [str(file) for file in SOURCE.rglob("*.sql")]
    assert len(statements) > 20
    command = ["git", "check-ignore", "--no-index", *statements]
    ignored = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    assert (ignored.returncode, ignored.stdout) == (1, ""), ignored.stderr


def test_the_client_extra_brings_nothing_of_the_server() -> None:
    names = set(closure("client"))
    assert {"python-socketio", "aiohttp", "typer", "rich"} <= names
    ours, theirs = directly("server"), directly("client")
    assert {"asyncpg", "fastapi", "uvicorn", "uvloop", "pydantic", "websockets"} <= ours
    # The command line is both halves'. (typer needs pydantic for itself.) And both speak HTTP, by aiohttp.
    assert (names & ours) - set(closure("")) - theirs == set()
    assert ours & theirs == {"aiohttp"}
    assert set(closure("")) & ours <= {"pydantic"}


def test_the_client_works_with_its_extra_alone(client_only: Path) -> None:
    done = run(client_only, "-c", "import insforge_realtime.client.sync, sys; print('asyncpg' in sys.modules)")
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr
    assert run(client_only, "-c", "import asyncpg").returncode == 1  # the environment is what it is said to be
    failed = run(client_only, "-m", "insforge_realtime", "publish", "c", "e", "{}", "--url", "http://127.0.0.1:1")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "Cannot connect" in failed.stderr


@pytest.mark.parametrize("command", ["serve", "migrate", "token", "check", "dev", "webhooks list"])
def test_a_command_of_the_server_says_what_to_install(client_only: Path, command: str) -> None:
    done = run(client_only, "-m", "insforge_realtime", *command.split())
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("error: this command needs ")
    assert line.endswith("pip install 'insforge-realtime[server]'")


def test_help_needs_neither_half_and_tail_says_what_to_install() -> None:
    hide = "import sys; sys.modules.update(dict.fromkeys(['socketio', 'aiohttp', 'pydantic_settings', 'asyncpg']));"
    start = "from insforge_realtime.cli.main import main; sys.argv[1:] = {}; main()"
    python = Path(sys.executable)
    shown = run(python, "-c", hide + start.format(["--help"]))
    assert shown.returncode == 0
    assert "tail" in shown.stdout
    done = run(python, "-c", hide + start.format(["tail", "orders"]))
    assert done.returncode == 1
    assert "pip install 'insforge-realtime[client]'" in done.stderr
