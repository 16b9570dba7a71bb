"""The webhook queue, `realtime.webhook_deliveries`: claim what is due, write down what came of it; and what operators ask.

What lives here: the statements' arguments and what their answers mean. When to call them is the worker's business
(webhooks/worker.py); the rows themselves are made by a trigger, in the transaction of their message (sql/functions.sql).

A claim is a lease: a number that nobody else has, and a time. While it lasts no other server takes the row; when it ends,
anybody may, and a result that comes with the old number is not written any more. The times are the database's, whose clock
may be set at any moment: what holds then is told in sql/queries/webhooks.sql, and pg/clock.py notices it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import asyncpg
import structlog

from insforge_realtime.errors import DatabaseError
from insforge_realtime.pg.clock import DatabaseClock
from insforge_realtime.pg.database import LINK_ERRORS, describe
from insforge_realtime.pg.queries import query

if TYPE_CHECKING:
    from insforge_realtime.pg.database import Connection, Database

STATEMENT_SECONDS = 15.0
"""A statement that takes longer means a dead link: all of them are index scans of a few rows."""

PRESENCE = 1_381_322_825
"""The first key of the advisory locks by which servers see each other; the second says which networks they may send to."""
REFUSAL_SECONDS = 60.0
"""So long another server's refusal of a host is taken to hold."""
MEND_SECONDS, MEND_ROWS = 60.0, 5000
"""How often, and how many at a time, rows are looked for that were written before the clock was set back."""

log = structlog.get_logger("insforge_realtime.webhooks")

State = Literal["pending", "delivered", "failed"]


@dataclass(frozen=True, slots=True)
class Claim:
    """A delivery that is ours to attempt, until the lease ends.

    Args:
        id, lease: what the result is to be written with.
        attempts: how many were made before.
        host: what fairness goes by; see webhooks/hosts.py.
        url, message_id, event, channel, payload: what is sent, the payload as JSON text; None where it cannot be sent.
    """

    id: int
    lease: int
    attempts: int
    host: str
    url: str
    message_id: str
    event: str
    channel: str
    payload: str | None


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one attempt.

    Args:
        id, lease: the claim's.
        state: `pending` for another attempt, in `pause` seconds.
        status_code, error, response: what is kept of the answer, each None where there was none.
        began: when the attempt began, by the event loop's clock.
        took: how long it took, in seconds.
    """

    id: int
    lease: int
    state: State
    pause: float
    status_code: int | None
    error: str | None
    response: str | None
    began: float
    took: float


class _Refusers:
    """Which other servers, by their networks, have refused to send to which hosts of late: once all of them have, not every
    delivery needs to be shown to each."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, int], float] = {}

    def note(self, host: str, networks: Sequence[int]) -> None:
        """These have."""
        self._seen.update(dict.fromkeys(((host, one) for one in networks), time.monotonic()))

    def among(self, hosts: AbstractSet[str]) -> list[tuple[str, int]]:
        """Those of these hosts. What was seen too long ago is forgotten."""
        limit = time.monotonic() - REFUSAL_SECONDS
        self._seen = {key: at for key, at in self._seen.items() if at > limit}
        return [key for key in self._seen if key[0] in hosts]


class DeliveryQueue:
    """The queue, as one worker sees it.

    Args:
        database: where it is.
        lease: how long a claim lasts, in seconds.
        networks: a number for the networks that this server may send to.
    """

    def __init__(self, database: Database, *, lease: float, networks: int = 0) -> None:
        self.lease = lease
        self._networks = networks
        self._refusers = _Refusers()
        self._database = database
        self._clock = DatabaseClock(time.monotonic)
        self._mended: float | None = None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection of the worker's own."""
        async with self._database.connected("webhooks", statement_timeout=STATEMENT_SECONDS - 3) as connection:
            if not self._database.pooled:  # there, the settings would be somebody else's next
                await connection.execute(query("plan_claims_by_index"), timeout=STATEMENT_SECONDS)
            self._mended = None  # it may be another host's clock
            async with self._present(connection):
                yield connection

    @asynccontextmanager
    async def _present(self, connection: Connection) -> AsyncIterator[None]:
        """Let other servers know that this one is there, and by which networks, as long as its sessions last."""
        if not self._database.pooled:
            await self._say_which_networks(connection)
            yield
        else:
            async with self._database.direct.connected("webhooks presence") as presence:
                await self._say_which_networks(presence)
                presence.add_termination_listener(lambda _: connection.terminate())
                yield

    async def _say_which_networks(self, connection: Connection) -> None:
        await connection.execute(query("say_which_networks"), PRESENCE, self._networks, timeout=STATEMENT_SECONDS)

    async def claim(
        self, connection: Connection, rows: int, per_host: int, limits: Mapping[str, int]
    ) -> tuple[list[Claim], float | None]:
        """Take what is due.

        Args:
            rows: how many at most.
            per_host: how many of one host.
            limits: hosts that may have another number of them, 0 for none.

        Returns: the claims, and in how many seconds something else will be due (None: nothing that is known of).
        """
        if self._mended is None or time.monotonic() - self._mended > MEND_SECONDS:
            await self._mend(connection)
        lease = secrets.randbits(62)
        asked = time.monotonic()
        found = await connection.fetch(
            query("claim_deliveries"), rows, lease, self.lease, per_host, list(limits), list(limits.values()),
            self._clock.believed(), self._clock.watched(), timeout=STATEMENT_SECONDS,
        )  # fmt: skip
        claims = [
            Claim(
                row["id"], lease, row["attempts"], row["host"], row["url"],
                row["message_id"], row["event"], row["channel"], row["payload"],
            )
            for row in found
            if row["id"] is not None
        ]  # fmt: skip
        return claims, 0.0 if self._was_set(found[0]["now"], asked) else found[0]["seconds"]

    async def _mend(self, connection: Connection) -> None:
        """Let what was written before the clock was set back wait as long as was meant, from now on."""
        mended = MEND_ROWS
        while mended == MEND_ROWS:
            asked = time.monotonic()
            row = await connection.fetchrow(query("mend_times"), MEND_ROWS, timeout=STATEMENT_SECONDS)
            assert row is not None
            mended = row["mended"]
            self._was_set(row["now"], asked)
        self._mended = time.monotonic()

    def _was_set(self, now: float, asked: float) -> bool:
        step = self._clock.seen(now, asked)
        if step:
            self._mended = None
            log.warning("the database's clock was set", seconds=round(step, 3))
        return bool(step)

    async def finish(self, connection: Connection, results: Sequence[Result], now: float) -> int:
        """Write results down; how many: the others' leases had ended. Repeating it after a broken connection is harmless."""
        written: int = await connection.fetchval(
            query("finish_deliveries"),
            [result.id for result in results],
            [result.lease for result in results],
            [result.state for result in results],
            [result.pause for result in results],
            [result.status_code for result in results],
            [result.error for result in results],
            [result.response for result in results],
            [now - result.began for result in results],
            [result.took for result in results],
            timeout=STATEMENT_SECONDS,
        )
        return written

    async def decline(self, connection: Connection, declined: Sequence[tuple[Claim, Result]]) -> dict[int, bool]:
        """Write down that this server may not send these: by id, whether that is left to other servers, which may. Of those
        that are not in it the lease has ended."""
        hosts = {claim.id: claim.host for claim, _ in declined}
        refusers = self._refusers.among(set(hosts.values()))
        rows = await connection.fetch(
            query("decline_deliveries"),
            [result.id for _, result in declined],
            [result.lease for _, result in declined],
            [result.state for _, result in declined],
            [result.pause for _, result in declined],
            [result.error for _, result in declined],
            self._networks,
            PRESENCE,
            [host for host, _ in refusers],
            [networks for _, networks in refusers],
            timeout=STATEMENT_SECONDS,
        )
        for row in rows:
            self._refusers.note(hosts[row["id"]], row["refused_by"])
        return {row["id"]: row["left_to_others"] for row in rows}

    async def release(self, connection: Connection, claims: Sequence[Claim]) -> None:
        """Give claims back."""
        ids, leases = [claim.id for claim in claims], [claim.lease for claim in claims]
        await connection.execute(query("release_deliveries"), ids, leases, timeout=STATEMENT_SECONDS)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which deliveries an operator means; None stands for any.

    Args:
        message: a message's id.
        url: a part of the URL.
        state: pending, delivered, failed or cancelled.
    """

    message: str | None = None
    url: str | None = None
    state: str | None = None


async def list_deliveries(database: Database, which: Selection, limit: int) -> list[dict[str, Any]]:
    """The newest deliveries, as the columns of `list_deliveries` in sql/queries/webhooks.sql.

    Raises:
        DatabaseError: the database cannot be reached, or is not migrated.
    """
    async with _asking(database) as connection:
        rows = await connection.fetch(query("list_deliveries"), which.message, which.url, which.state, limit)
    return [dict(row) for row in rows]


async def retry_deliveries(database: Database, which: Selection) -> int:
    """Begin again with those that failed, were cancelled, or wait; how many. Raises DatabaseError."""
    return await _change(database, "retry_deliveries", which)


async def cancel_deliveries(database: Database, which: Selection) -> int:
    """Send those that are pending no more; how many. Raises DatabaseError."""
    return await _change(database, "cancel_deliveries", which)


async def _change(database: Database, name: str, which: Selection) -> int:
    async with _asking(database) as connection:
        status = await connection.execute(query(name), which.message, which.url, which.state)
    return int(status.rpartition(" ")[2])


@asynccontextmanager
async def _asking(database: Database) -> AsyncIterator[Connection]:
    try:
        async with database.connected("command", pooled=True) as connection:
            yield connection
    except asyncpg.UndefinedTableError as error:
        raise DatabaseError("the schema is not current: run `insforge-realtime migrate`") from error
    except LINK_ERRORS as error:
        raise DatabaseError(f"the database cannot be used: {describe(error)}") from error
