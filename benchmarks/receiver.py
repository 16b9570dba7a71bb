"""The cheapest receiver of webhooks there is: it finds the end of each request, keeps the message's id, and says 204.

Speaks lines of JSON: says `{"ports": […]}` first, then answers `{"do": "mark"}`, and with what has come since the mark
`{"do": "wait", "requests": n, "seconds": s}`.
"""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any, cast

import uvloop

from benchmarks.lines import say, told

PORTS = 8
ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_ID = re.compile(rb"\r\nx-insforge-message-id: *([^\r]*)", re.IGNORECASE)

ids: list[bytes] = []
last = 0.0


class Receiver(asyncio.Protocol):
    def __init__(self) -> None:
        self._unread = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        global last
        self._unread += data
        while (end := self._unread.find(b"\r\n\r\n")) >= 0:
            head = self._unread[:end]
            length, name = _LENGTH.search(head), _ID.search(head)
            assert length is not None
            assert name is not None
            whole = end + 4 + int(length[1])
            if len(self._unread) < whole:
                return
            self._unread = self._unread[whole:]
            ids.append(name[1])
            last = time.monotonic()
            self._transport.write(ANSWER)


async def main() -> None:
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(Receiver, "127.0.0.1", 0, backlog=1024) for _ in range(PORTS)]
    say({"ports": [server.sockets[0].getsockname()[1] for server in servers]})
    async for command in told():
        say(await obey(command))


async def obey(command: dict[str, Any]) -> dict[str, float]:
    if command["do"] == "mark":
        ids.clear()
        return {}
    deadline = time.monotonic() + command["seconds"]
    while len(ids) < command["requests"] and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    return {"requests": len(ids), "distinct": len(set(ids)), "last": last}


if __name__ == "__main__":
    uvloop.run(main())
