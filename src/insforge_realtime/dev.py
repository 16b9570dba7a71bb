"""`insforge-realtime dev`: a database, the schema, a demo and the server, in one process, with one Ctrl-C.

What lives here: the order of things and what is printed. The keys are made once and kept in the data folder, so that
the tokens printed yesterday still work today.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from insforge_realtime import config as configuration
from insforge_realtime import tasks
from insforge_realtime.auth import mint
from insforge_realtime.config import Config
from insforge_realtime.errors import ConfigError
from insforge_realtime.pg import demo
from insforge_realtime.pg.embedded import EmbeddedPostgres
from insforge_realtime.pg.migrate import migrate
from insforge_realtime.server import serve
from insforge_realtime.webhooks.guard import LOOPBACK

TOKEN_SECONDS = 30 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Keys:
    """The secrets of a development server."""

    jwt_secret: str
    anon_key: str
    api_key: str


def load_keys(data_dir: Path) -> Keys:
    """The keys of this data folder; made, and kept readable for the owner only, the first time.

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
    """Made beside and renamed, so that the file is whole or absent."""
    keys = {
        "jwt_secret": secrets.token_urlsafe(36),
        "anon_key": f"anon_{secrets.token_hex(20)}",
        "api_key": f"ik_{secrets.token_hex(20)}",
    }
    scratch = file.with_suffix(".tmp")
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        json.dump(keys, out)
    scratch.rename(file)


def dev(data_dir: Path, *, port: int | None, host: str | None, traffic: bool) -> None:
    """Run until Ctrl-C.

    Args:
        data_dir: where the embedded database and the keys are kept.
        port, host: where to listen; None for the configured ones.
        traffic: change an order every second.

    Raises:
        RealtimeError: something is in the way; the message says what.
    """
    keys = load_keys(data_dir)
    with ExitStack() as stack:
        settings = configuration.load(port=port, host=host)
        embedded: EmbeddedPostgres | None = None
        if settings.database_url is None:
            embedded = stack.enter_context(EmbeddedPostgres(data_dir / "postgres"))
        config = configuration.load(
            port=port,
            host=host,
            database_url=settings.database_url or (embedded and embedded.dsn),
            jwt_secret=settings.jwt_secret or keys.jwt_secret,
            anon_key=settings.anon_key or keys.anon_key,
            api_key=settings.api_key or keys.api_key,
            allow_anonymous=True,
            webhook_allow_networks=[*settings.webhook_allow_networks, *LOOPBACK],
        )
        with suppress(KeyboardInterrupt):
            _run(_everything(config, embedded, traffic))


def _run(main: object) -> None:
    import uvloop

    uvloop.run(main)  # type: ignore[arg-type]


async def _everything(config: Config, embedded: EmbeddedPostgres | None, traffic: bool) -> None:
    assert config.database_url is not None
    await migrate(config.database_url, lock_wait=config.migrate_lock_wait)
    await demo.load_demo(config.database_url)
    busy = tasks.start(demo.traffic(config.database_url), "traffic of the demo") if traffic else None
    try:
        await serve(config, ready=lambda url: _print_welcome(url, config, embedded, traffic))
    finally:
        if busy is not None:
            busy.cancel()
            await asyncio.gather(busy, return_exceptions=True)


def _token(config: Config, subject: str) -> str:
    assert config.jwt_secret is not None
    return mint(
        config.jwt_secret.get_secret_value(),
        subject=subject,
        role="authenticated",
        ttl=TOKEN_SECONDS,
        audience=config.jwt_audience,
        issuer=config.jwt_issuer,
    )


def _print_welcome(url: str, config: Config, embedded: EmbeddedPostgres | None, traffic: bool) -> None:
    """What one needs to try it. Printed plainly, without wrapping: it is there to be copied."""
    assert config.anon_key is not None
    assert config.api_key is not None
    psql = str(embedded.psql) if embedded is not None and embedded.psql else "psql"
    out = Console(highlight=False, soft_wrap=True)
    alice = _token(config, demo.ALICE)
    out.print(f"\n[bold green]InsForge Realtime[/] is at [bold]{url}[/]\n")
    for name, value in (
        ("Anonymous key", config.anon_key.get_secret_value()),
        ("API key", config.api_key.get_secret_value()),
        ("Alice's token", alice),
        ("Bob's token", _token(config, demo.BOB)),
        ("psql", f'{psql} "{config.database_url}"'),
    ):
        out.print(f"[bold]{name:<14}[/]", end=" ")
        out.print(value, markup=False)
    out.print("\n[bold]Try it:[/] npm install @insforge/sdk, save this as try.mjs, run: node try.mjs\n")
    out.print(_EXAMPLE.format(url=url, token=alice, order=demo.ALICES_ORDER), markup=False)
    if traffic:
        out.print("An order changes every second.")
    else:
        out.print("Then change the order, and watch it arrive:\n")
        out.print(f'{psql} "{config.database_url}" -c "{demo.CHANGE}"', markup=False)
    out.print("\n[dim]Ctrl-C stops the server and its database; the data stays.[/]")


_EXAMPLE = """\
import {{ createClient }} from '@insforge/sdk'

const insforge = createClient({{
  baseUrl: '{url}',
  accessToken: '{token}'
}})
insforge.realtime.on('error', (error) => console.error(error.code, error.message))
insforge.realtime.on('UPDATE_order', (order) => console.log(order.status, order.meta))

await insforge.realtime.connect()
console.log(await insforge.realtime.subscribe('order:{order}'))
"""
