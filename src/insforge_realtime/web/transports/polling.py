"""HTTP long-polling: the transport of clients that cannot use a WebSocket, or not yet.

    GET  without sid   a handshake: a new session, and its open packet
    GET  with sid      waits until there are packets, and answers with some or all of them
    POST with sid      brings packets

What lives here: one session. Which session a request is for, and whether it may begin one, is polling_endpoint.py's.

One GET and one POST at a time for each session: a second one closes it, because nobody could tell the order of the packets.
A body is not read further than `maxPayload`. What waits between two polls counts against the same limit as what a
WebSocket leaves unread.

The upgrade. Once a WebSocket has been probed, polls that find nothing are answered with a noop, so that the client
comes to rest; what it has sent and got until then went over HTTP. On the client's `5` the rest goes to the WebSocket.

The end. A client that is to come back is refused, once it has got what was left for it, as one whose session is unknown. A
close packet would say it more politely, but some take it for final: python-socketio does not come back from one. So that is
for clients that broke the protocol; and one that closed the session itself gets a noop.
"""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from insforge_realtime import tasks
from insforge_realtime.errors import (
    HALF_A_BODY,
    INVALID_UTF8,
    SESSION_ENDED,
    TWO_POLLS,
    TWO_POSTS,
    UPGRADE_REFUSED,
    Close,
    PayloadTooLarge,
    ProtocolError,
    broken_protocol,
)
from insforge_realtime.protocol import engineio
from insforge_realtime.web.admission import BAD_REQUEST, TOO_LARGE, UNKNOWN_SESSION
from insforge_realtime.web.transport import CLOSE_SECONDS
from insforge_realtime.web.transports.send_queue import QueuedTransport
from insforge_realtime.web.transports.upgrade import UpgradeAttempt

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from starlette.types import Receive

    from insforge_realtime.delivery import Congestion
    from insforge_realtime.web.connection import MakeConnection
    from insforge_realtime.web.limiters import ConnectionLimiter
    from insforge_realtime.web.limits import Limits
    from insforge_realtime.web.timer_wheel import TimerWheel
    from insforge_realtime.web.transport import Upgradable

ANSWER_CHARS = 256 * 1024
"""About how much one poll is answered with. What is left is the next poll's, which comes at once."""
ANSWER_PACKETS = 15
"""With how many packets at most, beside the last word: python-engineio hangs up at more than 16."""
NOOP_SECONDS = 0.1
"""How long a poll waits for packets while a WebSocket is being probed. Not 0: a client would poll without a pause."""
PACKETS_AT_A_TIME = 100
"""After how many packets of one body others get a turn: half a million fit into a megabyte."""
TEXT = "text/plain; charset=UTF-8"


class SessionEnded(Exception):
    """Ends a request: the client's session is over, and it may begin another."""


class Polling(QueuedTransport):
    """One session, and the transport of its connection until a WebSocket takes over.

    Args:
        connect: makes the connection.
        limiter, limits, congestion: of its queue and its bodies.
        wheel: the timer.
        address: the client's.
    """

    __slots__ = (
        "_finished",
        "_last_word",
        "_poll",
        "_posting",
        "_reading",
        "_timing",
        "_wheel",
        "attempt",
        "connection",
        "handed_over",
    )  # fmt: skip

    kind = "polling"

    def __init__(
        self,
        connect: MakeConnection,
        limiter: ConnectionLimiter,
        limits: Limits,
        congestion: Congestion,
        wheel: TimerWheel,
        address: str,
    ) -> None:
        super().__init__(limits, congestion, limiter, limits.body)
        self._wheel, self._timing = wheel, limits.timing
        self._poll: asyncio.Future[None] | None = None
        self._posting = False
        self._reading: asyncio.Timeout | None = None
        """Runs while a body is on its way. Nobody waits for one of a session that has ended."""
        self._finished = False
        """Whether the session has ended, except for what is left in the queue."""
        self._last_word: str | None = None
        """The packet that ends its last poll; where there is none, the client is refused, and comes back."""
        self.handed_over = False
        self.attempt: UpgradeAttempt | None = None
        self.connection = connect(self, address)

    @property
    def address(self) -> str:
        """The client's."""
        return self.connection.address

    @property
    def admitted(self) -> bool:
        """Whether its client was let in."""
        return self.connection.admitted

    # Transport

    def close(self, end: Close) -> None:
        """Give the poll that waits, or the next one, what is left, and the one after it a refusal.

        A client that broke the protocol, and does not wait, is owed nothing: its next request finds no session any more.
        """
        self._finish(_last_word(end))
        if end.is_protocol_error and self._poll is None:
            self.cut()
            return
        self._wheel.schedule(self, asyncio.get_running_loop().time() + CLOSE_SECONDS)

    def cut(self) -> None:
        """End now, whatever is unsent."""
        self._queue.clear()
        self._finish()
        self._lost()

    def tick(self, now: float) -> float | None:
        """End: nobody came for the last words."""
        self.cut()
        return None

    def _lost(self) -> None:
        self._limiter.release(self)
        self.connection.lost()

    # The upgrade

    def upgrade(self, websocket: Upgradable) -> UpgradeAttempt:
        """Return an attempt; one that has failed, if there is another, or the session is no longer polling."""
        attempt = UpgradeAttempt(self, websocket)
        if self.attempt is None and not self.handed_over and not self._finished:
            self.attempt = attempt
        else:
            attempt.fail(UPGRADE_REFUSED)
        return attempt

    def release(self) -> None:
        """End the poll that waits: a WebSocket works."""
        self._wake()

    def hand_over(self, websocket: Upgradable) -> None:
        """Let a WebSocket take over, with everything that is unsent."""
        self.handed_over, self.attempt = True, None
        self._limiter.release(self)
        self._readable.set()  # nobody else will, if a body is still being taken in
        self._wake()
        unsent = self._queue.take(inf)
        self._queue.clear()
        websocket.carry(self.connection)
        self.connection.carry_on(websocket, unsent)

    # Requests

    def open(self, upgrades: Sequence[str]) -> Response:
        """Return the answer to its handshake.

        Args:
            upgrades: the transports that the client may change to.
        """
        return _text(self.connection.open_packet(upgrades))

    async def respond(self, request: Request) -> Response | None:
        """Return the answer to a request of this session; None where the client has hung up."""
        if request.method == "GET":
            return await _poll(self, request.receive)
        if request.method == "POST":
            return await _post(self, request)
        return BAD_REQUEST.response()

    def poll(self) -> Coroutine[Any, Any, str]:
        """Return the answer to a GET, which counts as waiting from this call on, before a POST behind it is looked at.

        Raises:
            ProtocolError: another one is waiting; the session is closed.
            SessionEnded: when awaited: there is nothing left, and the client is to come back.
        """
        if self._poll is not None:
            self.connection.fail(TWO_POLLS)
            raise ProtocolError(TWO_POLLS.reason)
        if not self._queue and not self._finished and not self.handed_over:
            self._poll = asyncio.get_running_loop().create_future()
        return self._answer(self._poll)

    async def _answer(self, poll: asyncio.Future[None] | None) -> str:
        if poll is not None:
            await self._wait(poll)
        packets = self._queue.take(ANSWER_CHARS, ANSWER_PACKETS)
        if self._finished and not self._queue:
            self._lost()
            if self._last_word is not None:
                packets.append(self._last_word)
            elif not packets:
                raise SessionEnded
        return engineio.encode_payload(packets or (engineio.NOOP,))

    async def post(self, request: Request) -> None:
        """Take in a body.

        Raises:
            ProtocolError: another one is being taken in, or this one is malformed; the session is closed.
            SessionEnded: it was closed, for another reason.
            PayloadTooLarge: it was not read to its end; the session is closed.
        """
        if self._posting:
            self.connection.fail(TWO_POSTS)
            raise ProtocolError(TWO_POSTS.reason)
        self._posting = True
        try:
            await self._take_in(await self._body(request))
        finally:
            self._posting = False

    def left(self) -> None:
        """End: the client hung up while its poll was waiting. After the upgrade, polls do not concern it."""
        if not self.handed_over:
            self.cut()

    async def _wait(self, poll: asyncio.Future[None]) -> None:
        try:
            async with asyncio.timeout(NOOP_SECONDS if self.attempt is not None and self.attempt.answered else None):
                await poll
        except TimeoutError:
            pass
        finally:
            self._poll = None

    async def _body(self, request: Request) -> bytes:
        try:
            return await self._read(request)
        except PayloadTooLarge:
            self.connection.too_large()
            raise
        except (ValueError, TimeoutError, ClientDisconnect) as error:
            self.connection.fail(HALF_A_BODY)
            raise ProtocolError(HALF_A_BODY.reason) from error

    async def _read(self, request: Request) -> bytes:
        limit, timing, body = self._limit or inf, self._timing, bytearray()
        if int(request.headers.get("content-length", 0)) > limit:
            raise PayloadTooLarge
        try:
            async with asyncio.timeout(timing.ping_interval + timing.ping_timeout) as self._reading:
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > limit:
                        raise PayloadTooLarge
        finally:
            self._reading = None
        return bytes(body)

    async def _take_in(self, body: bytes) -> None:
        try:
            for number, packet in enumerate(engineio.decode_payload(body.decode()), 1):
                self.connection.receive(packet)
                await self._readable.wait()
                if number % PACKETS_AT_A_TIME == 0:
                    await asyncio.sleep(0)
                if self.connection.ended:
                    break
        except UnicodeDecodeError as error:
            self.connection.fail(INVALID_UTF8)
            raise ProtocolError(INVALID_UTF8.reason) from error
        except ProtocolError as error:
            self.connection.fail(broken_protocol(str(error)))
            raise
        if self._last_word == engineio.CLOSE:
            raise ProtocolError(SESSION_ENDED.reason)
        if self._finished and self._last_word is None:
            raise SessionEnded

    def _add(self, packets: Sequence[str], size: int) -> None:
        if not self._finished and not self._queue.add(packets, size):
            self.connection.too_slow()
        self._wake()

    def _finish(self, last_word: str | None = None) -> None:
        if not self._finished:
            self._finished, self._last_word = True, last_word
        self._readable.set()
        if self._reading is not None and not self._reading.expired():
            self._reading.reschedule(asyncio.get_running_loop().time())
        self._wake()
        if self.attempt is not None:
            self.attempt.fail(SESSION_ENDED)

    def _wake(self) -> None:
        if self._poll is not None and not self._poll.done():
            self._poll.set_result(None)


async def _poll(polling: Polling, receive: Receive) -> Response | None:
    try:
        poll = polling.poll()
    except ProtocolError:
        return BAD_REQUEST.response()
    answer, gone = asyncio.ensure_future(poll), tasks.start(_hung_up(receive), "watch over a poll")
    try:
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return _text(answer.result())
        polling.left()
        return None
    except SessionEnded:
        return UNKNOWN_SESSION.response()
    except asyncio.CancelledError:
        # A server that shuts down does not wait for ever. Nobody is served by a traceback of ours in its log.
        polling.left()
        return UNKNOWN_SESSION.response()
    finally:
        answer.cancel()
        gone.cancel()


async def _post(polling: Polling, request: Request) -> Response:
    try:
        await polling.post(request)
    except PayloadTooLarge:
        return TOO_LARGE.response()
    except ProtocolError:
        return BAD_REQUEST.response()
    except SessionEnded:
        return UNKNOWN_SESSION.response()
    return _text("ok")


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _last_word(end: Close) -> str | None:
    if end.is_protocol_error:
        return engineio.CLOSE
    return engineio.NOOP if end.is_normal else None


def _text(body: str) -> Response:
    return Response(body, media_type=TEXT, headers={"Cache-Control": "no-store"})
