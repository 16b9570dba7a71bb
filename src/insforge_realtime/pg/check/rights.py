"""Whether the schema is current, who owns it, and who may be, read or do what: the server, the clients' roles, strangers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg

from insforge_realtime.pg.check.finding import Finding, Question, by_query
from insforge_realtime.pg.migrate import is_current
from insforge_realtime.pg.queries import query, written_out

if TYPE_CHECKING:
    from insforge_realtime.config import Config
    from insforge_realtime.pg.database import Connection

ROLES = ("anon", "authenticated", "project_admin")


async def _schema(connection: Connection, _: Config) -> list[Finding]:
    who = await connection.fetchrow(query("examine_who"))
    assert who is not None
    try:
        if await is_current(connection):
            return [Finding("ok", "the schema is current")]
    except asyncpg.InsufficientPrivilegeError as error:
        return [
            Finding(
                "broken",
                f"the server may not look into the schema realtime: {error}",
                f"connect as its owner; or GRANT USAGE ON SCHEMA realtime TO {who['quoted']}, and what else a role needs "
                'that only serves (docs/database.md, "A server that does not own the schema")',
            )
        ]
    return [
        Finding(
            "broken",
            "the schema is not current; whatever depends on it was not examined",
            "run `insforge-realtime migrate` (with --dry-run first, to see what it would do)",
        )
    ]


async def _roles(connection: Connection, _: Config) -> list[Finding]:
    findings = [found for role in ROLES if (found := await _become(connection, role))]
    return findings or [Finding("ok", f"the server may act as {', '.join(ROLES)}")]


async def _become(connection: Connection, role: str) -> Finding | None:
    """What is in the way of SET ROLE. Tried for real: what counts as a membership differs between versions."""
    who = await connection.fetchrow(query("examine_who"))
    assert who is not None
    attempt = connection.transaction()
    await attempt.start()
    found = None
    try:
        await connection.execute(written_out("examine_become", f"'{role}'"))
    except asyncpg.InsufficientPrivilegeError:
        option = " WITH SET TRUE" if who["number"] >= 160000 else ""
        found = Finding("broken", f"the server may not act as {role}", f"GRANT {role} TO {who['quoted']}{option}")
    except asyncpg.InvalidParameterValueError:
        found = Finding("broken", f"the role {role} does not exist", f"CREATE ROLE {role} NOLOGIN; then migrate")
    # Not after other errors: a link that has gone silent would never answer.
    await attempt.rollback()
    return found


QUESTIONS = (
    Question("could not find out whether the schema is current", _schema, decisive=True),
    by_query("examine_owner", "row-level security hides nothing from the server"),
    by_query("examine_forced", "row-level security is not forced upon the owner"),
    by_query("examine_triggers", "the triggers and functions belong to the owner of realtime.messages"),
    Question("could not find out whether the server may act as the clients' roles", _roles),
    by_query("examine_powers", "the server's role can do no more than it needs"),
    by_query("examine_creators", "nobody else may create what the server would take for something else"),
    by_query("examine_grants", "the clients' roles have the grants that they need"),
    by_query(
        "examine_reads",
        "the clients' roles may read and call what the policies do (function bodies were not examined)",
    ),
    by_query("examine_secrets", "the clients' roles may not read webhook URLs"),
    by_query("examine_excess", "the clients' roles have no grants that policies do not restrain"),
    by_query("examine_members", "the clients' roles are subject to policies"),
)
