"""Every option, default and limit of the system. Nothing else in the package reads the environment.

Each field of `Config` is one environment variable (or a line of `.env`): `REALTIME_` and the field's name in capitals,
except `DATABASE_URL`. Its description is the documentation: `docs/configuration.md` is checked against it.
For limits, 0 means none. A variable that is empty or blank is not set, but for those in `EMPTY_IS_WRONG` and
`EMPTY_IS_NONE`.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from difflib import get_close_matches
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, BeforeValidator, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from insforge_realtime import dsn
from insforge_realtime.errors import ConfigError


def _postgres_url(value: object) -> object:
    if isinstance(value, str):
        try:
            dsn.parse(value)
        except ConfigError as error:
            raise ValueError(str(error)) from None
    return value


def _http_url(value: object) -> object:
    if isinstance(value, str) and not value.lower().startswith(("http://", "https://")):
        raise ValueError("must be a URL that starts with https:// or http://")
    return value


def _not_blank(value: object) -> object:
    if isinstance(value, str) and not value.strip():
        raise ValueError("is set but empty; leave it out or give it a value")
    return value


def _comma_separated(value: object) -> object:
    return [item.strip() for item in value.split(",") if item.strip()] if isinstance(value, str) else value


def _path(value: object) -> object:
    path = value.rstrip("/") if isinstance(value, str) else value
    if isinstance(path, str) and not re.fullmatch(r"(/[\w.~-]+)*", path, re.ASCII):
        raise ValueError("must be a path like /realtime")
    return path


def _networks(value: object) -> object:
    try:
        return [ip_network(item) if isinstance(item, str) else item for item in _items(value)]
    except ValueError:
        raise ValueError("must be networks such as 10.0.0.0/8 or fd00::/8, comma-separated") from None


def _items(value: object) -> list[object]:
    found = _comma_separated(value)
    return found if isinstance(found, list) else [found]


def _jwt_secret(value: object) -> object:
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if isinstance(text, str) and len(text.encode(errors="surrogatepass")) < SHORTEST_JWT_SECRET:
        raise ValueError(
            f"is shorter than {SHORTEST_JWT_SECRET} bytes, so anybody who sees a token can guess it; make one with "
            "`openssl rand -base64 48`, and use it in whatever signs the tokens, too"
        )
    return value


def _signing_secrets(value: object) -> object:
    if isinstance(value, str):
        signing_keys(value)
    return value


SHORTEST_JWT_SECRET = 32
"""In bytes; RFC 7518 asks as many of HS256. Whoever has seen one token can try secrets at home, millions a second."""
SHORTEST_SIGNING_KEY = 16


def signing_keys(secrets: str) -> list[bytes]:
    """The keys in a setting: one, or the new and the old one with a comma between. `whsec_` begins base64; anything else is
    the key itself.

    Raises:
        ValueError: says what is wrong with it, without quoting it.
    """
    texts = [text.strip() for text in secrets.split(",")]
    if len(texts) > 2:
        raise ValueError("holds more than two secrets: give one, or the new and the old one")
    return [_signing_key(text) for text in texts]


def _signing_key(text: str) -> bytes:
    try:
        encoded = text.removeprefix("whsec_")
        padded = encoded + "=" * (-len(encoded) % 4)
        key = base64.b64decode(padded, validate=True) if encoded != text else text.encode()
    except (binascii.Error, ValueError):
        raise ValueError("must be base64 after whsec_") from None
    if len(key) < SHORTEST_SIGNING_KEY:
        raise ValueError(f"holds a secret of less than {SHORTEST_SIGNING_KEY} bytes")
    return key


PostgresUrl = Annotated[str, BeforeValidator(_postgres_url)]
# Of several validators the last one is asked first.
HttpUrl = Annotated[str, BeforeValidator(_http_url), BeforeValidator(_not_blank)]
Secret = Annotated[SecretStr, BeforeValidator(_not_blank)]
Text = Annotated[str, BeforeValidator(_not_blank)]
CommaSeparated = Annotated[list[str], NoDecode, BeforeValidator(_comma_separated)]
Networks = Annotated[list[IPv4Network | IPv6Network], NoDecode, BeforeValidator(_networks)]
File = Annotated[Path, BeforeValidator(_not_blank)]
UrlPath = Annotated[str, BeforeValidator(_path)]
Transport = Literal["polling", "websocket"]
Transports = Annotated[list[Transport], NoDecode, BeforeValidator(_comma_separated), Field(min_length=1)]
JwtSecret = Annotated[SecretStr, BeforeValidator(_jwt_secret), BeforeValidator(_not_blank)]
SigningSecrets = Annotated[SecretStr, BeforeValidator(_signing_secrets), BeforeValidator(_not_blank)]
Delays = Annotated[
    list[Annotated[float, Field(ge=0, le=86400)]], NoDecode, BeforeValidator(_comma_separated), Field(max_length=20)
]


EMPTY_IS_WRONG = frozenset(
    (
        *("jwt_secret", "jwks_url", "jwt_audience", "jwt_issuer", "anon_key", "api_key"),
        *("ssl_certfile", "ssl_keyfile", "webhook_secret"),
    )
)
"""What lets clients in, what they are checked against, what is signed and encrypted: a value that was lost on the way to the
server must not switch that off without a word."""

EMPTY_IS_NONE = frozenset(("cors_origins", "webhook_retry_delays"))
"""Lists whose default is not the empty one."""


class _Filled(PydanticBaseSettingsSource):
    """The variables of another source without those that are not set, since they are empty.

    Args:
        source: the environment, or `.env`.
    """

    def __init__(self, settings: type[BaseSettings], source: PydanticBaseSettingsSource) -> None:
        super().__init__(settings)
        self._source = source

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self._source.get_field_value(field, field_name)

    def __call__(self) -> dict[str, Any]:
        return {name: value for name, value in self._source().items() if not _is_unset(name, value)}


def _is_unset(name: str, value: object) -> bool:
    blank = isinstance(value, str) and not value.strip()
    return blank and name not in EMPTY_IS_WRONG | EMPTY_IS_NONE


class Config(BaseSettings):
    """The settings of one server, read once at start and never changed after."""

    model_config = SettingsConfigDict(
        env_prefix="REALTIME_",
        env_file=".env",
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        allow_inf_nan=False,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What pydantic-settings asks for its sources."""
        return init_settings, _Filled(settings_cls, env_settings), _Filled(settings_cls, dotenv_settings)

    database_url: PostgresUrl | None = Field(
        default=None,
        validation_alias=AliasChoices("DATABASE_URL", "database_url"),
        description="The PostgreSQL database, `postgresql://user:password@host:port/name`.",
    )
    listen_url: PostgresUrl | None = Field(
        default=None,
        description="A direct connection for the feed, if `DATABASE_URL` goes through a pooler that does not keep sessions "
        "(LISTEN needs one).",
    )
    db_connections: int = Field(
        default=2, ge=1, le=100, description="Connections for subscribe checks, and as many for publishes."
    )
    host: Text = Field(
        default="127.0.0.1",
        description="The address or name to listen on; `0.0.0.0` for all IPv4 addresses, `::` for all IPv4 and IPv6 "
        "addresses, `localhost` for this machine alone, over both.",
    )
    port: int = Field(default=7130, ge=0, le=65535, description="The port to listen on; 0 picks a free one.")

    jwt_secret: JwtSecret | None = Field(default=None, description="The secret of HS256 tokens, 32 bytes or more.")
    jwks_url: HttpUrl | None = Field(
        default=None, description="Where the public keys of RS256, ES256 and EdDSA tokens are."
    )
    jwt_audience: Text | None = Field(default=None, description="The `aud` that a token must have.")
    jwt_issuer: Text | None = Field(default=None, description="The `iss` that a token must have.")
    anon_key: Secret | None = Field(
        default=None, description="A key (`anon_…`) that lets clients in as the role `anon`."
    )
    api_key: Secret | None = Field(
        default=None,
        description="A key (`ik_…`) that lets clients in as `project_admin`. Keep it on servers.",
    )
    allow_anonymous: bool = Field(
        default=False, description="Let clients without any token in as `anon`. `dev` sets it."
    )
    cors_origins: CommaSeparated = Field(
        default=["*"],
        description="The origins of web pages that may connect, comma-separated; `*` for all, but then without cookies.",
    )

    transports: Transports = Field(
        default=["polling", "websocket"],
        description="How clients may connect, comma-separated: `polling` (HTTP long-polling, which clients upgrade to "
        "WebSocket if that is offered too) and `websocket`.",
    )
    root_path: UrlPath = Field(
        default="",
        description="The path prefix that a proxy leaves on the requests, like `/realtime`.",
    )
    trusted_proxies: Networks = Field(
        default=[],
        description="The networks of proxies, comma-separated (`10.0.0.0/8,127.0.0.1`), whose `X-Forwarded-For` and "
        "`X-Forwarded-Proto` are believed. From others they are ignored.",
    )
    ssl_certfile: File | None = Field(
        default=None, description="The certificate (PEM, with its chain): the server itself speaks https and wss."
    )
    ssl_keyfile: File | None = Field(
        default=None, description="The certificate's key (PEM, not encrypted), if it is not in the same file."
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least severe level that is logged."
    )
    log_format: Literal["console", "json"] = Field(
        default="console", description="`console` for people, `json` for machines: one object a line."
    )
    max_log_lines_per_second: float = Field(
        default=5,
        ge=0,
        description="Log lines of one kind per second, on average; ten times as many in a burst. The number left out is "
        "logged.",
    )

    log_buffer_bytes: int = Field(
        default=1024 * 1024,
        ge=0,
        description="Bytes of log lines that may wait for a slow reader of standard error; further lines are dropped, and "
        "their number is logged.",
    )

    max_payload_bytes: int = Field(
        default=1_000_000, ge=0, description="The largest message a client may send, in bytes."
    )
    max_name_bytes: int = Field(default=255, ge=0, description="The longest channel or event name, in bytes of UTF-8.")
    max_channels_per_connection: int = Field(
        default=100, ge=0, description="Channels one connection may be subscribed to at a time."
    )
    max_connections: int = Field(
        default=0, ge=0, description="Connections of authenticated clients that this server holds at a time."
    )
    max_sockets: int | None = Field(
        default=None,
        ge=0,
        description="Sockets of any kind that this server holds at a time. If not set: the limit of open files, less 256.",
    )
    max_sockets_per_address: int = Field(
        default=10_000,
        ge=0,
        description="Sockets that one address (IPv6: one /64) may hold at a time, and as many long-polling sessions.",
    )
    max_unauthenticated: int = Field(
        default=10_000,
        ge=0,
        description="Sockets whose client is not authenticated yet, and as many long-polling sessions; the oldest gives way "
        "to a newcomer.",
    )
    max_connect_bytes: int = Field(
        default=20_000,
        ge=0,
        description="The largest message or body of a client that is not authenticated yet, in bytes.",
    )
    max_refused_connects: int = Field(
        default=3, ge=0, description="Refused CONNECTs after which a connection is closed."
    )
    max_handshakes_per_second: float = Field(
        default=500,
        ge=0,
        description="Handshakes from one address (IPv6: one /64) per second, on average; twenty times as many in a burst.",
    )
    max_connects_per_second: float = Field(default=500, ge=0, description="CONNECTs, likewise, accepted or not.")
    max_messages_per_second: float = Field(
        default=100,
        ge=0,
        description="Messages one user may send per second, over all connections, on average; twice as many in a burst. The "
        "anonymous clients of one address together may send ten times as many.",
    )
    max_bytes_per_second: int = Field(
        default=1_000_000,
        ge=0,
        description="Bytes of messages one user may send per second, likewise; twice as many in a burst, or a single larger "
        "message.",
    )
    max_pending_per_user: int = Field(
        default=1000,
        ge=0,
        description="Subscribes of one user that may wait for a policy's decision, over all connections, and as many "
        "publishes. The anonymous clients of one address together may have ten times as many.",
    )
    max_buffered_bytes: int = Field(
        default=4 * 1024 * 1024,
        ge=0,
        description="Unsent bytes after which a connection that reads too slowly is closed. A larger event goes to nobody.",
    )

    max_head_bytes: int = Field(
        default=32768, ge=0, description="The request line and headers of one HTTP request, in bytes."
    )
    max_headers: int = Field(default=100, ge=0, description="Headers of one HTTP request.")
    max_pipelined: int = Field(default=16, ge=0, description="Unanswered requests on one HTTP connection.")

    policy_timeout: float = Field(default=5.0, gt=0, description="How long a policy may take to decide, in seconds.")
    ping_interval: float = Field(default=25.0, gt=0, description="Seconds between two heartbeats.")
    ping_timeout: float = Field(default=20.0, gt=0, description="Seconds that a client has to answer a heartbeat.")
    connect_timeout: float = Field(
        default=45.0,
        gt=0,
        description="Seconds that a new connection has, in all, to authenticate; a refusal does not restart them.",
    )
    request_timeout: float = Field(
        default=20.0,
        gt=0,
        description="Seconds within which an HTTP request's head must arrive, and its body, unless that is a poll's.",
    )
    answer_timeout: float = Field(
        default=30.0, gt=0, description="Seconds after which a client that does not read an HTTP answer is cut off."
    )
    feed_fallback_seconds: float = Field(
        default=2.0,
        ge=0,
        description="How often, in seconds, the feed looks for messages without being woken; also the health probe of its "
        "connection.",
    )
    feed_trail_seconds: float = Field(
        default=60.0,
        ge=1,
        le=3600,
        description="How many seconds of its past the feed remembers: a standby that lags by less can be promoted without "
        "clients having to reload (docs/reliability.md).",
    )
    max_lag_seconds: float = Field(
        default=5.0, ge=0, description="How far behind, in seconds, the feed may be before `/api/health` answers 503."
    )
    migrate_lock_wait: float = Field(
        default=60.0,
        ge=0,
        description="How long `migrate` keeps trying to lock a table that other transactions hold, in seconds; 0 for a "
        "single try.",
    )

    webhook_secret: SigningSecrets | None = Field(
        default=None,
        description="The secret that webhooks are signed with, `whsec_…` or any text; two, comma-separated, while one "
        "replaces the other.",
    )
    webhook_allow_networks: Networks = Field(
        default=[],
        description="Networks that webhooks may reach although they are not public, comma-separated: `10.0.0.0/8,fd00::/8`. "
        "`dev` allows loopback.",
    )
    webhook_timeout: float = Field(
        default=10.0, gt=0, le=600, description="How long one attempt of a webhook may take in all, in seconds."
    )
    webhook_retry_delays: Delays = Field(
        default=[1.0, 2.0],
        description="Seconds before each retry of a webhook, comma-separated; one retry per delay. Empty for none.",
    )
    webhook_lease_margin: float = Field(
        default=20.0,
        gt=0,
        description="How long after the time-out of an attempt another server may take over the webhooks of a server "
        "that was killed.",
    )
    webhook_concurrency: int = Field(
        default=100, ge=1, le=10000, description="Webhooks that this server sends at a time, to all hosts together."
    )
    webhook_concurrency_per_host: int = Field(
        default=16, ge=1, le=1000, description="Webhooks that this server sends at a time to one host."
    )
    webhook_breaker_failures: int = Field(
        default=20,
        ge=0,
        description="Consecutive failures of a host after which its webhooks wait and it is only probed; 0 for never.",
    )

    @property
    def webhook_keys(self) -> list[bytes]:
        """What webhooks are signed with; none, where they are not signed."""
        return signing_keys(self.webhook_secret.get_secret_value()) if self.webhook_secret else []

    @property
    def verifies_tokens(self) -> bool:
        """Whether there is any way to tell who a client is."""
        ways = (self.jwt_secret, self.jwks_url, self.anon_key, self.api_key)
        return self.allow_anonymous or any(way is not None for way in ways)

    def allows_origin(self, origin: str | None) -> bool:
        """Whether a web page of this origin may connect; programs send none and always may."""
        return origin is None or "*" in self.cors_origins or origin in self.cors_origins

    def database(self) -> str:
        """The database's URL, for commands that need nothing else.

        Raises:
            ConfigError: none is set.
        """
        if self.database_url is None:
            raise ConfigError("missing: DATABASE_URL (the PostgreSQL database)")
        return self.database_url

    def ready_to_serve(self) -> Self:
        """This configuration, once it has what a server needs.

        Raises:
            ConfigError: with every missing setting in one line.
        """
        missing = []
        if self.database_url is None:
            missing.append("DATABASE_URL (the PostgreSQL database)")
        if not self.verifies_tokens:
            missing.append("a way to verify tokens: REALTIME_JWT_SECRET or REALTIME_JWKS_URL")
        if missing:
            raise ConfigError("missing: " + "; ".join(missing))
        return self


def load(**overrides: object) -> Config:
    """Read the environment and `.env`; `overrides` (field names) win over both.

    Raises:
        ConfigError: one line that names the first wrong variable and what it may be.
    """
    for name in overrides:
        if name not in Config.model_fields:
            similar = get_close_matches(name, Config.model_fields, 1)
            raise ConfigError(f"there is no setting {name!r}" + (f"; did you mean {similar[0]!r}?" if similar else ""))
    try:
        return Config(**{name: value for name, value in overrides.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        raise ConfigError(_first_problem(error)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f".env: cannot be read ({type(error).__name__})") from None


def variable(field: str) -> str:
    """The environment variable of a field of `Config`."""
    return "DATABASE_URL" if field.lower() == "database_url" else f"REALTIME_{field.upper()}"


def _first_problem(error: ValidationError) -> str:
    """One line that names the variable; secrets are never quoted back, nor URLs, which may have a password in them."""
    first = error.errors(include_url=False)[0]
    field = str(first["loc"][0])
    private = any(word in field.lower() for word in ("secret", "key", "url"))
    value = "" if private else f" (got {_shown(first['input'])})"
    return f"{variable(field)}: {first['msg'].removeprefix('Value error, ')}{value}"


def _shown(value: object) -> str:
    """A wrong value, in one short line."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return repr(text if len(text) <= 80 else text[:77] + "...")
