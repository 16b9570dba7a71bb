"""InsForge Realtime: a change in PostgreSQL becomes a message on every screen that may see it.

What a program imports from here is listed in `__all__`; everything else is the house's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from insforge_realtime._version import __version__

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from insforge_realtime.config import Config
    from insforge_realtime.realtime import Realtime

__all__ = ["Realtime", "__version__", "create_app"]


def create_app(config: Config | None = None) -> Starlette:
    """Return a complete ASGI application, for any ASGI server: `insforge_realtime:create_app`.

    A function, not a name for `__getattr__`: hypercorn evaluates `create_app()` among what the module has.

    Args:
        config: complete; None reads the environment.

    Raises:
        ConfigError: a setting is missing or wrong.
    """
    from insforge_realtime import realtime

    return realtime.create_app(config)


def __getattr__(name: str) -> object:
    """Import `Realtime` when it is first needed: most commands, and the client, need no server."""
    if name == "Realtime":
        from insforge_realtime.realtime import Realtime

        return Realtime
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
