"""`python -m benchmarks.attacks.attacker NAME PORT`: print `{}` and attack until something comes on stdin; then print what
was counted. Both are lines of JSON. It lets everybody else go first, as an attacker on another machine would.
"""

from __future__ import annotations

import asyncio
import os
import sys

from benchmarks.attacks import members, strangers
from benchmarks.control import lines, write
from benchmarks.machine import many_files


async def main(name: str, port: int) -> None:
    attack = asyncio.create_task(getattr(strangers if hasattr(strangers, name) else members, name)(port))
    write({})
    async for _ in lines():
        break
    if attack.done():
        await attack  # it failed: raise why
    write(dict(members.COUNTS))
    os._exit(0)  # thousands of sockets, all at once


if __name__ == "__main__":
    many_files()
    os.nice(10)
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
