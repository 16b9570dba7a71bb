"""`insforge-realtime webhooks`: inspect the queue of webhooks, resend, cancel.

What lives here: arguments and what is printed; the statements are pg/deliveries.py's. Passwords in URLs are not printed.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import TYPE_CHECKING, Annotated, Any

import typer

from insforge_realtime.cli.options import DatabaseUrl, settings
from insforge_realtime.cli.terminal import ascii_json, harmless, say
from insforge_realtime.clock import iso
from insforge_realtime.dsn import without_login
from insforge_realtime.errors import ConfigError

if TYPE_CHECKING:
    from insforge_realtime.pg.database import Database

STATES = ("pending", "delivered", "failed", "cancelled")
SHOWN_ERROR = 60

app = typer.Typer(help="List webhooks, sent and waiting; retry or cancel them.", no_args_is_help=True)

Message = Annotated[str | None, typer.Option(help="Of the message with this id.", metavar="ID")]
Url = Annotated[str | None, typer.Option("--url", help="To URLs that contain this text.", metavar="TEXT")]
State = Annotated[str | None, typer.Option(help=f"In this state: {', '.join(STATES)}.")]
Every = Annotated[bool, typer.Option("--all", help="All of them, if no other filter is given.")]


@app.command("list")
def show(
    message: Message = None,
    url: Url = None,
    state: State = None,
    limit: Annotated[int, typer.Option(help="At most this many.", min=1)] = 50,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object per line, with the answer and every attempt.")
    ] = False,
    database: DatabaseUrl = None,
) -> None:
    """List deliveries, the newest first."""
    from insforge_realtime.pg.deliveries import list_deliveries

    which = _selection(message, url, state)
    rows = asyncio.run(list_deliveries(_database(database), which, limit))
    if as_json:
        for row in rows:
            say(ascii_json(_as_json(row)))
    elif rows:
        for line in _as_table(rows):
            say(line)
    else:
        typer.echo("no such deliveries", err=True)


@app.command()
def retry(
    message: Message = None,
    url: Url = None,
    state: State = None,
    every: Every = False,
    database: DatabaseUrl = None,
) -> None:
    """Start over with deliveries that failed or were cancelled, and send waiting ones at once."""
    from insforge_realtime.pg.deliveries import retry_deliveries

    if state == "delivered":
        raise ConfigError("--state: what was delivered is not sent again")
    which = _selection(message, url, state, every=every)
    number = asyncio.run(retry_deliveries(_database(database), which))
    say(f"{number} to be sent again; servers notice within a few seconds")


@app.command()
def cancel(
    message: Message = None,
    url: Url = None,
    every: Every = False,
    database: DatabaseUrl = None,
) -> None:
    """Cancel pending deliveries. An attempt in flight is not interrupted."""
    from insforge_realtime.pg.deliveries import cancel_deliveries

    which = _selection(message, url, None, every=every)
    number = asyncio.run(cancel_deliveries(_database(database), which))
    say(f"{number} cancelled")


def _database(url: str | None) -> Database:
    from insforge_realtime.pg.database import Database

    return Database(settings(database_url=url).database())


def _selection(message: str | None, url: str | None, state: str | None, *, every: bool = True) -> Any:
    """Return the filters, once they are known to make sense.

    Raises:
        ConfigError: names the option.
    """
    from insforge_realtime.pg.deliveries import Selection

    if message is not None:
        try:
            message = str(uuid.UUID(message))
        except ValueError:
            raise ConfigError("--message: must be a message's id, a UUID") from None
    if state is not None and state not in STATES:
        raise ConfigError(f"--state: must be one of {', '.join(STATES)}")
    if not every and message is None and url is None and state is None:
        raise ConfigError("specify which: --message, --url or --state; or --all")
    return Selection(message, url, state)


def _as_json(row: dict[str, Any]) -> str:
    row = {**row, "url": without_login(row["url"]), "history": json.loads(row["history"])}
    return json.dumps(row, ensure_ascii=False, default=iso)


def _as_table(rows: list[dict[str, Any]]) -> list[str]:
    """Return lines with aligned columns, never cut: they are there to be copied."""
    lines: list[tuple[str, ...]] = [("CREATED", "STATE", "ATTEMPTS", "STATUS", "MESSAGE", "URL", "ERROR")]
    for row in rows:
        error = (row["last_error"] or "")[:SHOWN_ERROR]
        status = row["last_status_code"] or ""
        cells = (row["state"], row["attempts"], status, row["message"], without_login(row["url"]), error)
        lines.append((iso(row["created_at"]), *(harmless(str(cell)) for cell in cells)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
