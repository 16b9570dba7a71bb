"""The other end of `processes.Child`, for the child: lines of JSON on stdin and stdout."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any


async def told() -> AsyncIterator[Any]:
    """What stdin says, line by line, to its end."""
    reader = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield json.loads(line)


def say(answer: object) -> None:
    """One line, at once."""
    print(json.dumps(answer), flush=True)
