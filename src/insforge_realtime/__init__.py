"""InsForge Realtime: a change in PostgreSQL becomes a message on every screen that may see it.

What a program imports from here is listed in `__all__`; everything else is the house's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from insforge_realtime._version import __version__

if TYPE_CHECKING:
    from insforge_realtime.realtime import Realtime, create_app

__all__ = ["Realtime", "__version__", "create_app"]


def __getattr__(name: str) -> object:
    """Imported when first asked for: most commands, and the client, need no server."""
    if name in ("Realtime", "create_app"):
        from insforge_realtime import realtime

        return getattr(realtime, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
