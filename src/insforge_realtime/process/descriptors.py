"""File descriptors: every socket is one, and a process may have so many.

What lives here: that the process may have as many as it is allowed to, and that the log says when they are used up. What
happens then is elsewhere: libuv accepts a connection, closes it at once, and goes on as soon as there are free ones; links
to the database are tried again; webhooks wait (webhooks/sender.py).
"""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import time

import structlog

LOOK_SECONDS = 1.0
REMIND_SECONDS = 60.0
"""How often the log says that they are used up, where that comes and goes."""

log = structlog.get_logger("insforge_realtime")


def raise_limit() -> int:
    """Raise this process's limit to what it may be, and return it.

    The soft one is 1 024 in most places, for the sake of programs that use select().
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):  # some systems grant nobody as many as they promise
        return soft
    return hard


async def watch() -> None:
    """Log when they are used up, and when that is over, until cancelled."""
    used_up: float | None = None
    told = -REMIND_SECONDS
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        now = time.monotonic()
        if _are_used_up():
            if used_up is None and now - told >= REMIND_SECONDS:
                told = now
                log.error("out of file descriptors", limit=_limit(), advice=_ADVICE)
            used_up = used_up or now
        elif used_up is not None:
            log.warning("file descriptors are free again", seconds=round(now - used_up, 1))
            used_up = None


_ADVICE = (
    "new connections are closed until others end: raise the limit (`ulimit -n`, LimitNOFILE=), or set "
    "REALTIME_MAX_CONNECTIONS below it"
)


def _are_used_up() -> bool:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno in (errno.EMFILE, errno.ENFILE)
    return False


def _limit() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
