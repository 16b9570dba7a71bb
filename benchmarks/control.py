"""A child's end of a `processes.Child`: commands as lines of JSON on stdin, an answer to each as a line on stdout.

Imports nothing of ours: a peer whose memory is measured imports this.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

Command = dict[str, Any]
"""`{"do": name, …}`."""
Answer = dict[str, Any]


async def lines() -> AsyncIterator[Any]:
    """Yield what comes on stdin, line by line, until it ends."""
    reader = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield json.loads(line)


def write(line: object) -> None:
    """Write one line to stdout, at once."""
    print(json.dumps(line), flush=True)


async def obey(do: Callable[[Command], Awaitable[Answer]], greeting: Answer) -> None:
    """Write the greeting, then do each command and write its answer, until stdin ends."""
    write(greeting)
    async for command in lines():
        write(await do(command))
