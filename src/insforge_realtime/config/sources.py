"""Where values come from: the environment and `.env`; and that an empty variable is not set, with the exceptions."""

from __future__ import annotations

from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

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


class Filled(PydanticBaseSettingsSource):
    """The variables of another source, without those that are empty and so not set.

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
