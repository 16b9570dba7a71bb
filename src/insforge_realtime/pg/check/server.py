"""PostgreSQL itself: its version, its settings as they hold for the server, and its clock."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from insforge_realtime.pg.check.finding import Finding, Question, by_query
from insforge_realtime.pg.migrate import OLDEST_VERSION
from insforge_realtime.pg.queries import query

if TYPE_CHECKING:
    from insforge_realtime.config import Config
    from insforge_realtime.pg.database import Connection

SKEW_SECONDS = 5.0


async def _version(connection: Connection, _: Config) -> list[Finding]:
    who = await connection.fetchrow(query("examine_who"))
    assert who is not None
    if who["number"] < OLDEST_VERSION * 10000:
        return [Finding("broken", f"PostgreSQL {who['version']} is too old", f"upgrade to {OLDEST_VERSION} or newer")]
    return [Finding("ok", f"PostgreSQL {who['version']}, as the user {who['me']}")]


async def _clocks(connection: Connection, _: Config) -> list[Finding]:
    """Of three measurements, the one with the shortest round trip."""
    skew = min([await _skew(connection) for _ in range(3)])[1]
    if abs(skew) <= SKEW_SECONDS:
        return [Finding("ok", "the clocks of this machine and of the database agree")]
    direction = "ahead of" if skew > 0 else "behind"
    return [
        Finding(
            "warning",
            f"the database's clock is {abs(skew):.0f} s {direction} this machine's: "
            "the expiry of tokens and the timestamps of messages disagree",
            "synchronise both clocks (NTP)",
        )
    ]


def _wall_clock() -> float:
    return time.time()


async def _skew(connection: Connection) -> tuple[float, float]:
    """The round trip's length, and how far the database's clock is ahead of ours."""
    before = _wall_clock()
    theirs: float = await connection.fetchval(query("examine_clock"))
    after = _wall_clock()
    return after - before, theirs - (before + after) / 2


QUESTIONS = (
    Question("could not find out the server's version", _version),
    by_query("examine_encoding", "the database is encoded in UTF8", decisive=True),
    by_query("examine_standby", "the database is not a standby", decisive=True),
    by_query("examine_settings", "no setting of the role or the database is in the way"),
    Question("could not compare the clocks", _clocks),
)
