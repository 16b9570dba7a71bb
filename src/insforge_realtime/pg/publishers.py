"""A message becomes a row of `realtime.messages`: a client's, if the INSERT policies allow it, or the system's own.

What lives here: the requests and what their answers mean. The judging and inserting is `realtime.publish_as` and
`realtime.publish_lists` in sql/judges.sql; from the row on, every message takes the same way down as a trigger's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson
import structlog

from insforge_realtime.errors import InvalidRequest, PayloadTooLarge, RequestError
from insforge_realtime.model import Owner, Publication
from insforge_realtime.pg.authorizer import denied, for_clients, kind_of, raised
from insforge_realtime.pg.coalescer import NOBODY, Coalescer
from insforge_realtime.pg.queries import query

if TYPE_CHECKING:
    from insforge_realtime.metrics import RoundTrips
    from insforge_realtime.pg.database import Connection, Database

log = structlog.get_logger("insforge_realtime.pg")


class ClientPublisher:
    """Publishes clients' messages, many in one transaction; each stands or falls by itself.

    Args:
        database: where they become rows, and whose policies judge.
        round_trips: where batches are counted.
    """

    def __init__(self, database: Database, round_trips: RoundTrips | None = None) -> None:
        self.coalescer: Coalescer[Publication, str] = for_clients("publisher", database, _ask, round_trips)

    async def publish(self, publication: Publication, owner: Owner = NOBODY) -> str:
        """Insert a message as the client that sent it, and return its id once it is committed.

        Args:
            owner: whose turn it costs.

        Raises:
            RateLimited: too many messages of the owner are waiting.
            Unauthorized: no policy lets it, or one cannot read a value; or no enabled channel matches.
            InvalidRequest: a name or the payload is malformed, or PostgreSQL cannot hold it (a NUL character, say).
            PayloadTooLarge: written out by PostgreSQL, the payload is larger than an event may be (`realtime.limits`).
            Unavailable: the database cannot be reached; the message may or may not have been committed if the
                connection broke meanwhile.
            InternalError: a policy or a trigger raised anything else, or took too long.
        """
        return await self.coalescer.submit(publication, owner, kind_of(publication.channel))


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
    if kind == "invalid":
        return InvalidRequest(_sentence(rest))
    if kind == "too_large":
        return PayloadTooLarge(_sentence(rest))
    return denied("publish", verdict) or raised("a publish policy or trigger raised", publication.channel, verdict)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


SYSTEM_LIMIT_SECONDS = 60.0
"""The longest a list of messages may take: about 100 µs each."""
TOO_LONG = "Publishing took too long, and none of the messages was published"

Item = tuple[str, str, str]
"""Channel, event, payload as JSON text."""


class SystemPublisher:
    """Publishes as the system, from Python code as a trigger does from SQL. Callers at the same time share a round trip.

    Args:
        database: where they become rows.
        largest: of payloads, in bytes of JSON; 0 for no limit.
    """

    def __init__(self, database: Database, *, largest: int = 0) -> None:
        self.coalescer: Coalescer[list[Item], list[str | None]] = Coalescer(
            "system publisher", database, _publish_lists, links=1, limit=SYSTEM_LIMIT_SECONDS, too_long=TOO_LONG
        )
        self._largest = largest

    async def publish(self, messages: Iterable[tuple[str, str, Mapping[str, Any]]]) -> list[str | None]:
        """Insert messages, all or none, and return their ids once they are committed; None where no channel matches.

        Raises:
            InvalidRequest: one of them cannot be a message.
            PayloadTooLarge: one of them is too large for anybody.
            Unavailable: the database cannot be reached.
            InternalError: a trigger raised, or it took too long.
        """
        items = [self._item(*message) for message in messages]
        ids = await self.coalescer.submit(items) if items else []
        for channel in {channel for (channel, _, _), made in zip(items, ids, strict=True) if made is None}:
            log.warning("published to no enabled channel", channel=channel)
        return ids

    def _item(self, channel: object, event: object, payload: object) -> Item:
        if not isinstance(payload, Mapping):
            raise InvalidRequest("The payload must be a mapping, which becomes a JSON object")
        try:
            text = orjson.dumps(dict(payload))
        except orjson.JSONEncodeError as error:
            raise InvalidRequest(f"The payload cannot be written as JSON: {error}") from error
        if self._largest and len(text) > self._largest:
            raise PayloadTooLarge(f"The payload is larger than {self._largest} bytes, which no client may leave unread")
        return _name(channel, "channel"), _name(event, "event"), text.decode()


def _name(value: object, what: str) -> str:
    """A string that PostgreSQL can hold: one that it cannot would cost other callers their connection."""
    if not isinstance(value, str):
        raise InvalidRequest(f"The {what} must be a string")
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise InvalidRequest(f"The {what} contains a NUL character or half a surrogate pair")
    return value


async def _publish_lists(connection: Connection, lists: Sequence[list[Item]]) -> list[list[str | None] | RequestError]:
    flat = [item for items in lists for item in items]
    verdicts = await connection.fetchval(
        query("publish_lists"),
        [len(items) for items in lists],
        [channel for channel, _, _ in flat],
        [event for _, event, _ in flat],
        [payload for _, _, payload in flat],
    )
    return [_ids(orjson.loads(verdict)) for verdict in verdicts]


def _ids(verdict: dict[str, Any]) -> list[str | None] | RequestError:
    if "ids" in verdict:
        ids: list[str | None] = verdict["ids"]
        return ids
    state, message = verdict["state"], verdict["message"]
    if verdict["mark"] == "realtime_too_large":
        return PayloadTooLarge(message)
    if state[:2] == "22":  # ours for malformed names and payloads, PostgreSQL's for what it cannot store
        return InvalidRequest(message)
    return raised("a trigger on realtime.messages raised", "", f"{state} {message}")
