"""The connection that questions are asked on: opened again where it is lost, and never waited for long."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from insforge_realtime.dsn import parse, without_passwords
from insforge_realtime.errors import ConfigError
from insforge_realtime.pg.check.finding import Finding, Question
from insforge_realtime.pg.database import LINK_ERRORS, Database, describe
from insforge_realtime.pg.queries import query

if TYPE_CHECKING:
    from insforge_realtime.config import Config
    from insforge_realtime.pg.database import Connection

QUESTION_SECONDS = 8.0
"""A little more than PostgreSQL itself gives a statement (`examine_limits`): this limit is for dead links."""


class UnreachableError(Exception):
    """There is no database to ask; `advice` says what to do."""

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(what)
        self.advice = advice


def place(url: str | None) -> str:
    """Return where a database is, and its name."""
    try:
        return parse(url or "").place
    except ConfigError:
        return "of DATABASE_URL"


class Asking:
    """A connection to the database to be examined, and a new one where that is lost."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._connection: Connection | None = None

    async def reach(self) -> Connection:
        """Return the connection.

        Raises:
            UnreachableError: there can be none.
        """
        if self._connection is None or self._connection.is_closed():
            self._connection = await _reach(self._config)
        return self._connection

    async def leave(self) -> None:
        """Close it, quickly where closing politely does not work."""
        if self._connection is not None:
            with suppress(*LINK_ERRORS):
                await self._connection.close(timeout=1.0)

    async def ask(self, question: Question) -> list[Finding]:
        """Return the answer to one question. That it failed is an answer too."""
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
            return [Finding("broken", self._told(f"{question.what}: {describe(error)}"))]

    def _told(self, text: str) -> str:
        return without_passwords(text, self._config.database_url, self._config.listen_url)


async def _reach(config: Config) -> Connection:
    if config.database_url is None:
        advice = "set DATABASE_URL to postgresql://user:password@host:port/name"
        raise UnreachableError("no database is configured", advice)
    try:
        # As if pooled, always: a pooler in the way should be named by its finding, not by errors in all the others.
        return await Database(config.database_url).connect("check", pooled=True, search_path="pg_catalog, pg_temp")
    except Exception as error:
        raise UnreachableError(
            f"the database {place(config.database_url)} cannot be reached: {describe(error)}",
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
