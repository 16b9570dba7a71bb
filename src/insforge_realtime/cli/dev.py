"""`insforge-realtime dev`: a database, the schema, a demo and the server, in one process, with one Ctrl-C.

What lives here: the order of things, and what is done to whose database. What is printed is welcome.py. The keys are made
once and kept in the data folder, so that tokens printed yesterday still work today.

A database of DATABASE_URL may be anybody's, since the variable stands in many shells and `.env` files: it gets the schema
`realtime`, without which nothing works, unless that would take over another server's tables; the demo only on request.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from insforge_realtime import config as configuration
from insforge_realtime import tasks
from insforge_realtime.cli.serve import serve
from insforge_realtime.cli.welcome import Scene, print_welcome
from insforge_realtime.config import Config
from insforge_realtime.errors import ConfigError, DatabaseError
from insforge_realtime.pg import demo
from insforge_realtime.pg.database import Database
from insforge_realtime.pg.embedded import EmbeddedPostgres
from insforge_realtime.pg.migrate import is_adoption, migrate
from insforge_realtime.webhooks.guard import LOOPBACK


@dataclass(frozen=True, slots=True)
class Keys:
    """The secrets of a development server."""

    jwt_secret: str
    anon_key: str
    api_key: str


def load_keys(data_dir: Path) -> Keys:
    """Return the keys of this data folder; the first time, make them, readable by the owner only.

    Raises:
        ConfigError: the folder cannot be used, or the file in it is damaged.
    """
    file = data_dir / "keys.json"
    try:
        if not file.exists():
            data_dir.mkdir(parents=True, exist_ok=True)
            _make_keys(file)
        return Keys(**json.loads(file.read_text()))
    except OSError as error:
        raise ConfigError(f"--data-dir: cannot use {data_dir}: {error.strerror or error}") from error
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{file} is damaged ({error}); remove it to get new keys") from error


def _make_keys(file: Path) -> None:
    """Write beside and rename, so that the file is whole or absent."""
    keys = {
        "jwt_secret": secrets.token_urlsafe(36),
        "anon_key": f"anon_{secrets.token_hex(20)}",
        "api_key": f"ik_{secrets.token_hex(20)}",
    }
    scratch = file.with_suffix(".tmp")
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        json.dump(keys, out)
    scratch.rename(file)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is to be done beside serving.

    Args:
        demo: load the demo; None for where it can harm nobody, which is dev's own database.
        traffic: change one of the demo's orders every second.
    """

    demo: bool | None = None
    traffic: bool = False


def dev(settings: Config, data_dir: Path, wishes: Wishes) -> None:
    """Run until Ctrl-C.

    Args:
        settings: what is configured; what is missing is made.
        data_dir: where the embedded database and the keys are kept.

    Raises:
        RealtimeError: something is in the way; the message says what.
    """
    keys = load_keys(data_dir)
    with ExitStack() as stack:
        _refuse_contradictions(settings, wishes)
        embedded: EmbeddedPostgres | None = None
        if settings.database_url is None:
            embedded = stack.enter_context(_same_port_as_last_time(data_dir))
        config = configuration.load(
            port=settings.port,
            host=settings.host,
            database_url=settings.database_url or (embedded and embedded.dsn),
            jwt_secret=settings.jwt_secret or keys.jwt_secret,
            anon_key=settings.anon_key or keys.anon_key,
            api_key=settings.api_key or keys.api_key,
            allow_anonymous=True,
            webhook_allow_networks=[*settings.webhook_allow_networks, *LOOPBACK],
        )
        own_secret = settings.jwt_secret is None
        with suppress(KeyboardInterrupt):
            _run(_everything(config, embedded, wishes, own_secret))


@contextmanager
def _same_port_as_last_time(data_dir: Path) -> Iterator[EmbeddedPostgres]:
    """Start dev's own database, at the address of the last run where that is free: an application may have noted it."""
    file = data_dir / "postgres.port"
    with EmbeddedPostgres(data_dir / "postgres", port=_free_port_in(file)) as embedded:
        file.write_text(f"{urlsplit(embedded.dsn).port}\n")
        yield embedded


def _free_port_in(file: Path) -> int | None:
    with suppress(OSError, ValueError, OverflowError):
        port = int(file.read_text())
        socket.create_server(("127.0.0.1", port)).close()
        return port
    return None


def _refuse_contradictions(settings: Config, wishes: Wishes) -> None:
    """Refuse before anything is started.

    Raises:
        ConfigError: two wishes cannot be had together.
    """
    own = settings.database_url is None
    if own and settings.listen_url is not None:
        raise ConfigError(
            "REALTIME_LISTEN_URL is set, but DATABASE_URL is not: both must lead to the same database. "
            "Unset it to get dev's own database, or set both"
        )
    if wishes.traffic and not _wants_demo(own, wishes):
        raise ConfigError(
            "--demo-traffic changes the demo's orders, and there is no demo: "
            + (
                "leave out --no-demo"
                if own
                else "add --demo to load it into the database of DATABASE_URL, or unset that"
            )
        )


def _wants_demo(own: bool, wishes: Wishes) -> bool:
    return own if wishes.demo is None else wishes.demo


def _run(main: object) -> None:
    import uvloop

    uvloop.run(main)  # type: ignore[arg-type]


async def _everything(config: Config, embedded: EmbeddedPostgres | None, wishes: Wishes, own_secret: bool) -> None:
    own, database = embedded is not None, Database(config.database())
    schema = await _migrate(database, config.migrate_lock_wait, own)
    in_the_way = await _load_demo(database, own, wishes) if _wants_demo(own, wishes) else None
    psql = str(embedded.psql) if embedded is not None and embedded.psql else "psql"
    scene = Scene(config, psql, own, own_secret, schema, in_the_way, wishes.traffic)
    busy = tasks.start(demo.traffic(database), "traffic of the demo") if wishes.traffic else None
    try:
        await serve(config, ready=lambda url: print_welcome(url, scene))
    finally:
        if busy is not None:
            busy.cancel()
            await asyncio.gather(busy, return_exceptions=True)


async def _migrate(database: Database, lock_wait: float, own: bool) -> list[str]:
    """Migrate, and return what was done.

    Raises:
        DatabaseError: it would take over another server's tables, which then stops delivering.
        MigrationError: it cannot be done.
    """
    if not own and await is_adoption(database):
        raise DatabaseError(
            "the database of DATABASE_URL has the tables of another realtime server, which stops delivering once they are "
            "adopted: look at `insforge-realtime migrate --dry-run`, and run `insforge-realtime migrate` first; or unset "
            "DATABASE_URL to get dev's own database"
        )
    return await migrate(database, lock_wait=lock_wait)


async def _load_demo(database: Database, own: bool, wishes: Wishes) -> list[str]:
    """Load the demo, and return what stands in its way, so that it was not loaded.

    Raises:
        DatabaseError: something does, and somebody has asked for the demo.
    """
    in_the_way = await demo.load_demo(database, unmarked=own)
    if in_the_way and (wishes.demo or wishes.traffic):
        raise DatabaseError(
            "the demo is not loaded, not even in part: the database already has, not made by the demo, "
            f"{', '.join(in_the_way)}"
        )
    return in_the_way
