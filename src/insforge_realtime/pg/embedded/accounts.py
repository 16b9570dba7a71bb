"""The account that PostgreSQL runs as, what it can reach, and the files that are for us alone."""

from __future__ import annotations

import os
import pwd
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from insforge_realtime.errors import EmbeddedPostgresError

STATE_DIR = Path("/var/lib/insforge-realtime")
WAY_OUT = "Or set DATABASE_URL to use a PostgreSQL server of your own."
"""How every error of the embedded PostgreSQL ends."""


@dataclass(frozen=True, slots=True)
class Account:
    """The account that PostgreSQL runs as when we are root."""

    uid: int
    gid: int


def lent(cluster: Path) -> Account | None:
    """Return the account that root lends to the server of this cluster; None if we are not root."""
    if os.geteuid() != 0:
        return None
    if cluster.exists() and (owner := cluster.stat()).st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(entry.pw_uid, entry.pw_gid)
    raise EmbeddedPostgresError(f"PostgreSQL refuses to run as root, and no other account exists. {WAY_OUT}")


def can_use(account: Account, path: Path) -> bool:
    """Return whether the account may enter or execute `path`, by the kernel's verdict, which covers ACLs and mounts."""
    return popen(["/bin/sh", "-c", 'test -x "$0"', str(path)], account).wait() == 0


def open_own(path: Path, flags: int = 0, mode: int = 0o600) -> int:
    """Open a file, created if it does not exist, by default for its owner only; return the descriptor."""
    # No link is followed: root may write here in a folder that somebody else can write to.
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | flags, mode)


def write_own(path: Path, text: str) -> None:
    """Replace the contents of such a file."""
    with os.fdopen(open_own(path, os.O_TRUNC), "w") as file:
        file.write(text)


def make_traversable(*folders: Path) -> None:
    """Create the folders that do not exist, so that any account can pass through them."""
    for folder in folders:
        with suppress(FileExistsError):
            folder.mkdir()
            folder.chmod(0o711)  # whatever the umask


def popen(argv: list[str], account: Account | None, **kwargs: Any) -> subprocess.Popen[bytes]:
    """Start a child that runs as the account, or as ourselves."""
    # Nothing of ours that may be secret, no PG* that would redirect the server, messages in English.
    names = ("PATH", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    env = {name: os.environ[name] for name in names if name in os.environ} | {"LC_ALL": "C"}
    if account:
        kwargs |= {"user": account.uid, "group": account.gid, "extra_groups": [account.gid]}
    # cwd: ours may be one that the account cannot enter.
    return subprocess.Popen(argv, cwd="/", env=env, stdin=subprocess.DEVNULL, **kwargs)  # noqa: S603
