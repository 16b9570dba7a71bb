"""The loop that keeps a client connected. What is said over the connection is not its business.

The connection is in one of three states. A channel's states are in subscriptions.py.

                            DISCONNECTED          CONNECTING                            CONNECTED
    connect(), subscribe()  → CONNECTING          waits for the same connection         done
    the server says yes     -                     → CONNECTED; every channel is asked   -
                                                  for, then event `connect`
    an attempt fails        -                     event `connect_error`. The first:     -
                                                  → DISCONNECTED, connect() raises.
                                                  A later one: again after back-off,
                                                  without end
    it fails UNAVAILABLE    -                     the same, but the first too is tried  -
      or RATE_LIMITED                             again, until connect() times out
    the connection ends     -                     -                                     → CONNECTING; event `disconnect`,
                                                                                        an attempt after back-off
    TOKEN_EXPIRED           -                     -                                     → CONNECTING; the same, at once
    set_access_token()      used next             used in the next attempt, at once     → CONNECTING; the same, at once
    disconnect()            -                     → DISCONNECTED                        → DISCONNECTED; event `disconnect`

Every attempt is a handshake of its own with a token asked for anew. "At once" holds for a connection that lasted
STEADY_SECONDS; a shorter one counts as a failure, so that a server which lets in and throws out is not hammered. A dead
connection that has not closed is found by the heartbeat: python-engineio ends it when nothing came for the server's
`pingInterval` + `pingTimeout`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from insforge_realtime.client.backoff import Backoff
from insforge_realtime.client.errors import ConnectError
from insforge_realtime.client.link import Endpoint, Link
from insforge_realtime.client.types import ConnectionState

STEADY_SECONDS = 1.0
"""A connection that lasted this long was a good one."""

NOT_A_NO = ("UNAVAILABLE", "RATE_LIMITED")
"""Codes after which the same is asked again: the server could not say, or not now."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """Who is told of what.

    Args:
        opened: there is a connection.
        ended: there is none any more, and the reason.
        failed: an attempt failed, and whether there will be no further one.
        received: an event came: its name and its data.
    """

    opened: Callable[[Link], None]
    ended: Callable[[str], None]
    failed: Callable[[ConnectError, bool], None]
    received: Callable[[str, Any], None]


class Connection:
    """The connection of one client.

    Args:
        endpoint: where to.
        credentials: makes the data of a CONNECT packet, anew for each attempt; what it raises is a failed attempt.
        backoff: the waits between two attempts.
        seconds: how long one attempt may take.
        hooks: who is told.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        credentials: Callable[[], Awaitable[dict[str, str]]],
        backoff: Backoff,
        seconds: float,
        hooks: Hooks,
    ) -> None:
        self._endpoint = endpoint
        self._credentials = credentials
        self._backoff = backoff
        self._seconds = seconds
        self._hooks = hooks
        self.state: ConnectionState = "disconnected"
        self.link: Link | None = None
        self._runner: asyncio.Task[None] | None = None
        self._settled: asyncio.Future[None] | None = None
        self._hurry: asyncio.Event | None = None
        self._was_open = False

    async def open(self) -> None:
        """Wait until it is connected; see `RealtimeClient.connect`."""
        if self.state == "connected":
            return
        settled = self.start()
        try:
            # The first attempt has a limit of its own.
            async with asyncio.timeout(self._seconds if self._was_open else None):
                await asyncio.shield(settled)
        except TimeoutError:
            raise ConnectError("CONNECTION_FAILED", f"Not connected again within {self._seconds:g} s") from None

    def start(self) -> asyncio.Future[None]:
        """Begin to connect, unless that has begun. What it returns is done with the connection, or has its error."""
        if self._runner is None:
            self.state = "connecting"
            self._was_open = False
            self._hurry = asyncio.Event()
            self._settled = _future()
            self._runner = asyncio.create_task(self._run(), name="insforge-realtime")
        assert self._settled is not None
        return self._settled

    async def close(self) -> None:
        """End it for good."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        link, self.link = self.link, None
        self.state = "disconnected"
        self._settle(ConnectError("DISCONNECTED", "Disconnected"))
        runner.cancel()
        if link is not None:
            self._hooks.ended("io client disconnect")
        try:
            if runner is not asyncio.current_task():
                await asyncio.wait({runner})
        finally:
            if link is not None:
                await link.close()

    def renew(self) -> None:
        """Connect anew, at once: the credentials have changed, or have expired."""
        if self._hurry is not None:
            self._hurry.set()
        if self.link is not None:
            self.link.drop()

    async def _run(self) -> None:
        give_up_at = time.monotonic() + self._seconds
        self._backoff.reset()
        while True:
            try:
                link = await self._attempt()
            except ConnectError as error:
                if not self._was_open and (error.code not in NOT_A_NO or time.monotonic() > give_up_at):
                    self._give_up(error)
                    return
                self._hooks.failed(error, False)
                await self._pause(hurry=True)
                continue
            steady = await self._keep(link)
            if steady:
                self._backoff.reset()
            await self._pause(hurry=steady)

    async def _attempt(self) -> Link:
        """One handshake."""
        assert self._hurry is not None
        while True:
            self._hurry.clear()
            link = Link(self._endpoint, self._received)
            await link.open(self._credentials, self._seconds)
            if not self._hurry.is_set():
                return link
            await link.close()  # the token was changed meanwhile

    async def _keep(self, link: Link) -> bool:
        """Be connected until it ends. Whether it was a good one."""
        began = time.monotonic()
        self.link = link
        self.state = "connected"
        self._was_open = True
        self._hooks.opened(link)
        self._settle()
        reason = await link.ended()
        self.link = None
        self.state = "connecting"
        self._settled = _future()
        self._hooks.ended(reason)
        return time.monotonic() - began >= STEADY_SECONDS

    def _give_up(self, error: ConnectError) -> None:
        self.state = "disconnected"
        self._runner = None
        self._settle(error)
        self._hooks.failed(error, True)

    def _settle(self, error: ConnectError | None = None) -> None:
        assert self._settled is not None
        if self._settled.done():
            return
        if error is None:
            self._settled.set_result(None)
        else:
            self._settled.set_exception(error)

    async def _pause(self, *, hurry: bool) -> None:
        """Wait a little; with `hurry`, only until there is a reason to try at once."""
        assert self._hurry is not None
        seconds = self._backoff.next()
        if not hurry:
            await asyncio.sleep(seconds)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurry.wait()

    def _received(self, link: Link, name: str, data: Any) -> None:
        if link is self.link:  # else we have left that connection
            self._hooks.received(name, data)


def _future() -> asyncio.Future[None]:
    """One whose exception may stay unread: nobody has to wait for a connection."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return future
