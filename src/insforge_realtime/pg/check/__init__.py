"""What is wrong with a database and its configuration, or should be known, and what to do about it. For the command `check`.

    finding         what is found, and the questions that find it
    asking          a connection to ask on, limits, and failures that are findings themselves
    configuration   settings, without asking the database
    server          PostgreSQL itself, its settings and its clock
    listening       whether LISTEN works where the feed does it
    rights          whether the schema is current, who owns what, and who may be or do what
    contents        what is in the schema realtime

What lives here: the order. Nothing is changed: each question has a transaction of its own, with a time limit, that is rolled
back, and a question that fails stops no other. Passwords never get into a finding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from insforge_realtime.dsn import without_passwords
from insforge_realtime.pg.check import contents, listening, rights, server
from insforge_realtime.pg.check.asking import Asking, UnreachableError, place
from insforge_realtime.pg.check.configuration import look_at_configuration
from insforge_realtime.pg.check.finding import Finding

if TYPE_CHECKING:
    from insforge_realtime.config import Config

QUESTIONS = (*server.QUESTIONS, *listening.QUESTIONS, *rights.QUESTIONS, *contents.QUESTIONS)
"""In this order."""


async def examine(config: Config) -> list[Finding]:
    """Return what was found, in the order of the questions. Raises nothing that a finding can tell."""
    findings = look_at_configuration(config)
    asking = Asking(config)
    try:
        await asking.reach()
        findings.append(Finding("ok", f"the database {place(config.database_url)} can be reached"))
        for question in QUESTIONS:
            findings += (answers := await asking.ask(question))
            if question.decisive and any(found.verdict == "broken" for found in answers):
                break
    except UnreachableError as error:
        what = without_passwords(str(error), config.database_url, config.listen_url)
        findings.append(Finding("broken", what, error.advice))
    finally:
        await asking.leave()
    return findings
