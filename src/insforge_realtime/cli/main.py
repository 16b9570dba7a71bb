"""The command `insforge-realtime`. Here: dev, serve, migrate, token, check; client.py and webhooks.py have the others.

What lives here: arguments, exit statuses, what is printed. Each command's work is elsewhere, and imported when it is called:
an installation of the client alone has none of the server's libraries.
Exit statuses: 0 done, 1 it did not work (the message says why), 2 a setting or an argument is wrong.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from insforge_realtime._version import __version__
from insforge_realtime.cli import client as cli_client
from insforge_realtime.cli import options, terminal
from insforge_realtime.cli import webhooks as cli_webhooks
from insforge_realtime.cli.options import DatabaseUrl, Host, Port
from insforge_realtime.errors import ConfigError, RealtimeError

app = typer.Typer(
    help="A change in PostgreSQL becomes a message on every screen that may see it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(cli_webhooks.app, name="webhooks")
_err = Console(stderr=True, highlight=False, soft_wrap=True)


@app.command()
def dev(
    port: Port = None,
    host: Host = None,
    data_dir: Annotated[Path, typer.Option(help="Where the database and the keys are kept between runs.")] = Path(
        ".realtime"
    ),
    demo: Annotated[
        bool | None,
        typer.Option(
            "--demo/--no-demo",
            help="Load the demo: tables, policies, rows. [dim](default: into dev's own database only)[/]",
            show_default=False,
        ),
    ] = None,
    demo_traffic: Annotated[bool, typer.Option("--demo-traffic", help="Change an order every second.")] = False,
) -> None:
    """Start everything for development: a database, the schema, a demo, the server.

    Uses DATABASE_URL where it is set, in the environment or in .env, else a PostgreSQL of its own. Another database than
    its own gets the schema `realtime`, and nothing else.
    """
    from insforge_realtime.cli.dev import Wishes
    from insforge_realtime.cli.dev import dev as run

    with options.serving(port=port, host=host) as settings:
        run(settings, data_dir, Wishes(demo, demo_traffic))


@app.command()
def serve(
    port: Port = None,
    host: Host = None,
    ssl_certfile: Annotated[
        Path | None, typer.Option(help="Speak https and wss, with this certificate. [dim](REALTIME_SSL_CERTFILE)[/]")
    ] = None,
    ssl_keyfile: Annotated[
        Path | None, typer.Option(help="The certificate's key. [dim](REALTIME_SSL_KEYFILE)[/]")
    ] = None,
) -> None:
    """Serve clients. Needs DATABASE_URL, migrated, and a way to verify tokens."""
    with options.serving(port=port, host=host, ssl_certfile=ssl_certfile, ssl_keyfile=ssl_keyfile) as loaded:
        settings = loaded.ready_to_serve()

        import uvloop

        from insforge_realtime.cli.serve import serve as run

        uvloop.run(run(settings))


@app.command()
def migrate(
    database: DatabaseUrl = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and do nothing.")] = False,
    lock_wait: Annotated[
        float | None,
        typer.Option(
            help="How long to wait for transactions that are in the way. [dim](REALTIME_MIGRATE_LOCK_WAIT, default 60)[/]",
            metavar="SECONDS",
        ),
    ] = None,
) -> None:
    """Bring the database to the current schema. Safe to repeat, and to run from several places at once.

    What it waits for goes to standard error.
    """
    from insforge_realtime.pg import migrate as migration
    from insforge_realtime.pg.database import Database

    settings = options.settings(database_url=database, migrate_lock_wait=lock_wait)
    which, seconds = Database(settings.database()), settings.migrate_lock_wait
    lines = asyncio.run(
        migration.plan(which) if dry_run else migration.migrate(which, lock_wait=seconds, tell=_say_that_it_waits)
    )
    terminal.say("would:" if dry_run else "done:")
    for line in lines:
        terminal.say(f"  {terminal.harmless(line)}")


def _say_that_it_waits(line: str) -> None:
    typer.echo(line, err=True)


@app.command()
def token(
    sub: Annotated[str | None, typer.Option(help="The user's id, the claim `sub`.")] = None,
    role: Annotated[str, typer.Option(help="anon, authenticated or project_admin.")] = "authenticated",
    ttl: Annotated[float, typer.Option(help="How long it is valid, in seconds.", min=0)] = 3600,
    email: Annotated[str | None, typer.Option(help="The claim `email`.")] = None,
) -> None:
    """Mint a token with REALTIME_JWT_SECRET, and print it."""
    from insforge_realtime.auth import mint
    from insforge_realtime.model import Role

    settings = options.settings()
    if settings.jwt_secret is None:
        raise ConfigError("missing: REALTIME_JWT_SECRET (the secret to sign with)")
    if role not in list(Role):
        raise ConfigError(f"--role: must be one of {', '.join(Role)}")
    terminal.say(
        mint(
            settings.jwt_secret.get_secret_value(),
            subject=sub,
            role=role,
            ttl=ttl,
            audience=settings.jwt_audience,
            issuer=settings.jwt_issuer,
            claims={"email": email} if email else None,
        )
    )


@app.command()
def check(database: DatabaseUrl = None) -> None:
    """Look for what is wrong or should be known, and print what to do about it. Exit status 1 when something is broken."""
    from insforge_realtime.cli.serve import refusals
    from insforge_realtime.pg.check import examine
    from insforge_realtime.pg.check.finding import Finding

    settings = options.configured(database_url=database)
    findings = [Finding("broken", f"{error}: `serve` refuses to start") for error in refusals(settings)]
    findings += asyncio.run(examine(settings))
    out = Console(highlight=False, soft_wrap=True)
    colours = {"ok": "green", "warning": "yellow", "broken": "red"}
    for finding in findings:
        out.print(f"[{colours[finding.verdict]}]{finding.verdict:<7}[/]", end=" ")
        out.print(terminal.harmless(finding.what), markup=False)
        if finding.advice:
            out.print(f"        → {terminal.harmless(finding.advice)}", markup=False)
    if any(finding.verdict == "broken" for finding in findings):
        raise typer.Exit(1)


app.command()(cli_client.tail)
app.command()(cli_client.publish)


def _version(asked: bool) -> None:
    if asked:
        terminal.say(f"insforge-realtime {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None: ...


def main() -> None:
    """Run the command; errors that we raise on purpose become one line on standard error."""
    terminal.prepare()
    try:
        app()
    except ConfigError as error:
        _fail(error, 2)
    except RealtimeError as error:
        _fail(error, 1)
    except ModuleNotFoundError as error:
        _fail(RealtimeError(_remedy(error)), 1)
    except KeyboardInterrupt:
        sys.exit(130)


def _remedy(missing: ModuleNotFoundError) -> str:
    """Return what to install: the half of the package that is missing."""
    library = (missing.name or str(missing)).partition(".")[0]
    extra = "client" if library in ("aiohttp", "engineio", "socketio") else "server"
    return f"this command needs {library}: pip install 'insforge-realtime[{extra}]'"


def _fail(error: RealtimeError, status: int) -> None:
    _err.print("[bold red]error:[/]", end=" ")
    _err.print(terminal.harmless_lines(str(error)), markup=False)
    sys.exit(status)
