"""A finding, and a question that leads to some."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from insforge_realtime.pg.queries import query

if TYPE_CHECKING:
    from insforge_realtime.config import Config
    from insforge_realtime.pg.database import Connection

Verdict = Literal["ok", "warning", "broken"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Args:
        verdict: `ok`; `warning`, which works but should be known; `broken`, which does not work.
        what: what was found.
        advice: what to do about it, or None.
    """

    verdict: Verdict
    what: str
    advice: str | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """Something to look at.

    Args:
        what: names it where looking fails.
        ask: looks.
        in_transaction: whether it is asked in one.
        decisive: where it finds something broken, the rest is not looked at: it would all be broken for that reason.
    """

    what: str
    ask: Callable[[Connection, Config], Awaitable[list[Finding]]]
    in_transaction: bool = True
    decisive: bool = False


def by_query(name: str, fine: str, *, decisive: bool = False) -> Question:
    """Return a question that one statement answers: with what is wrong, a row each, or with nothing where `fine` holds."""

    async def ask(connection: Connection, _: Config) -> list[Finding]:
        rows = await connection.fetch(query(name))
        return [Finding(row["verdict"], row["what"], row["advice"]) for row in rows] or [Finding("ok", fine)]

    return Question(f"could not find out whether {fine}", ask, decisive=decisive)
