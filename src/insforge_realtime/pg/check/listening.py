"""Whether LISTEN works where the feed does it: notifications arrive, and the session is nobody else's."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

from insforge_realtime.dsn import without_passwords
from insforge_realtime.pg.check.asking import place
from insforge_realtime.pg.check.finding import Finding, Question
from insforge_realtime.pg.database import LINK_ERRORS, Database, describe
from insforge_realtime.pg.queries import query, written_out

if TYPE_CHECKING:
    from insforge_realtime.config import Config
    from insforge_realtime.pg.database import Connection

RING_SECONDS = 2.0
USE_LISTEN_URL = "set REALTIME_LISTEN_URL to a direct connection to the database, without a pooler that shares sessions"


async def _listening(asking: Connection, config: Config) -> list[Finding]:
    """Listen just as the feed does; ring on the other connection, which shows too that both lead to the same database."""
    way = Database(config.database(), config.listen_url).direct
    try:
        async with way.connected("check", pooled=True) as listener:
            if not (await _rings(asking, listener) and await _keeps_its_session(way, listener)):
                return [_deaf(config, "notifications do not arrive, or sessions are shared")]
    except (*LINK_ERRORS, ValueError) as error:
        return [_deaf(config, without_passwords(describe(error), config.database_url, config.listen_url))]
    return [Finding("ok", "LISTEN works: notifications arrive, and the session lasts")]


def _deaf(config: Config, why: str) -> Finding:
    if config.listen_url is None:
        return Finding("broken", f"DATABASE_URL cannot be used to LISTEN (a pooler?): {why}", USE_LISTEN_URL)
    return Finding(
        "broken",
        f"REALTIME_LISTEN_URL ({place(config.listen_url)}) cannot be used to LISTEN: {why}",
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


QUESTIONS = (Question("could not find out whether LISTEN works", _listening, in_transaction=False),)
