"""Questions to a database that only trying answers. Shared by `migrate`, which says what it finds, and `check`.

What lives here: the tries, each in a transaction of its own that is rolled back, and what their outcomes mean in one line.
What does not: how bad that is, and whether to go on.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import asyncpg

from insforge_realtime.pg.database import describe
from insforge_realtime.pg.queries import query

if TYPE_CHECKING:
    from insforge_realtime.pg.database import Connection

SUBJECT = "5ab1ec70-0000-4000-8000-000000000001"
TRIES: tuple[tuple[str, str, str | None], ...] = (
    ("a token whose sub is a uuid", json.dumps({"sub": SUBJECT}), SUBJECT),
    ("a token whose sub is not a uuid (Clerk's, Auth0's)", json.dumps({"sub": "user_2abc"}), None),
    ("a token without sub", "{}", None),
    ("a session without a token", "", None),
)
"""Whom the claims are of, the claims, and what auth.uid() has to answer."""
REMEDY = "replace it with the auth.uid() of docs/database.md"


async def probe_auth_uid(connection: Connection) -> str | None:
    """Whether auth.uid() tells who asks, for every kind of token: it may be older than we are, and is never replaced.

    Args:
        connection: in a transaction or not. The role that asks is the one whose right to call auth.uid() counts.

    Returns:
        None where all is well, else one line: what is wrong, what that breaks, and what to do.
    """
    for whose, claims, expected in TRIES:
        try:
            answer = await _ask(connection, claims)
        except asyncpg.PostgresError as error:
            return _refused(whose, error)
        if answer != expected:
            return _mistaken(whose, answer)
    return None


async def _ask(connection: Connection, claims: str) -> str | None:
    attempt = connection.transaction()
    await attempt.start()
    try:
        await connection.execute(query("probe_claims"), claims)
        answer: str | None = await connection.fetchval(query("probe_uid"))
        return answer
    finally:
        if not connection.is_closed():
            await attempt.rollback()


def _refused(whose: str, error: asyncpg.PostgresError) -> str:
    if isinstance(error, (asyncpg.UndefinedFunctionError, asyncpg.InvalidSchemaNameError)):
        return f"auth.uid() does not exist: no client can publish; create the auth.uid() of docs/database.md ({error})"
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return f"auth.uid() may not be called by the server: {error}; GRANT USAGE ON SCHEMA auth and EXECUTE on it"
    consequence = (
        "a refusal to such a client" if isinstance(error, asyncpg.DataError) else "INTERNAL_ERROR, as is its publish"
    )
    return f"auth.uid() raises for {whose}: {describe(error)}; policies that call it are {consequence}; {REMEDY}"


def _mistaken(whose: str, answer: str | None) -> str:
    if answer is None:
        return f"auth.uid() ignores request.jwt.claims and request.jwt.claim.sub: it is NULL for {whose}; {REMEDY}"
    return f"auth.uid() is {answer} for {whose}, where it must be NULL: it mistakes one user for another; {REMEDY}"
