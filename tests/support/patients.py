"""Databases to be checked, and what is found in them."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from insforge_realtime.config import Config
from insforge_realtime.pg.check import examine
from insforge_realtime.pg.check.finding import Finding
from support.servers import SECRET


class Plain(NamedTuple):
    """A database that belongs to a role that is no superuser."""

    url: str
    admin_url: str
    role: str


def name_of(url: str) -> str:
    return url.rsplit("/", 1)[1]


def as_user(url: str, user: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{user}:secret@{parts.hostname}:{parts.port}"))


def configuration(url: str | None, **settings: object) -> Config:
    return Config(**{"database_url": url, "jwt_secret": SECRET, **settings})  # type: ignore[arg-type]


async def run(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


async def heed(url: str, advice: str | None) -> None:
    """Do what is advised, as psql does: a statement at a time."""
    connection = await asyncpg.connect(url)
    try:
        for statement in str(advice).split("; "):
            await connection.execute(statement)
    finally:
        await connection.close()


async def troubles(url: str | None, **settings: object) -> list[Finding]:
    findings = await examine(configuration(url, **settings))
    for finding in findings:
        assert "\n" not in finding.what + (finding.advice or "")
    return [finding for finding in findings if finding.verdict != "ok"]


async def the_trouble(url: str | None, **settings: object) -> Finding:
    [finding] = await troubles(url, **settings)
    return finding
