"""What keeps a client connected: carries out, with handshakes and timers, what reconnection.py decides.

What is sent over the connection is not its business. Its `state` is what programs see of the phases: `disconnected` is
idle, `connected` is online, and `connecting` is handshake and pause.

Every attempt is a handshake of its own with a fresh token. A token that changes cuts short whatever goes on: a handshake
with the old one, or a back-off. Where an event loop ends, nobody is told: the listeners went with it. A dead connection
that has not closed is found by the heartbeat: python-engineio ends it when nothing came for the server's `pingInterval` +
`pingTimeout`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from insforge_realtime.client.backoff import Backoff
from insforge_realtime.client.errors import LATER, ConnectError
from insforge_realtime.client.link import SERVER_DISCONNECT, Endpoint, Link
from insforge_realtime.client.reconnection import IDLE, STOP, Action, LinkEvent, step
from insforge_realtime.client.types import ConnectionState

log = logging.getLogger(__name__)

HELD_SECONDS = 1.0
"""A connection that lasted this long has held: it ends a row of failures."""

SENT_AWAY = "The server has disconnected this user, who stays away until connect() is called"


@dataclass(frozen=True, slots=True)
class Hooks:
    """What to call when.

    Args:
        opened: a connection has opened.
        ended: it has ended, and the reason.
        failed: an attempt failed.
        given_up: there will not be another, and why; before `failed` of the last.
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
        seconds: how long one attempt may take, and a first connect() in all.
        hooks: what to call.
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
        self._state = IDLE
        self.link: Link | None = None
        self._runner: asyncio.Task[None] | None = None
        self._settled: asyncio.Future[None] | None = None
        self._limit: asyncio.Timeout | None = None
        """Of what can be cut short, while something can."""
        self._renewed = False
        """The token has changed since the last handshake began."""
        self._give_up_at = 0.0
        self._opened_at = 0.0
        self.last_error: ConnectError | None = None
        """Why there is no connection; None while there is one, and when none was tried."""

    @property
    def state(self) -> ConnectionState:
        """`disconnected`, `connecting` (the first time, or again) or `connected`."""
        if self._state.phase == "online":
            return "connected"
        return "disconnected" if self._state.phase == "idle" else "connecting"

    async def open(self) -> None:
        """Wait until it is connected; see `RealtimeClient.connect`."""
        if self.state == "connected":
            return
        settled = self.start()
        try:
            # The first attempt has a limit of its own.
            async with asyncio.timeout(self._seconds if self._state.lasting else None):
                await asyncio.shield(settled)
        except TimeoutError:
            raise self.late() from None

    def late(self) -> ConnectError:
        """Return why there is no connection in time: the last attempt's error."""
        message = f"Not connected{' again' if self._state.lasting else ''} within {self._seconds:g} s"
        if self.last_error is None:
            return ConnectError("CONNECTION_FAILED", message)
        return ConnectError(self.last_error.code, f"{message}: {self.last_error.message}")

    def start(self) -> asyncio.Future[None]:
        """Begin to connect, unless that has begun. Return what is done with the connection, or has its error."""
        if self._runner is None:
            self.last_error = None
            self._give_up_at = time.monotonic() + self._seconds
            self._settled = _future()
            action = self._move(LinkEvent("connect"))
            self._runner = asyncio.create_task(self._run(action), name="insforge-realtime")
        assert self._settled is not None
        return self._settled

    async def close(self) -> None:
        """End it for good."""
        runner, self._runner = self._runner, None
        self.last_error = None
        if runner is None:
            return
        link, self.link = self.link, None
        self._move(LinkEvent("disconnect"))
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
        self._renewed = True
        if self.link is not None:
            self.link.drop("io client disconnect")
        elif self._runner is not None:
            # Its loop may have stopped for a while, where a program runs it by hand.
            self._runner.get_loop().call_soon_threadsafe(self._cut)

    def expired(self) -> None:
        """Connect anew: by the server's word the credentials have ended."""
        if self.link is not None:
            self._move(LinkEvent("expired"))
            self.link.drop()

    def forget(self) -> None:
        """Have no connection: the event loop in which there was one is no more."""
        self._state = IDLE
        self.last_error = None
        self.link = self._runner = self._settled = self._limit = None

    async def _run(self, action: Action | None) -> None:
        try:
            while action != STOP:
                action = await self._carry_out(action)
        except asyncio.CancelledError:
            if self._runner is asyncio.current_task():
                await self._loop_ends()  # it is not close() that cancels
            raise
        except Exception as error:
            await self._broken(error)

    async def _carry_out(self, action: Action | None) -> Action | None:
        """Do what was decided, until something happens; return what is decided then."""
        if action is None:
            return await self._keep()
        if action.do == "open":
            return await self._handshake()
        return await self._pause(self._backoff.after(action.failures))

    def _move(self, event: LinkEvent) -> Action | None:
        """Take a step. Listeners are told after it, so that they may call anything."""
        self._state, action = step(self._state, event)
        return action

    async def _broken(self, error: Exception) -> None:
        """Give up on a bug of ours, or of a library: nobody may wait for ever, and it must not pass unseen."""
        log.exception("the connection cannot be kept up")
        link, self.link = self.link, None
        self._give_up(ConnectError("CONNECTION_FAILED", f"The client failed: {type(error).__name__}; the log has more"))
        if link is not None:
            await link.close(polite=False)

    async def _loop_ends(self) -> None:
        """Go without a good-bye: the end of the loop has cancelled all tasks, the library's too; it would wait in vain."""
        link = self.link
        self.forget()
        if link is not None:
            await link.close(polite=False)

    async def _handshake(self) -> Action | None:
        """Try once. It is void where the token changes meanwhile, or the time of a first connect() is over."""
        self._renewed = False
        try:
            async with self._at_most(self._seconds_left()):
                link = await self._attempt()
        except TimeoutError:
            return self._cut_short()
        except ConnectError as error:
            return self._failed(error)
        if self._renewed:
            await link.close()
            return self._cut_short()
        return self._accepted(link)

    async def _pause(self, seconds: float) -> Action | None:
        """Sit out a back-off."""
        try:
            async with self._at_most(self._seconds_left()):
                await asyncio.sleep(seconds)
        except TimeoutError:
            return self._cut_short()
        return self._move(LinkEvent("due"))

    async def _keep(self) -> Action | None:
        """Be connected until it ends."""
        link = self.link
        assert link is not None
        reason = await link.ended()
        held = time.monotonic() - self._opened_at >= HELD_SECONDS
        await link.close()
        self.link = None
        self._settled = _future()
        if reason == SERVER_DISCONNECT:
            action = self._move(LinkEvent("ended"))
            self._stop(ConnectError("DISCONNECTED", SENT_AWAY))
        else:
            action = self._move(LinkEvent("token" if self._renewed else "lost", held=held))
        self._hooks.ended(reason)
        return action

    async def _attempt(self) -> Link:
        link = Link(self._endpoint, self._received)
        await link.open(self._credentials, self._seconds)
        return link

    def _accepted(self, link: Link) -> Action | None:
        self._opened_at = time.monotonic()
        self.last_error = None
        self.link = link
        action = self._move(LinkEvent("accepted"))
        self._hooks.opened(link)
        self._settle()
        return action

    def _failed(self, error: ConnectError) -> Action | None:
        self.last_error = error
        action = self._move(LinkEvent("failed", later=error.code in LATER))
        if action == STOP:
            self._give_up(error)
        self._hooks.failed(error)
        return action

    def _cut_short(self) -> Action | None:
        if self._renewed:
            return self._move(LinkEvent("token"))
        action = self._move(LinkEvent("giveUp"))
        assert self.last_error is not None  # else there is no limit
        self._give_up(self.last_error)
        return action

    def _give_up(self, error: ConnectError) -> None:
        self._stop(error)
        self._hooks.given_up(error)

    def _stop(self, error: ConnectError) -> None:
        """Try nothing more, and know why."""
        self._state = IDLE
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

    def _seconds_left(self) -> float | None:
        """Return the rest of a first connect()'s time, once there is an error to raise then; None for no limit."""
        if self._state.lasting or self.last_error is None:
            return None
        return self._give_up_at - time.monotonic()

    @contextlib.asynccontextmanager
    async def _at_most(self, seconds: float | None) -> AsyncIterator[None]:
        """Raise TimeoutError inside when the time is over, or the token changes."""
        try:
            async with asyncio.timeout(seconds) as self._limit:
                yield
        finally:
            self._limit = None

    def _cut(self) -> None:
        if self._renewed and self._limit is not None and not self._limit.expired():
            self._limit.reschedule(0)

    def _received(self, link: Link, name: str, data: Any) -> None:
        if link is self.link:  # else we have left that connection
            self._hooks.received(name, data)


def _future() -> asyncio.Future[None]:
    """Make one whose exception may stay unread: nobody has to wait for a connection."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return future
