"""The cheapest receiver of webhooks there is: it finds the end of each request, keeps the message's id, and answers 204.

`python -m benchmarks.load.webhook_receiver`; its first line is `{"ports": […]}`. Commands (control.py):

    {"do": "mark"}                               forget what has come so far
    {"do": "wait", "requests": n, "seconds": s}   until so many have come
"""

from __future__ import annotations

import asyncio
import re
import time
from typing import cast

import uvloop

from benchmarks.control import Answer, Command, obey
from benchmarks.timing import until

PORTS = 8
ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_ID = re.compile(rb"\r\nx-insforge-message-id: *([^\r]*)", re.IGNORECASE)

ids: list[bytes] = []
"""Of the messages, in the order of their arrival."""
last = 0.0
"""When the last one came."""


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
    await obey(do, {"ports": [server.sockets[0].getsockname()[1] for server in servers]})


async def do(command: Command) -> Answer:
    if command["do"] == "mark":
        ids.clear()
        return {}
    await until(lambda: len(ids) >= command["requests"], command["seconds"], 0.01)
    return {"requests": len(ids), "distinct": len(set(ids)), "last": last}


if __name__ == "__main__":
    uvloop.run(main())
