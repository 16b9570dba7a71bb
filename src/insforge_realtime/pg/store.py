"""A client's message becomes a row of `realtime.messages`, if the INSERT policies allow it.

What lives here: the request and what its answers mean. The judging and inserting is `realtime.publish_as` in
sql/functions.sql; from the row on, a client's message takes the same way down as a trigger's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from insforge_realtime.errors import InvalidRequest, RequestError, Unauthorized
from insforge_realtime.model import Publication
from insforge_realtime.pg.pool import Coalescer
from insforge_realtime.pg.queries import query
from insforge_realtime.pg.rls import raised

if TYPE_CHECKING:
    from insforge_realtime.pg.pool import Connection


class MessageStore:
    """Publishes clients' messages, many in one transaction; each stands or falls by itself.

    Args: as for `Authorizer`.
    """

    def __init__(self, dsn: str, *, links: int = 2, limit: float = 5.0, pooled: bool = False) -> None:
        self.coalescer: Coalescer[Publication, str] = Coalescer(
            "publisher", dsn, _ask, links=links, limit=limit, pooled=pooled
        )

    async def publish(self, publication: Publication) -> str:
        """Insert a message as the client that sent it, and return its id once it is committed.

        Raises:
            Unauthorized: no policy lets it, or no enabled channel matches.
            InvalidRequest: PostgreSQL cannot hold the payload (a NUL character, say).
            Unavailable: the database cannot be reached; the message may or may not have been committed if the
                connection broke meanwhile.
            InternalError: a policy or a trigger raised, or took too long.
        """
        return await self.coalescer.submit(publication)


async def _ask(connection: Connection, publications: Sequence[Publication]) -> list[str | RequestError]:
    verdicts = await connection.fetchval(
        query("publish_as"),
        [publication.identity.role.value for publication in publications],
        [publication.identity.claims for publication in publications],
        [publication.channel for publication in publications],
        [publication.event for publication in publications],
        [publication.payload for publication in publications],
    )
    return [_meaning(verdict, asked) for verdict, asked in zip(verdicts, publications, strict=True)]


def _meaning(verdict: str, publication: Publication) -> str | RequestError:
    kind, _, rest = verdict.partition(" ")
    if kind == "ok":
        return rest
    if kind == "no":
        return Unauthorized("Not allowed to publish to this channel")
    if kind == "invalid":
        return InvalidRequest("PostgreSQL cannot store this payload as jsonb")
    return raised("a publish policy or trigger raised", publication.channel, verdict)
