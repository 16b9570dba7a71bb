"""One `Config`, read once at start; or one line about the first thing that is wrong with it.

What lives here: names of variables, and how a mistake is told. Secrets are never quoted back, nor URLs, which may have a
password in them.
"""

from __future__ import annotations

import json
from difflib import get_close_matches

from pydantic import ValidationError

from insforge_realtime.config.settings import Config
from insforge_realtime.errors import ConfigError


def load(**overrides: object) -> Config:
    """Read the environment and `.env`.

    Args:
        overrides: by the names of fields; they win over both, and None does not count.

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
    """Return the environment variable of a field of `Config`."""
    return "DATABASE_URL" if field.lower() == "database_url" else f"REALTIME_{field.upper()}"


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    field = str(first["loc"][0])
    private = any(word in field.lower() for word in ("secret", "key", "url"))
    value = "" if private else f" (got {_shown(first['input'])})"
    return f"{variable(field)}: {first['msg'].removeprefix('Value error, ')}{value}"


def _shown(value: object) -> str:
    """Return a wrong value, in one short line."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return repr(text if len(text) <= 80 else text[:77] + "...")
