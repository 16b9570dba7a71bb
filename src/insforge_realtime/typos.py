"""Variables that look like our settings but are not: a typo in one is a setting that silently does not apply.

What lives here: finding them, in the environment and in `.env`, and the nearest real name. Only names that begin with
`REALTIME_` count: other applications share both places.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from difflib import get_close_matches

import structlog
from pydantic_settings import DotEnvSettingsSource

from insforge_realtime.config import Config, variable

PREFIX = "REALTIME_"
OF_CLIENTS = ("REALTIME_URL", "REALTIME_TOKEN")
"""Variables that `tail` and `publish` read, but no server does."""

log = structlog.get_logger("insforge_realtime")


@dataclass(frozen=True, slots=True)
class Unknown:
    """A variable that nobody reads.

    Args:
        name: the variable.
        nearest: the setting that may be meant, if any is near.
    """

    name: str
    nearest: str | None


def unknown_variables() -> list[Unknown]:
    """Return the unknown variables that are set, sorted by name."""
    # A name is a field's whatever its case, as in pydantic-settings.
    given = {name.upper() for name in (*os.environ, *DotEnvSettingsSource(Config).env_vars)}
    known = {*map(variable, Config.model_fields), *OF_CLIENTS}
    by_stem = {name.removeprefix(PREFIX): name for name in known}
    strangers = sorted(name for name in given - known if name.startswith(PREFIX))
    return [Unknown(name, _nearest(name.removeprefix(PREFIX), by_stem)) for name in strangers]


def warn() -> None:
    """Log each of them in a line."""
    for unknown in unknown_variables():
        log.warning("there is no such setting", variable=unknown.name, nearest=unknown.nearest)


def _nearest(stem: str, known: dict[str, str]) -> str | None:
    found = get_close_matches(stem, known, 1)
    return known[found[0]] if found else None
