"""What a setting may be: the types of `Config`'s fields, with what is done to a text before it is one of them.

What lives here: one value at a time. What two settings must be together is the business of whoever uses both. A refusal is a
`ValueError` that reads on from the variable's name, and quotes nothing.
"""

from __future__ import annotations

import base64
import binascii
import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from insforge_realtime import dsn
from insforge_realtime.errors import ConfigError

SHORTEST_JWT_SECRET = 32
"""In bytes, as RFC 7518 demands for HS256. Whoever has seen one token can try secrets at home, millions a second."""
SHORTEST_SIGNING_KEY = 16
"""In bytes."""


def signing_keys(secrets: str) -> list[bytes]:
    """Return the keys in a setting: one, or the new and the old one with a comma between.

    Args:
        secrets: `whsec_` begins base64; anything else is the key itself.

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


# ---- validators ----------------------------------------------------------------------------------------------


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


# ---- types ---------------------------------------------------------------------------------------------------

# Of several validators the last one runs first.
PostgresUrl = Annotated[str, BeforeValidator(_postgres_url)]
HttpUrl = Annotated[str, BeforeValidator(_http_url), BeforeValidator(_not_blank)]
Secret = Annotated[SecretStr, BeforeValidator(_not_blank)]
Text = Annotated[str, BeforeValidator(_not_blank)]
CommaSeparated = Annotated[list[str], NoDecode, BeforeValidator(_comma_separated)]
Networks = Annotated[list[IPv4Network | IPv6Network], NoDecode, BeforeValidator(_networks)]
File = Annotated[Path, BeforeValidator(_not_blank)]
UrlPath = Annotated[str, BeforeValidator(_path)]
Transports = Annotated[
    list[Literal["polling", "websocket"]], NoDecode, BeforeValidator(_comma_separated), Field(min_length=1)
]
JwtSecret = Annotated[SecretStr, BeforeValidator(_jwt_secret), BeforeValidator(_not_blank)]
SigningSecrets = Annotated[SecretStr, BeforeValidator(_signing_secrets), BeforeValidator(_not_blank)]
Delays = Annotated[
    list[Annotated[float, Field(ge=0, le=86400)]], NoDecode, BeforeValidator(_comma_separated), Field(max_length=20)
]
