"""The loop that keeps a client connected. What is said over the connection is not its business.

The connection is in one of three states. A channel's states are in subscriptions.py.

                            DISCONNECTED          CONNECTING                            CONNECTED
    connect(), subscribe()  → CONNECTING          waits for the same connection         done
    the server says yes     -                     → CONNECTED; every channel is asked   -
                                                  for, then event `connect`
    an attempt fails, and   -                     event `connect_error`                 -
      there was none before                       → DISCONNECTED; connect() raises
      it is a later one                           again after back-off, without end
      it is UNAVAILABLE                           the same; where there was none before,
      or RATE_LIMITED                             only until connect() times out
    the connection ends     -                     -                                     → CONNECTING; event `disconnect`,
                                                                                        an attempt after back-off
    a DISCONNECT packet     -                     -                                     → DISCONNECTED; event `disconnect`:
                                                                                        the server has sent us away
    TOKEN_EXPIRED           -                     -                                     → CONNECTING; the same, at once
                                                                                        unless it had just begun
    set_access_token()      used next             an attempt with it, at once           → CONNECTING; the same, at once
    disconnect()            -                     → DISCONNECTED                        → DISCONNECTED; event `disconnect`
    the event loop ends     -                     → DISCONNECTED; nobody is told        the same

Every attempt is a handshake of its own with a token asked for anew. UNAUTHORIZED ends only the first connect(), like any
other failure: a program wants to hear that its address or token is wrong. Later on a function may have a better token next
time, a server that cannot tell good from bad for a while may have its keys back, and set_access_token is always possible.
The waits begin anew after a connection that lasted STEADY_SECONDS; a shorter one counts as a failure, so that a server which
lets in and throws out is not hammered. A dead connection that has not closed is found by the heartbeat: python-engineio
ends it when nothing came for the server's `pingInterval` + `pingTimeout`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from insforge_realtime.client.backoff import Backoff
from insforge_realtime.client.errors import ConnectError
from insforge_realtime.client.link import SERVER_DISCONNECT, Endpoint, Link
from insforge_realtime.client.types import ConnectionState

log = logging.getLogger(__name__)

STEADY_SECONDS = 1.0
"""A connection that lasted this long was a good one."""

NOT_A_NO = ("UNAVAILABLE", "RATE_LIMITED")
"""Codes after which the same is asked again: the server could not say, or not now."""


SENT_AWAY = "The server has disconnected this user, who stays away until connect() is called"


@dataclass(frozen=True, slots=True)
class Hooks:
    """Who is told of what.

    Args:
        opened: there is a connection.
        ended: there is none any more, and the reason.
        failed: an attempt failed.
        given_up: there will be no further one, and why; before `failed` of the last.
        received: an event came: its name and its data.
    """

    opened: Callable[[Link], None]
    ended: Callable[[str], None]
    failed: Callable[[ConnectError], None]
    given_up: Callable[[ConnectError], None]
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
        self._opened_at = 0.0
        self.last_error: ConnectError | None = None
        """Why there is no connection; None while there is one, and when none was tried."""

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
            raise self.late() from None

    def late(self) -> ConnectError:
        """Why there is no connection in time: what the last attempt said."""
        message = f"Not connected{' again' if self._was_open else ''} within {self._seconds:g} s"
        if self.last_error is None:
            return ConnectError("CONNECTION_FAILED", message)
        return ConnectError(self.last_error.code, f"{message}: {self.last_error.message}")

    def start(self) -> asyncio.Future[None]:
        """Begin to connect, unless that has begun. What it returns is done with the connection, or has its error."""
        if self._runner is None:
            self.state = "connecting"
            self._was_open = False
            self.last_error = None
            self._hurry = asyncio.Event()
            self._settled = _future()
            self._runner = asyncio.create_task(self._run(), name="insforge-realtime")
        assert self._settled is not None
        return self._settled

    async def close(self) -> None:
        """End it for good."""
        runner, self._runner = self._runner, None
        self.last_error = None
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
        """Connect anew, at once: the credentials have changed."""
        if self._hurry is not None:
            self._hurry.set()
        if self.link is not None:
            self.link.drop("io client disconnect")

    def expired(self) -> None:
        """Connect anew: the server says that the credentials have ended."""
        if self.link is None:
            return
        if self._hurry is not None and self._is_steady():
            self._hurry.set()
        self.link.drop()

    def forget(self) -> None:
        """There is no connection: the event loop in which there was one is no more."""
        self.state = "disconnected"
        self.last_error = None
        self.link = self._runner = self._settled = self._hurry = None

    async def _run(self) -> None:
        self._backoff.reset()
        try:
            link = await self._first()
            while link is not None:
                reason = await self._keep(link)
                link = None if reason == SERVER_DISCONNECT else await self._again()
        except asyncio.CancelledError:
            if self._runner is asyncio.current_task():
                await self._loop_ends()  # it is not close() that cancels
            raise
        except Exception as error:
            await self._broken(error)

    async def _broken(self, error: Exception) -> None:
        """A bug of ours, or of a library: nobody may wait for a connection for ever, and it must not pass unseen."""
        log.exception("the connection cannot be kept up")
        link, self.link = self.link, None
        self._give_up(ConnectError("CONNECTION_FAILED", f"The client failed: {type(error).__name__}; the log has more"))
        if link is not None:
            await link.close(polite=False)

    async def _loop_ends(self) -> None:
        """Who ends the event loop has cancelled all tasks, the library's too: a good-bye would wait for them in vain."""
        link = self.link
        self.forget()
        if link is not None:
            await link.close(polite=False)

    async def _first(self) -> Link | None:
        """A connection within the time that connect() has, or none: it is given up."""
        give_up_at = time.monotonic() + self._seconds
        refusal: ConnectError | None = None
        while refusal is None or time.monotonic() < give_up_at:
            try:
                return await self._attempt(give_up_at - time.monotonic())
            except ConnectError as error:
                if refusal is not None and time.monotonic() >= give_up_at:
                    break  # cut short: the answer is what was said before
                if error.code not in NOT_A_NO:
                    self._give_up(error)
                    self._hooks.failed(error)
                    return None
                refusal = self.last_error = error
            self._hooks.failed(refusal)
            await self._pause(give_up_at - time.monotonic())
        self._give_up(refusal)
        return None

    async def _again(self) -> Link:
        """Another connection, however long it takes."""
        while True:
            await self._pause()
            try:
                return await self._attempt(self._seconds)
            except ConnectError as error:
                self.last_error = error
                self._hooks.failed(error)

    async def _attempt(self, seconds: float) -> Link:
        """One handshake; what it brings is void if the token was changed meanwhile."""
        assert self._hurry is not None
        while True:
            self._hurry.clear()
            link = Link(self._endpoint, self._received)
            try:
                await link.open(self._credentials, seconds)
            except ConnectError:
                if not self._hurry.is_set():
                    raise
                continue
            if not self._hurry.is_set():
                return link
            await link.close()

    async def _keep(self, link: Link) -> str:
        """Be connected until it ends; why it has ended."""
        self._opened_at = time.monotonic()
        self.last_error = None
        self.link = link
        self.state = "connected"
        self._was_open = True
        self._hooks.opened(link)
        self._settle()
        reason = await link.ended()
        if self._is_steady():
            self._backoff.reset()
        self.link = None
        self.state = "connecting"
        self._settled = _future()
        if reason == SERVER_DISCONNECT:
            self._stop(ConnectError("DISCONNECTED", SENT_AWAY))
        self._hooks.ended(reason)
        return reason

    def _is_steady(self) -> bool:
        return time.monotonic() - self._opened_at >= STEADY_SECONDS

    def _give_up(self, error: ConnectError) -> None:
        self._stop(error)
        self._hooks.given_up(error)

    def _stop(self, error: ConnectError) -> None:
        """Nothing more is tried, and why."""
        self.state = "disconnected"
        self.last_error = error
        self._runner = None
        self._settle(error)

    def _settle(self, error: ConnectError | None = None) -> None:
        assert self._settled is not None
        if self._settled.done():
            return
        if error is None:
            self._settled.set_result(None)
        else:
            self._settled.set_exception(error)

    async def _pause(self, at_most: float = math.inf) -> None:
        """Wait a little, until there is a reason to try at once."""
        assert self._hurry is not None
        if self._hurry.is_set():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(self._backoff.next(), at_most)):
                await self._hurry.wait()

    def _received(self, link: Link, name: str, data: Any) -> None:
        if link is self.link:  # else we have left that connection
            self._hooks.received(name, data)


def _future() -> asyncio.Future[None]:
    """One whose exception may stay unread: nobody has to wait for a connection."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return future
