"""What libpq knows: the parameters of a connection, what each may be, and where it looks for what it is not given.

What lives here: the vocabulary, checked against what is given; the variables (`PGHOST` …) and the service file. What does
not: URLs (dsn.py). No error or note quotes a value.
"""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path

from insforge_realtime.errors import ConfigError

SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
TARGETS = ("any", "read-write", "read-only", "primary", "standby", "prefer-standby")
TLS_VERSIONS = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
CHOICES: dict[str, tuple[str, ...]] = {
    "sslmode": (*SSL_MODES, "no-verify"),
    "target_session_attrs": TARGETS,
    "sslnegotiation": ("postgres", "direct"),
    "ssl_min_protocol_version": TLS_VERSIONS,
    "ssl_max_protocol_version": TLS_VERSIONS,
    "load_balance_hosts": ("disable", "random"),
    "channel_binding": ("disable", "prefer", "require"),
    "gssencmode": ("disable", "prefer"),
    "gsslib": ("gssapi", "sspi"),
    "sslsni": ("1",),
    "sslcertmode": ("allow",),
}
KEEPALIVES = ("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout")
NUMBERS = ("connect_timeout", *KEEPALIVES)
FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl", "passfile")
DRIVERS = (
    *("sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl", "sslnegotiation"),
    *("ssl_min_protocol_version", "ssl_max_protocol_version", "krbsrvname", "gsslib"),
)
"""What goes to the driver as it is, beside sslmode."""
OURS = ("host", "port", "dbname", "user", "password", "service", "options", "application_name", "search_path")
SILENT = ("fallback_application_name", "uselibpqcompat", "sslcompression")
"""What is so anyway: there is a name, sslmode means what it means to libpq, TLS is not compressed."""
KNOWN = frozenset((*CHOICES, *NUMBERS, *FILES, *DRIVERS, *OURS, *SILENT, "client_encoding"))
SYNONYMS = {"database": "dbname"}
REFUSED = {
    "require_auth": "cannot be enforced; leave it out, and verify the server by sslmode=verify-full",
    "requirepeer": "cannot be enforced; leave it out",
    "replication": "makes a connection that does not take SQL; leave it out",
    "hostaddr": "cannot be told from the host; write one of them, as the host",
}
FOREIGN = ("ApplicationName", "connectTimeout", "tcpKeepAlive", "max_protocol_version", "min_protocol_version")
"""Of the many that others know, those that look like typos of ours and are not."""
VARIABLES = {
    "host": "PGHOST",
    "port": "PGPORT",
    "service": "PGSERVICE",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
}
"""Where to look for what is not in the URL. The driver itself knows PGUSER, PGPASSWORD, PGDATABASE, PGPASSFILE and more."""


def found(given: Mapping[str, str], name: str) -> str | None:
    """Return a parameter, from its variable where it is not given."""
    return given.get(name) or os.environ.get(VARIABLES[name]) or None


def service(given: Mapping[str, str]) -> dict[str, str]:
    """Return what the service file has, where a service is named.

    Raises:
        ConfigError: the file cannot be read, or the service is not in it.
    """
    name = found(given, "service")
    if name is None:
        return {}
    files = [Path(os.environ.get("PGSERVICEFILE") or home() / ".pg_service.conf")]
    if folder := os.environ.get("PGSYSCONFDIR"):
        files.append(Path(folder) / "pg_service.conf")
    for file in files:
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, OSError, UnicodeError):
            raise ConfigError("service: the service file cannot be read") from None
        if parser.has_section(name):
            return {SYNONYMS.get(key, key): value for key, value in parser.items(name) if value}
    raise ConfigError("service: not found in the service file (PGSERVICEFILE, or ~/.pg_service.conf)")


def home() -> Path:
    """Return the user's home, or the root for a user without one."""
    try:
        return Path.home()
    except RuntimeError:
        return Path("/")


def strangers(given: Mapping[str, str]) -> Iterator[str]:
    """Yield a note for each parameter that is not ours.

    Raises:
        ConfigError: it looks like a typo of one that is, or promises security that would be missing.
    """
    for name in given.keys() - KNOWN:
        if name in REFUSED:
            raise ConfigError(f"the parameter {name} {REFUSED[name]}")
        similar = [] if name in FOREIGN else get_close_matches(name.lower(), KNOWN, 1, 0.8)
        if similar:
            raise ConfigError(f"there is no parameter {name}; did you mean {similar[0]}?")
        if name.lower().startswith(("ssl", "tls")) and (name, given[name]) != ("sslaccept", "accept_invalid_certs"):
            raise ConfigError(f"the parameter {name} cannot be honoured; leave it out, and use sslmode instead")
        yield f"the parameter {name} means nothing to this server"
    if given.get("client_encoding", "utf8").lower() not in ("utf8", "utf-8", "unicode", "auto"):
        yield "the parameter client_encoding is ignored: this server speaks UTF-8"


def check_values(given: Mapping[str, str]) -> None:
    """Refuse what a parameter, given or from its variable, cannot be.

    Raises:
        ConfigError: names the parameter.
    """
    for name, choices in CHOICES.items():
        value = found(given, name) if name in VARIABLES else given.get(name)
        if value is not None and value not in choices:
            raise ConfigError(f"{name} must be one of {', '.join(choices)}")
    for name in NUMBERS:
        value = found(given, name) if name in VARIABLES else given.get(name)
        if value is not None and not re.fullmatch(r"-?[0-9]{1,9}", value):
            raise ConfigError(f"{name} must be a whole number")
    for name in FILES:
        if name in given and (name, given[name]) != ("sslrootcert", "system") and not os.access(given[name], os.R_OK):
            raise ConfigError(f"{name} names a file that is missing, or cannot be read")
