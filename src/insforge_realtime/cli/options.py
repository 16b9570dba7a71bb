"""What several commands share: their options, and the settings that follow from these.

The server's libraries are imported within the functions: an installation of the client has none of them, and has this file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from insforge_realtime.config import Config

Port = Annotated[int | None, typer.Option(help="The port to listen on. [dim](REALTIME_PORT, default 7130)[/]")]
Host = Annotated[str | None, typer.Option(help="The address to listen on. [dim](REALTIME_HOST, default 127.0.0.1)[/]")]
DatabaseUrl = Annotated[
    str | None, typer.Option(help="The database. [dim](DATABASE_URL)[/]", metavar="URL", show_default=False)
]


def configured(**options: object) -> Config:
    """Return the settings, with logging set up by them.

    Args:
        options: of the command line, by the names of fields; None where one was not given.

    Raises:
        ConfigError: a value is wrong.
    """
    from insforge_realtime import config, logs

    loaded = config.load(**options)
    logs.configure(loaded)
    return loaded


def settings(**options: object) -> Config:
    """Return the same, once the log has a warning of each variable that looks like a setting and is not."""
    from insforge_realtime import typos

    loaded = configured(**options)
    typos.warn()
    return loaded


@contextlib.contextmanager
def serving(**options: object) -> Iterator[Config]:
    """Yield the same for the length of a server's life, whose log is written by a thread."""
    from insforge_realtime import config, logs, typos

    loaded = config.load(**options)
    with logs.of_a_server(loaded):
        typos.warn()
        yield loaded
