"""What is found in the settings alone: how clients are let in, and variables that mean nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from insforge_realtime.pg.check.finding import Finding
from insforge_realtime.typos import unknown_variables

if TYPE_CHECKING:
    from insforge_realtime.config import Config


def look_at_configuration(config: Config) -> list[Finding]:
    """Return what was found in the settings, and in the environment's variables that look like some."""
    return [credentials(config), *_typos()]


def credentials(config: Config) -> Finding:
    """Return whether clients can be let in, and by what."""
    ways = {
        "REALTIME_JWT_SECRET": config.jwt_secret,
        "REALTIME_JWKS_URL": config.jwks_url,
        "REALTIME_ANON_KEY": config.anon_key,
        "REALTIME_API_KEY": config.api_key,
        "REALTIME_ALLOW_ANONYMOUS": config.allow_anonymous or None,
    }
    used = [name for name, value in ways.items() if value is not None]
    if config.verifies_tokens:
        return Finding("ok", f"clients are let in by {', '.join(used)}")
    return Finding(
        "broken",
        "there is no way to verify tokens: `serve` refuses to start",
        "set REALTIME_JWT_SECRET or REALTIME_JWKS_URL",
    )


def _typos() -> list[Finding]:
    return [
        Finding(
            "warning",
            f"{unknown.name} is set, and there is no such setting: it does nothing",
            f"did you mean {unknown.nearest}?" if unknown.nearest else "remove it, if it was meant for this server",
        )
        for unknown in unknown_variables()
    ]
