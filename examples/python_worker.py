"""A worker that hears of every change of an order: SQL publishes, a policy decides who hears it, this program acts.

    pip install '.[client]'                            # in a checkout
    REALTIME_URL=http://127.0.0.1:7130 REALTIME_TOKEN=… python python_worker.py order:0de40000-0000-4000-8000-000000000001

It runs until SIGINT or SIGTERM, through restarts of the server. There is no replay: read what must not be missed from the
database, here in `catch_up`, each time the subscription is confirmed: the first time, and after each reconnect.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from insforge_realtime.client import ClientError, ConnectError, ErrorInfo, Message, Subscribed, create_client


async def fresh_token() -> str:
    """Return a token for a handshake. A real worker gets it from its identity provider, so that it is never stale."""
    return os.environ["REALTIME_TOKEN"]


state = asyncio.Lock()
"""Guards what this program knows: a message that arrives during a read may be newer, and waits its turn."""


async def catch_up(news: Subscribed) -> None:
    async with state:
        print(f"subscribed{' again' if news.renewed else ''}: time to read what was missed", flush=True)


async def handle(message: Message) -> None:
    async with state:
        print(f"{message.event}: order {message['id']} is {message['status']}", flush=True)


def report(error: ErrorInfo) -> None:
    print(f"{error.channel}: {error.message} ({error.code})", file=sys.stderr, flush=True)


def report_failure(error: ConnectError) -> None:
    print(f"cannot connect: {error}", file=sys.stderr, flush=True)


async def work(channel: str) -> None:
    url = os.environ.get("REALTIME_URL", "http://127.0.0.1:7130")
    async with create_client(url, access_token=fresh_token) as client:
        client.on("disconnect", lambda reason: print(f"disconnected: {reason}", flush=True))
        client.on("connect_error", report_failure)
        client.on("error", report)

        # A signal ends the stream, and so the loop, after the message that is being handled.
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, lambda: asyncio.run_coroutine_threadsafe(client.unsubscribe(channel), loop))
        events = ["INSERT_order", "UPDATE_order"]
        async for message in client.stream(channel, events=events, on_subscribed=catch_up):
            await handle(message)


if __name__ == "__main__":
    try:
        asyncio.run(work(sys.argv[1]))
    except ClientError as error:
        sys.exit(f"gave up: {error}")
