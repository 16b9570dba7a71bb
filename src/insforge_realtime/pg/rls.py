"""May this client subscribe to this channel? PostgreSQL judges, by the row-level security policies on `realtime.channels`.

What lives here: the question, and what its answers mean. What does not: who asks (commands.py) and how questions are
gathered (pool.py). The judging itself is `realtime.check_subscribe` in sql/judges.sql.

Denied is not broken: a policy that says no is `Unauthorized`; a policy that raises is `InternalError`, logged with
PostgreSQL's own words, of which the client is told nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from logging import ERROR, WARNING
from typing import TYPE_CHECKING

import structlog

from insforge_realtime.errors import InternalError, RequestError, Unauthorized
from insforge_realtime.model import Identity
from insforge_realtime.pg.pool import Coalescer
from insforge_realtime.pg.queries import query

if TYPE_CHECKING:
    from insforge_realtime.pg.pool import Connection

log = structlog.get_logger("insforge_realtime.pg.rls")

Question = tuple[Identity, str]
"""Who, and which channel."""


class Authorizer:
    """Answers subscribe requests, many in one round trip.

    Args:
        dsn: the database.
        links: how many connections to use.
        limit: the longest a policy may take, in seconds.
        pooled: a transaction pooler stands in between.
    """

    def __init__(self, dsn: str, *, links: int = 2, limit: float = 5.0, pooled: bool = False) -> None:
        self.coalescer: Coalescer[Question, None] = Coalescer(
            "authorizer", dsn, _ask, links=links, limit=limit, pooled=pooled
        )

    async def check_subscribe(self, identity: Identity, channel: str) -> None:
        """Return if the policies let this client subscribe.

        Raises:
            Unauthorized: they do not, or no enabled channel matches.
            Unavailable: the database cannot be reached.
            InternalError: a policy raised, or took too long.
        """
        await self.coalescer.submit((identity, channel))


async def _ask(connection: Connection, questions: Sequence[Question]) -> list[RequestError | None]:
    verdicts = await connection.fetchval(
        query("check_subscribe"),
        [identity.role.value for identity, _ in questions],
        [identity.claims for identity, _ in questions],
        [channel for _, channel in questions],
    )
    return [_meaning(verdict, channel) for verdict, (_, channel) in zip(verdicts, questions, strict=True)]


def _meaning(verdict: str, channel: str) -> RequestError | None:
    if verdict == "yes":
        return None
    if verdict == "no":
        return Unauthorized("Not allowed to subscribe to this channel")
    return raised("a subscribe policy raised", channel, verdict)


def raised(event: str, channel: str, verdict: str) -> InternalError:
    """What the client is told when PostgreSQL raised, once the operator has been told more.

    Class 22 (a cast that cannot read a segment of the channel's name, mostly) is anybody's to provoke: only a warning.
    """
    log.log(WARNING if verdict.startswith("22") else ERROR, event, channel=channel, error=verdict)
    return InternalError()
