"""May this client subscribe to this channel? PostgreSQL judges, by the row-level security policies on `realtime.channels`.

What lives here: the question, and what its answers mean. What does not: who asks (commands.py) and how questions are
gathered (coalescer.py). The judging itself is `realtime.check_subscribe` in sql/judges.sql.

Denied is not broken: a policy that says no is `Unauthorized`, and so is one that cannot read a value (SQLSTATE class 22: a
cast of a segment of the channel's name, mostly), which anybody can provoke; a policy that raises anything else is
`InternalError`. What the operator is told of either, PostgreSQL's own words included, the client is not: strangers would
learn which channels there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import orjson
import structlog

from insforge_realtime.errors import InternalError, RequestError, Unauthorized
from insforge_realtime.model import Identity, Owner
from insforge_realtime.pg.coalescer import NOBODY, Ask, Coalescer, Req, Res
from insforge_realtime.pg.queries import query

if TYPE_CHECKING:
    from insforge_realtime.metrics import RoundTrips
    from insforge_realtime.pg.database import Connection, Database

log = structlog.get_logger("insforge_realtime.pg.authorizer")

TOO_LONG = "The policy took too long to decide"

Question = tuple[Identity, str]
"""Who, and which channel."""


class Authorizer:
    """Answers subscribe requests, many in one round trip.

    Args:
        database: whose policies judge.
        round_trips: where batches are counted.
    """

    def __init__(self, database: Database, round_trips: RoundTrips | None = None) -> None:
        self.coalescer: Coalescer[Question, None] = for_clients("authorizer", database, _ask, round_trips)

    async def check_subscribe(self, identity: Identity, channel: str, owner: Owner = NOBODY) -> None:
        """Return if the policies let this client subscribe.

        Args:
            owner: whose turn it costs.

        Raises:
            RateLimited: too many questions of the owner are waiting.
            Unauthorized: they do not, or cannot read the name or the claims; or no enabled channel matches.
            Unavailable: the database cannot be reached.
            InternalError: a policy raised anything else, or took too long.
        """
        await self.coalescer.submit((identity, channel), owner, kind_of(channel))


def for_clients(
    name: str, database: Database, ask: Ask[Req, Res], round_trips: RoundTrips | None
) -> Coalescer[Req, Res]:
    """Return a coalescer of clients' requests, which policies judge within the limits of `database`."""
    return Coalescer(
        name,
        database,
        ask,
        links=database.connections,
        limit=database.policy_timeout,
        most=database.max_pending_per_user,
        too_long=TOO_LONG,
        round_trips=round_trips,
    )


def kind_of(channel: str) -> str:
    """Which channels are probably judged alike: those of `order:123` are."""
    return channel.partition(":")[0]


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
    return denied("subscribe", verdict) or raised("a subscribe policy raised", channel, verdict)


def denied(act: str, verdict: str) -> Unauthorized | None:
    """What a verdict means that is a no; None for others."""
    said, _, explained = verdict.rpartition("\n{")
    kind, _, error = (said or verdict).partition(" ")
    if kind != "no":
        return None
    known = orjson.loads("{" + explained) if said else {}
    return Unauthorized(f"Not allowed to {act} to this channel", {**known, **({"error": error} if error else {})})


def raised(event: str, channel: str, error: str) -> InternalError:
    """What the client is told when PostgreSQL raised, once the operator has been told more."""
    log.error(event, channel=channel, error=error)
    return InternalError(known={"reason": event, "error": error})
