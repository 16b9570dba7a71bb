"""What `insforge-realtime dev` prints once it serves: where, with which database, and what to paste in order to try it.

What lives here: words. Whatever is printed as a command works as it stands, in the folder that `dev` was started in. All of
it is printed plainly, without wrapping: it is there to be copied. The password of somebody's database is not printed.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from insforge_realtime.auth import mint
from insforge_realtime.config import Config
from insforge_realtime.dsn import discreet
from insforge_realtime.pg import demo
from insforge_realtime.pg.migrate import FUNCTIONS

TOKEN_SECONDS = 30 * 24 * 3600.0
PROGRAM = "insforge-realtime"


@dataclass(frozen=True, slots=True)
class Scene:
    """What there is to be told.

    Args:
        config: of the server.
        psql: the program.
        own: whether the database is dev's own.
        own_secret: whether the secret of the tokens is.
        schema: what the migration did.
        in_the_way: what kept the demo from being loaded, which it was if that is empty; None where it was not to be.
        traffic: whether an order changes every second.
    """

    config: Config
    psql: str
    own: bool
    own_secret: bool
    schema: list[str]
    in_the_way: list[str] | None
    traffic: bool

    @property
    def has_demo(self) -> bool:
        return self.in_the_way == []

    @property
    def database(self) -> str:
        """The URL to give to psql. Only dev's own password is in it."""
        assert self.config.database_url is not None
        return self.config.database_url if self.own else discreet(self.config.database_url)


def print_welcome(url: str, scene: Scene) -> None:
    """Print what one needs to try it."""
    out = Console(highlight=False, soft_wrap=True)
    out.print(f"\n[bold green]InsForge Realtime[/] is at [bold]{url}[/]\n")
    for name, value in (*_about_the_database(scene), *_keys(scene), ("psql", _psql(scene))):
        out.print(f"[bold]{name:<14}[/]", end=" ")
        out.print(value, markup=False)
    _print_demo(out, url, scene) if scene.has_demo else _print_next_step(out, url, scene)
    out.print("\n[dim]Ctrl-C stops the server and its database; the data stays.[/]")


def program() -> str:
    """Return how this command is called in this folder."""
    beside = Path(sys.executable).with_name(PROGRAM)
    found = shutil.which(PROGRAM)
    if found is not None and beside.exists() and os.path.samefile(found, beside):
        return PROGRAM
    if not beside.exists():
        return f"{shlex.quote(sys.executable)} -m insforge_realtime"
    here = Path.cwd()
    return shlex.quote(str(beside.relative_to(here) if beside.is_relative_to(here) else beside))


# ---- the table ---------------------------------------------------------------------------------------------


def _about_the_database(scene: Scene) -> list[tuple[str, str]]:
    assert scene.config.database_url is not None
    whose = "dev's own" if scene.own else "from DATABASE_URL, in the environment or in .env"
    return [
        ("Database", f"{discreet(scene.config.database_url)} ({whose})"),
        ("Schema", _schema(scene.schema)),
        ("Demo", _demo(scene)),
    ]


def _schema(done: list[str]) -> str:
    """Tell how much was done to it, and by name what belongs to the whole cluster, or lies outside the schema realtime."""
    changes = [line for line in done if line != FUNCTIONS.what]
    if not changes:
        return "was up to date"
    made = [
        line.removeprefix("create ") for line in changes if line.startswith(("create the role", "create the schema"))
    ]
    return f"{len(changes)} changes" + (f", among them {', '.join(made)}" if made else "")


def _demo(scene: Scene) -> str:
    if scene.in_the_way is None:
        return "not loaded" + ("" if scene.own else ": this is not dev's own database (--demo loads it anyway)")
    if scene.in_the_way:
        return f"not loaded: these exist, and are not the demo's: {', '.join(scene.in_the_way)}"
    return "loaded: the tables orders, chat_members and admins, with the users Alice and Bob"


def _keys(scene: Scene) -> list[tuple[str, str]]:
    config = scene.config
    assert config.anon_key is not None
    assert config.api_key is not None
    assert config.jwt_secret is not None
    keys = [("Anonymous key", config.anon_key.get_secret_value()), ("API key", config.api_key.get_secret_value())]
    if scene.own_secret:
        keys.append(("JWT secret", config.jwt_secret.get_secret_value()))
    if scene.has_demo:
        keys += [("Alice's token", _token(config, demo.ALICE)), ("Bob's token", _token(config, demo.BOB))]
    return keys


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


def _psql(scene: Scene) -> str:
    return f'{scene.psql} "{scene.database}"'


# ---- what to try -------------------------------------------------------------------------------------------


def _print_demo(out: Console, url: str, scene: Scene) -> None:
    alice = _token(scene.config, demo.ALICE)
    out.print("\n[bold]Try it:[/] npm install @insforge/sdk, save this as try.mjs, run: node try.mjs\n")
    out.print(_EXAMPLE.format(url=url, token=alice, order=demo.ALICES_ORDER), markup=False)
    out.print("Or, without Node:\n")
    out.print(f"REALTIME_TOKEN={alice} {program()} tail --url {url} order:{demo.ALICES_ORDER}\n", markup=False)
    if scene.traffic:
        out.print("An order changes every second.")
    else:
        out.print("Then change the order, and watch it arrive:\n")
        out.print(f'{_psql(scene)} -c "{demo.CHANGE}"', markup=False)


def _print_next_step(out: Console, url: str, scene: Scene) -> None:
    out.print("\n[bold]Next:[/] define what there is to hear, and who may hear it (docs/database.md), for example\n")
    out.print(f'{_psql(scene)} -c "{_CHANNEL}" -c "{_POLICY}"', markup=False)
    out.print("\nthen follow it, and publish from another terminal:\n")
    out.print(f"{program()} tail --url {url} lobby", markup=False)
    out.print(f'{_psql(scene)} -c "{_PUBLISH}"', markup=False)
    if scene.own_secret:
        assert scene.config.jwt_secret is not None
        secret = scene.config.jwt_secret.get_secret_value()
        out.print("\nA token for one of your users:\n")
        out.print(f"REALTIME_JWT_SECRET={secret} {program()} token --sub {demo.ALICE}", markup=False)


_CHANNEL = "INSERT INTO realtime.channels (pattern) VALUES ('lobby')"
_POLICY = "CREATE POLICY lobby ON realtime.channels FOR SELECT TO anon, authenticated USING (pattern = 'lobby')"
_PUBLISH = "SELECT realtime.publish('lobby', 'hello', jsonb_build_object('to', 'all'))"
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
