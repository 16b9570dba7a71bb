"""Attacks by users who are let in, and by the receiver of a webhook."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter

from benchmarks.load.clients import WebSocketClient
from benchmarks.load.identities import token_of, user
from benchmarks.load.wire import GONE

ROOM = 1000
COUNTS: Counter[str] = Counter()
"""What an attack got done, for its report."""


class CountingClient(WebSocketClient):
    """A client that counts what it gets."""

    def data_received(self, data: bytes) -> None:
        COUNTS["bytes"] += len(data)
        super().data_received(data)


async def slow_policy(port: int) -> None:
    """One user with a hundred sockets, each of which has a policy of 0.3 s decide again and again."""
    token = token_of(user(1))

    async def ask(number: int) -> None:
        client = await WebSocketClient.connect(port, token)
        while True:
            answer = await client.call("realtime:subscribe", {"channel": f"slow-{number}"})
            COUNTS["answers"] += 1
            COUNTS["refused"] += not answer["ok"]
            client.send(f'42["realtime:unsubscribe",{{"channel":"slow-{number}"}}]')
            await asyncio.sleep(0.001)

    await asyncio.gather(*map(ask, range(100)))


async def fifty_sockets(port: int) -> None:
    """One user that publishes as fast as 50 sockets may."""
    token, channel = token_of(user(1)), "open-room"

    async def publish() -> None:
        client = await WebSocketClient.connect(port, token)
        await client.subscribe(channel)
        while True:
            answer = await client.call("realtime:publish", {"channel": channel, "event": "tick", "payload": {}})
            COUNTS["accepted" if answer["ok"] else "refused"] += 1
            await asyncio.sleep(0 if answer["ok"] else 0.002)

    await asyncio.gather(*[publish() for _ in range(50)])


async def restless(port: int) -> None:
    """A member that joins and leaves as often as a user may, in a room of a thousand sockets."""
    for number in range(ROOM):
        member = await CountingClient.connect(port, token_of(user(2 + number % 10)))
        await member.subscribe("bench-crowd")
    client = await WebSocketClient.connect(port, token_of(user(1)))
    await asyncio.sleep(1.0)  # until all have heard of all
    COUNTS.clear()
    while True:
        answer = await client.call("realtime:subscribe", {"channel": "bench-crowd"})
        COUNTS["joins"] += answer["ok"]
        client.send('42["realtime:unsubscribe",{"channel":"bench-crowd"}]')
        await asyncio.sleep(0.02)


async def endless_103(port: int) -> None:
    """A webhook's receiver that answers 103 for ever; `port` is its own."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        COUNTS["requests"] += 1
        with contextlib.suppress(*GONE):
            await reader.readuntil(b"\r\n\r\n")
            while True:
                writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000)
                await writer.drain()

    server = await asyncio.start_server(answer, "127.0.0.1", port)
    await server.serve_forever()
