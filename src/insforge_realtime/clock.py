"""The time as it appears on the wire."""

from __future__ import annotations

from datetime import UTC, datetime


def iso_now() -> str:
    """Return the current time, ISO 8601 in UTC with milliseconds and `Z`."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
