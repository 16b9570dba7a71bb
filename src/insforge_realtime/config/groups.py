"""The settings, in groups: name, type, default, bounds, and the description that docs/configuration.md has, too.

What lives here: declarations, and what follows from one group alone. What a value may look like is types.py;
`Config`, all groups in one, is settings.py. For limits, 0 means none.
"""

from __future__ import annotations

from typing import Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from insforge_realtime.config.types import (
    CommaSeparated,
    Delays,
    File,
    HttpUrl,
    JwtSecret,
    Networks,
    PostgresUrl,
    Secret,
    SigningSecrets,
    Text,
    Transports,
    UrlPath,
    signing_keys,
)
from insforge_realtime.errors import ConfigError


class _Group(BaseModel):
    """Not made by itself: pydantic need not build what only `Config` uses."""

    model_config = ConfigDict(defer_build=True)


class DatabaseSettings(_Group):
    """The database, and the feed that reads it."""

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
    policy_timeout: float = Field(default=5.0, gt=0, description="How long a policy may take to decide, in seconds.")
    migrate_lock_wait: float = Field(
        default=60.0,
        ge=0,
        description="How long `migrate` keeps trying for a lock on a table that other transactions hold, in seconds; 0 for "
        "one try.",
    )
    feed_fallback_seconds: float = Field(
        default=2.0,
        ge=0,
        description="How often the feed looks although no notification came; also the health probe of its connection.",
    )
    feed_trail_seconds: float = Field(
        default=60.0,
        ge=1,
        le=3600,
        description="How many seconds of its past the feed remembers: a standby may lag by as much when it becomes the "
        "primary, and no client has to reload (docs/reliability.md).",
    )
    max_lag_seconds: float = Field(
        default=5.0, ge=0, description="How far behind, in seconds, the feed may be before `/api/health` answers 503."
    )

    def database(self) -> str:
        """Return the database's URL, for commands that need nothing else.

        Raises:
            ConfigError: none is set.
        """
        if self.database_url is None:
            raise ConfigError("missing: DATABASE_URL (the PostgreSQL database)")
        return self.database_url


class AuthSettings(_Group):
    """Who may come in."""

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
        default=None, description="A key (`ik_…`) that lets clients in as `project_admin`. Keep it on servers."
    )
    allow_anonymous: bool = Field(
        default=False, description="Let clients that bring no token at all in as `anon`. `dev` sets it."
    )

    @property
    def verifies_tokens(self) -> bool:
        """Whether there is any way to tell who a client is."""
        ways = (self.jwt_secret, self.jwks_url, self.anon_key, self.api_key)
        return self.allow_anonymous or any(way is not None for way in ways)


class ListenSettings(_Group):
    """Where the server is, and what may connect."""

    host: Text = Field(
        default="127.0.0.1",
        description="The address, or the name, to listen on; `0.0.0.0` for all IPv4 addresses, `::` for all IPv4 and IPv6 "
        "addresses, `localhost` for this machine alone, over both.",
    )
    port: int = Field(default=7130, ge=0, le=65535, description="The port to listen on; 0 picks a free one.")
    root_path: UrlPath = Field(
        default="", description="The path prefix that a proxy leaves on the requests, like `/realtime`."
    )
    trusted_proxies: Networks = Field(
        default=[],
        description="The networks of proxies, comma-separated (`10.0.0.0/8,127.0.0.1`), whose `X-Forwarded-For` and "
        "`X-Forwarded-Proto` are believed. From others they are ignored.",
    )
    cors_origins: CommaSeparated = Field(
        default=["*"],
        description="The origins of web pages that may connect, comma-separated; `*` for all, then without cookies.",
    )
    transports: Transports = Field(
        default=["polling", "websocket"],
        description="What clients may connect by, comma-separated: `polling` (HTTP long-polling, from which clients "
        "upgrade to WebSocket where that is offered, too) and `websocket`.",
    )

    def allows_origin(self, origin: str | None) -> bool:
        """Whether a web page of this origin may connect; programs send none and always may."""
        return origin is None or "*" in self.cors_origins or origin in self.cors_origins


class TlsSettings(_Group):
    """TLS without a proxy."""

    ssl_certfile: File | None = Field(
        default=None, description="The certificate (PEM, with its chain): the server itself speaks https and wss."
    )
    ssl_keyfile: File | None = Field(
        default=None, description="The certificate's key (PEM, not encrypted), if it is not in the same file."
    )


class ConnectionSettings(_Group):
    """Limits of connections."""

    max_connections: int = Field(
        default=0, ge=0, description="The connections of clients that were let in which this server holds at a time."
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
        description="The sockets whose client has not been let in yet, and as many sessions of long-polling; the oldest "
        "gives way to one more.",
    )
    max_handshakes_per_second: float = Field(
        default=500,
        ge=0,
        description="Handshakes from one address (IPv6: one /64) per second, on average; twenty times as many in a burst.",
    )
    max_connects_per_second: float = Field(default=500, ge=0, description="CONNECTs, likewise, accepted or not.")
    max_connect_bytes: int = Field(
        default=20_000,
        ge=0,
        description="The largest message, or body, of a client that has not been let in yet, in bytes.",
    )
    max_refused_connects: int = Field(
        default=3, ge=0, description="Refused CONNECTs after which a connection is closed."
    )
    connect_timeout: float = Field(
        default=45.0,
        gt=0,
        description="Seconds that a new connection has, in all, to present its credentials; refusals begin no new ones.",
    )
    ping_interval: float = Field(default=25.0, gt=0, description="Seconds between two heartbeats.")
    ping_timeout: float = Field(default=20.0, gt=0, description="Seconds that a client has to answer a heartbeat.")
    max_buffered_bytes: int = Field(
        default=4 * 1024 * 1024,
        ge=0,
        description="Unsent bytes after which a connection that reads too slowly is closed. A larger event goes to nobody.",
    )


class MessageSettings(_Group):
    """Limits of channels and messages."""

    max_channels_per_connection: int = Field(
        default=100, ge=0, description="Channels one connection may be subscribed to at a time."
    )
    max_name_bytes: int = Field(default=255, ge=0, description="The longest channel or event name, in bytes of UTF-8.")
    max_payload_bytes: int = Field(
        default=1_000_000, ge=0, description="The largest message a client may send, in bytes."
    )
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


class HttpSettings(_Group):
    """Limits of HTTP requests."""

    max_head_bytes: int = Field(
        default=32768, ge=0, description="The request line and headers of one HTTP request, in bytes."
    )
    max_headers: int = Field(default=100, ge=0, description="Headers of one HTTP request.")
    max_pipelined: int = Field(default=16, ge=0, description="Unanswered requests on one HTTP connection.")
    request_timeout: float = Field(
        default=20.0,
        gt=0,
        description="Seconds that an HTTP request's head has to arrive, and its body, unless that is a poll's.",
    )
    answer_timeout: float = Field(
        default=30.0, gt=0, description="Seconds after which a client that does not read an HTTP answer is cut off."
    )


class WebhookSettings(_Group):
    """Webhooks."""

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
        description="Seconds after the time-out of an attempt before another server may take over the webhooks of a server "
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
        description="Failures of a host in a row after which its webhooks wait and it is only probed; 0 for never.",
    )

    @property
    def webhook_keys(self) -> list[bytes]:
        """What webhooks are signed with; none, where they are not signed."""
        return signing_keys(self.webhook_secret.get_secret_value()) if self.webhook_secret else []


class LogSettings(_Group):
    """The log."""

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least severe level that is logged."
    )
    log_format: Literal["console", "json"] = Field(
        default="console", description="`console` for people, `json` for machines: one object a line."
    )
    max_log_lines_per_second: float = Field(
        default=5,
        ge=0,
        description="The lines of one kind that the log gets per second, on average; ten times as many in a burst. The log "
        "also gets the number of those left out.",
    )
    log_buffer_bytes: int = Field(
        default=1024 * 1024,
        ge=0,
        description="The bytes of log lines that may wait for whatever reads standard error; further lines are dropped, and "
        "their number is logged.",
    )
