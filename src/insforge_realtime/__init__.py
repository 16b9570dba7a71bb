"""InsForge Realtime: a change in PostgreSQL becomes a message on every screen that may see it.

What a program imports from here is listed in `__all__`; everything else is the house's own.
"""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
