"""Every option, default and limit of the system. Nothing else in the package reads the environment.

    types.py      what a value may be, and the one line that names a wrong one
    groups.py     the settings, in groups: name, type, default, bounds, description
    settings.py   `Config`, which is all of them
    sources.py    where values come from, and which empty ones count
    load.py       one `Config` from the environment, `.env` and the command line; or one line about what is wrong

Each field of `Config` is one environment variable (or a line of `.env`): `REALTIME_` and the field's name in capitals,
except `DATABASE_URL`. Its description is the documentation: docs/configuration.md is checked against it. A part of the
server that needs one group of settings takes that group, which every `Config` is.
"""

from __future__ import annotations

from insforge_realtime.config.groups import (
    AuthSettings,
    ConnectionSettings,
    DatabaseSettings,
    HttpSettings,
    ListenSettings,
    LogSettings,
    MessageSettings,
    TlsSettings,
    WebhookSettings,
)
from insforge_realtime.config.load import load, variable
from insforge_realtime.config.settings import GROUPS, Config
from insforge_realtime.config.sources import EMPTY_IS_NONE, EMPTY_IS_WRONG
from insforge_realtime.config.types import SHORTEST_JWT_SECRET, signing_keys

__all__ = [
    "EMPTY_IS_NONE",
    "EMPTY_IS_WRONG",
    "GROUPS",
    "SHORTEST_JWT_SECRET",
    "AuthSettings",
    "Config",
    "ConnectionSettings",
    "DatabaseSettings",
    "HttpSettings",
    "ListenSettings",
    "LogSettings",
    "MessageSettings",
    "TlsSettings",
    "WebhookSettings",
    "load",
    "signing_keys",
    "variable",
]
