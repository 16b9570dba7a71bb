"""`insforge-realtime webhooks`: look at the queue of webhooks, send again, or send no more.

What lives here: arguments and what is printed; the statements are pg/deliveries.py's. Passwords in URLs are not printed.
"""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from insforge_realtime.cli.terminal import ascii_json, harmless, say
from insforge_realtime.errors import ConfigError

STATES = ("pending", "delivered", "failed", "cancelled")
SHOWN_ERROR = 60

app = typer.Typer(help="List webhooks, sent and waiting; retry or cancel them.", no_args_is_help=True)

Database = Annotated[
    str | None, typer.Option(help="The database. [dim](DATABASE_URL)[/]", metavar="URL", show_default=False)
]
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
    database: Database = None,
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
    database: Database = None,
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
    database: Database = None,
) -> None:
    """Cancel pending deliveries. An attempt in flight is not interrupted."""
    from insforge_realtime.pg.deliveries import cancel_deliveries

    which = _selection(message, url, None, every=every)
    number = asyncio.run(cancel_deliveries(_database(database), which))
    say(f"{number} cancelled")


def _database(url: str | None) -> str:
    from insforge_realtime import config, logs, typos

    settings = config.load(database_url=url)
    logs.configure(settings)
    typos.warn()
    return settings.database()


def _selection(message: str | None, url: str | None, state: str | None, *, every: bool = True) -> Any:
    """The filters, once they are known to make sense.

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


def _discreet(url: str) -> str:
    """A URL without its user and password."""
    return re.sub(r"//[^/?#]*@", "//…@", url)


def _as_json(row: dict[str, Any]) -> str:
    row = {**row, "url": _discreet(row["url"]), "history": json.loads(row["history"])}
    return json.dumps(row, ensure_ascii=False, default=_iso)


def _iso(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _as_table(rows: list[dict[str, Any]]) -> list[str]:
    """Lines with the columns one below the other, never cut: they are there to be copied."""
    lines: list[tuple[str, ...]] = [("CREATED", "STATE", "ATTEMPTS", "STATUS", "MESSAGE", "URL", "ERROR")]
    for row in rows:
        error = (row["last_error"] or "")[:SHOWN_ERROR]
        status = row["last_status_code"] or ""
        cells = (row["state"], row["attempts"], status, row["message"], _discreet(row["url"]), error)
        lines.append((_iso(row["created_at"]), *(harmless(str(cell)) for cell in cells)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
