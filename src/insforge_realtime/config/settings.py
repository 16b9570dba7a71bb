"""`Config`: all groups of settings in one, flat, and what takes more than one group to tell."""

from __future__ import annotations

from typing import Self

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

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
from insforge_realtime.config.sources import Filled
from insforge_realtime.errors import ConfigError

GROUPS = (
    DatabaseSettings,
    AuthSettings,
    ListenSettings,
    TlsSettings,
    ConnectionSettings,
    MessageSettings,
    HttpSettings,
    WebhookSettings,
    LogSettings,
)
"""In the order of the documentation."""


class Config(
    # From the last to the first: pydantic lists the fields of the last base first.
    LogSettings,
    WebhookSettings,
    HttpSettings,
    MessageSettings,
    ConnectionSettings,
    TlsSettings,
    ListenSettings,
    AuthSettings,
    DatabaseSettings,
    BaseSettings,
):
    """The settings of one server, read once at start and never changed after."""

    model_config = SettingsConfigDict(
        defer_build=False,
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
        """Return the sources, those that win first. (What pydantic-settings calls.)"""
        return init_settings, Filled(settings_cls, env_settings), Filled(settings_cls, dotenv_settings)

    def ready_to_serve(self) -> Self:
        """Return this configuration, once it has what a server needs.

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
