"""The doctor: what is wrong with a database and its configuration, or left open, and what to do about it. For `check`.

What lives here: the order of the questions, and those that take more than one statement (who may be whom, LISTEN, clocks).
The others are queries named `examine_…` that return one row for each thing that is wrong.

The doctor changes nothing. Each question has a transaction of its own, with a time limit, that is rolled back; a question
that fails is a finding itself and stops no other. Passwords never get into a finding.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg

from insforge_realtime.pg.database import LINK_ERRORS, Database, describe
from insforge_realtime.pg.migrate import OLDEST_VERSION, is_current
from insforge_realtime.pg.probes import probe_auth_uid
from insforge_realtime.pg.queries import query, written_out
from insforge_realtime.typos import unknown_variables

if TYPE_CHECKING:
    from insforge_realtime.config import Config
    from insforge_realtime.pg.database import Connection

Verdict = Literal["ok", "open", "broken"]

ROLES = ("anon", "authenticated", "project_admin")
QUESTION_SECONDS = 8.0
"""A little more than PostgreSQL itself gives a statement (`examine_limits`): this limit is for dead links."""
RING_SECONDS = 2.0
SKEW_SECONDS = 5.0
USE_LISTEN_URL = "set REALTIME_LISTEN_URL to a direct connection to the database, without a pooler that shares sessions"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Args:
        verdict: `ok`; `open`, which works but should be known; `broken`, which does not work.
        what: what was found.
        advice: what to do about it, or None.
    """

    verdict: Verdict
    what: str
    advice: str | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """Something to look at: `what` names it where looking fails, `ask` looks. Where the answer to a `decisive` one is bad,
    the rest is not looked at: it would all be bad for that reason."""

    what: str
    ask: Callable[[Connection, Config], Awaitable[list[Finding]]]
    in_transaction: bool = True
    decisive: bool = False


async def examine(config: Config) -> list[Finding]:
    """Look at everything. Never raises for what it finds."""
    findings = [_credentials(config), *_typos()]
    patient = _Patient(config)
    try:
        await patient.reach()
        findings.append(Finding("ok", f"the database {_place(config.database_url)} can be reached"))
        for question in QUESTIONS:
            findings += (answers := await patient.ask(question))
            if question.decisive and any(found.verdict == "broken" for found in answers):
                break
    except _UnreachableError as error:
        findings.append(Finding("broken", _discreet(str(error), config), error.advice))
    finally:
        await patient.leave()
    return findings


# ---- asking ------------------------------------------------------------------------------------------------


class _UnreachableError(Exception):
    def __init__(self, what: str, advice: str) -> None:
        super().__init__(what)
        self.advice = advice


class _Patient:
    """A connection to the database to be examined, and a new one where that is lost."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._connection: Connection | None = None

    async def reach(self) -> Connection:
        """The connection."""
        if self._connection is None or self._connection.is_closed():
            self._connection = await _reach(self._config)
        return self._connection

    async def leave(self) -> None:
        """Close it, quickly where closing politely does not work."""
        if self._connection is not None:
            with suppress(*LINK_ERRORS):
                await self._connection.close(timeout=1.0)

    async def ask(self, question: Question) -> list[Finding]:
        """The answer to one question. That it failed is an answer too."""
        connection = await self.reach()
        try:
            async with asyncio.timeout(QUESTION_SECONDS):
                if question.in_transaction:
                    return await _in_transaction(connection, question, self._config)
                return await question.ask(connection, self._config)
        except TimeoutError:
            connection.terminate()
            return [Finding("broken", f"{question.what}: the database does not answer")]
        except Exception as error:
            return [Finding("broken", _discreet(f"{question.what}: {describe(error)}", self._config))]


async def _reach(config: Config) -> Connection:
    if config.database_url is None:
        advice = "set DATABASE_URL to postgresql://user:password@host:port/name"
        raise _UnreachableError("no database is configured", advice)
    try:
        # As if pooled, always: a pooler in the way should be named by its finding, not by errors in all the others.
        return await Database(config.database_url).connect("check", pooled=True, search_path="pg_catalog, pg_temp")
    except Exception as error:
        raise _UnreachableError(
            f"the database {_place(config.database_url)} cannot be reached: {describe(error)}",
            "check DATABASE_URL, and that PostgreSQL runs",
        ) from error


async def _in_transaction(connection: Connection, question: Question, config: Config) -> list[Finding]:
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(query("examine_limits"))
        return await question.ask(connection, config)
    finally:
        with suppress(*LINK_ERRORS):
            async with asyncio.timeout(1.0):
                await transaction.rollback()


def by_query(name: str, fine: str, *, decisive: bool = False) -> Question:
    """A question that one query answers: with what is wrong, or with nothing, and then all is `fine`."""

    async def ask(connection: Connection, _: Config) -> list[Finding]:
        rows = await connection.fetch(query(name))
        return [Finding(row["verdict"], row["what"], row["advice"]) for row in rows] or [Finding("ok", fine)]

    return Question(f"could not find out whether {fine}", ask, decisive=decisive)


def _place(url: str | None) -> str:
    """A database's address without its password."""
    try:
        parts = urlsplit(url or "")
        return f"{parts.hostname or 'localhost'}:{parts.port or 5432}{parts.path}"
    except ValueError:
        return "of DATABASE_URL"


def _discreet(text: str, config: Config) -> str:
    """A text without the passwords of the configured addresses: drivers quote what they cannot read."""
    for url in (config.database_url, config.listen_url):
        for password in _passwords(url or ""):
            text = text.replace(password, "…")
    return text


def _passwords(url: str) -> list[str]:
    found = [url.partition("://")[2].rpartition("@")[0].partition(":")[2]]  # as written, however malformed the rest is
    with suppress(ValueError):
        parts = urlsplit(url)
        found += [parts.password or "", *parse_qs(parts.query).get("password", [])]
    return sorted({*found, *map(unquote, found)} - {""}, key=len, reverse=True)


# ---- the configuration -------------------------------------------------------------------------------------


def _credentials(config: Config) -> Finding:
    ways = {
        "REALTIME_JWT_SECRET": config.jwt_secret,
        "REALTIME_JWKS_URL": config.jwks_url,
        "REALTIME_ANON_KEY": config.anon_key,
        "REALTIME_API_KEY": config.api_key,
        "REALTIME_ALLOW_ANONYMOUS": config.allow_anonymous or None,
    }
    used = [name for name, value in ways.items() if value is not None]
    if config.verifies_tokens:
        return Finding("ok", f"clients are let in by {', '.join(used)}")
    return Finding(
        "broken",
        "there is no way to verify tokens: `serve` refuses to start",
        "set REALTIME_JWT_SECRET or REALTIME_JWKS_URL",
    )


def _typos() -> list[Finding]:
    return [
        Finding(
            "open",
            f"{unknown.name} is set, and there is no such setting: it does nothing",
            f"did you mean {unknown.nearest}?" if unknown.nearest else "take it away, if it was meant for this server",
        )
        for unknown in unknown_variables()
    ]


# ---- questions of more than one statement ------------------------------------------------------------------


async def _version(connection: Connection, _: Config) -> list[Finding]:
    who = await connection.fetchrow(query("examine_who"))
    assert who is not None
    if who["number"] < OLDEST_VERSION * 10000:
        return [Finding("broken", f"PostgreSQL {who['version']} is too old", f"upgrade to {OLDEST_VERSION} or newer")]
    return [Finding("ok", f"PostgreSQL {who['version']}, as the user {who['me']}")]


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
            "the schema is not current; whatever depends on it was not looked at",
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


async def _clocks(connection: Connection, _: Config) -> list[Finding]:
    """Of three measurements, the one with the shortest round trip."""
    skew = min([await _skew(connection) for _ in range(3)])[1]
    if abs(skew) <= SKEW_SECONDS:
        return [Finding("ok", "the clocks of this machine and of the database agree")]
    direction = "ahead of" if skew > 0 else "behind"
    return [
        Finding(
            "open",
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


async def _listening(patient: Connection, config: Config) -> list[Finding]:
    """Listen just as the feed does; ring on the other connection, which shows too that both lead to the same database."""
    way = Database(config.database(), config.listen_url).direct
    try:
        async with way.connected("check", pooled=True) as listener:
            if not (await _rings(patient, listener) and await _keeps_its_session(way, listener)):
                return [_deaf(config, "notifications do not arrive, or sessions are shared")]
    except (*LINK_ERRORS, ValueError) as error:
        return [_deaf(config, _discreet(describe(error), config))]
    return [Finding("ok", "LISTEN works: notifications arrive, and the session lasts")]


def _deaf(config: Config, why: str) -> Finding:
    if config.listen_url is None:
        return Finding("broken", f"DATABASE_URL cannot be used to LISTEN (a pooler?): {why}", USE_LISTEN_URL)
    return Finding(
        "broken",
        f"REALTIME_LISTEN_URL ({_place(config.listen_url)}) cannot be used to LISTEN: {why}",
        "it must be a direct connection, without a pooler, to the same database as DATABASE_URL",
    )


async def _rings(ringer: Connection, listener: Connection) -> bool:
    heard = asyncio.Event()
    channel = f"realtime_check_{secrets.token_hex(8)}"
    await listener.add_listener(channel, lambda *_: heard.set())
    await ringer.execute(written_out("examine_ring", f"'{channel}'"))
    try:
        async with asyncio.timeout(RING_SECONDS):
            await heard.wait()
    except TimeoutError:
        return False
    return True


async def _keeps_its_session(way: Database, listener: Connection) -> bool:
    """Whether a second connection, busy in a transaction, neither is the first one nor takes its place."""
    token = secrets.token_hex(8)
    await listener.fetchval(query("examine_remember"), token)
    backend = await listener.fetchval(query("examine_backend"))
    async with way.connected("check", pooled=True) as other:
        await other.transaction().start()  # ends with the connection
        shared = await other.fetchval(query("examine_backend")) == backend
        same = await listener.fetchval(query("examine_backend")) == backend
        remembers = await listener.fetchval(query("examine_recall"), token)
    return same and bool(remembers) and not shared


async def _identity(connection: Connection, _: Config) -> list[Finding]:
    """An auth.uid() of another server's may not know every kind of token. It is not ours to replace."""
    wrong = await probe_auth_uid(connection)
    if wrong is None:
        return [Finding("ok", "auth.uid() knows every kind of token")]
    what, _comma, advice = " ".join(wrong.split()).rpartition("; ")
    return [Finding("open", what, advice)]


QUESTIONS = (
    Question("could not find out the server's version", _version),
    by_query("examine_encoding", "the database is encoded in UTF8", decisive=True),
    by_query("examine_standby", "the database is no standby", decisive=True),
    by_query("examine_settings", "no setting of the role or the database is in the way"),
    Question("could not compare the clocks", _clocks),
    Question("could not find out whether LISTEN works", _listening, in_transaction=False),
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
        "the clients' roles may read and call what the policies do (not looked into: functions' bodies)",
    ),
    by_query("examine_secrets", "the clients' roles may not read webhook URLs"),
    by_query("examine_excess", "the clients' roles have no grants that policies do not restrain"),
    by_query("examine_members", "the clients' roles are subject to policies"),
    Question("could not find out whether auth.uid() knows every kind of token", _identity),
    by_query("examine_rls", "row-level security is on for both tables"),
    by_query("examine_policies", "there are policies by which clients may subscribe and publish"),
    by_query("examine_admin_policy", "the API key's role is let in by project_admin_policy"),
    by_query("examine_channels", "at least one channel is enabled"),
    by_query("examine_patterns", "all channel patterns can be read"),
    by_query("examine_webhooks", "webhooks can be queued, and their URLs can be read"),
    by_query("examine_immutable", "no function that policies call is wrongly IMMUTABLE"),
    by_query("examine_future", "no row comes from another cluster's future"),
    by_query("examine_undeliverable", "every message of the last day could be delivered"),
    by_query("examine_subscriptions", "no subscription writes to realtime.messages"),
    by_query("examine_two_phase", "the feed may be rung"),
    by_query("examine_notifiers", "no other server's trigger notifies for every row"),
)
"""In this order."""
