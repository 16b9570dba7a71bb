"""uvicorn's HTTP connection within bounds: how large a head may be, how many requests may wait, how long anything may take.

uvicorn itself bounds none of this, and what it has once let in, it keeps: headers without end, a task for each of ten
thousand requests in one read, answers that nobody reads. What lives here: counting, clocks, and the refusal. What a request
means is uvicorn's and the application's business, and WebSockets are transports/fast_websocket.py's.

Bytes. The parser calls back when a header is whole, so none of its calls tells of one that never ends. Therefore it is fed
in pieces, and the pieces in which it came no further (to the end of a head, to a byte of a body) add up. That holds for the
empty lines before a request, the extensions of a chunk, and trailers, too.

Clocks. Each head has its time, from its first byte on (the first one of a connection: from its beginning), and each body. An
answer has time for as long as the client goes on reading. Between two requests there is uvicorn's keep-alive.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, NoReturn

import structlog
from httptools import HttpParserError, HttpParserUpgrade
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from insforge_realtime.protocol import handshake
from insforge_realtime.web.bounds import (
    FRAMING_TOO_LARGE,
    HEAD_TOO_LARGE,
    LEFTOVER,
    MALFORMED,
    NOT_NOW,
    SETTINGS,
    TOO_LONG,
    TOO_MANY,
    TOO_MANY_HEADERS,
    TOO_SLOW,
)
from insforge_realtime.web.proxies import UNKNOWN
from insforge_realtime.web.transport import CLOSE_SECONDS
from insforge_realtime.web.unread import unread_bytes

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Collection

    from uvicorn.config import Config as UvicornConfig
    from uvicorn.server import ServerState

    from insforge_realtime.web.admission import Refusal
    from insforge_realtime.web.bounds import Bounds
    from insforge_realtime.web.timer_wheel import TimerWheel

PIECE_BYTES = 16 * 1024
"""What the parser is fed at a time."""
LEFTOVER_BYTES = 64 * 1024
"""How much of a body is still read once its request is answered, before the connection is closed over it."""
SAMPLES = 4
"""How many looks at whether the client reads an answer fit into the time that it has."""

log = structlog.get_logger("insforge_realtime.web")


class _Part(Enum):
    """What of a request comes next."""

    NOTHING = auto()
    """The last one was read to its end."""
    HEAD = auto()
    BODY = auto()


class _Stop(Exception):
    """Ends the parser's work from inside of one of its calls."""


class _Flow(FlowControl):
    """uvicorn's, which would go on reading at each answer, however many requests wait.

    Args:
        transport: what is read from.
        waiting: those requests.
    """

    def __init__(self, transport: asyncio.Transport, waiting: Collection[object]) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        if not self._waiting:
            super().resume_reading()


class _Clock:
    """What the wheel holds in place of a connection, so that it keeps nothing of one that has ended."""

    __slots__ = ("connection",)

    def __init__(self, connection: BoundedHttp) -> None:
        self.connection: BoundedHttp | None = connection

    def tick(self, now: float) -> float | None:
        """Do what is due; the wheel calls this."""
        return None if self.connection is None else self.connection.tick(now)


class BoundedHttp(HttpToolsProtocol):
    """One connection that speaks HTTP, from its first bytes on.

    Args:
        bounds: what it may ask of us.
        wheel: the timer of all connections.
        paths: those whose bodies have the longer time.
        due: when its first head must be whole.
        config, server_state, app_state: uvicorn's.
    """

    def __init__(
        self,
        bounds: Bounds,
        wheel: TimerWheel,
        paths: Collection[str],
        due: float,
        config: UvicornConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
    ) -> None:
        super().__init__(config, server_state, app_state)
        self._bounds, self._wheel, self._paths = bounds, wheel, paths
        self._part = _Part.HEAD
        self._head_bytes = 0
        """Of the head that is being read, as far as its headers are whole."""
        self._loose_bytes = 0
        """Since the parser last came any further, in whole pieces."""
        self._leftover_bytes = 0
        self._progressed = False
        self._unanswered: deque[RequestResponseCycle] = deque()
        self._deaf = False
        """Whether what comes is thrown away."""
        self._why: Refusal | None = None
        self._due: float | None = due
        """When the part that is being read must have come."""
        self._cut_at: float | None = None
        """When a connection that is over is cut, whatever its client does."""
        self._unread = 0
        """How much of what was written waited for the client when it was last looked at."""
        self._read_at = 0.0
        """When some of it was last seen to go."""
        self._look_at: float | None = None
        self._alarm: float | None = None
        self._clock = _Clock(self)
        self._wake_at(due)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._unset_keepalive_if_required()
        if self._part is _Part.NOTHING:
            self._expect(_Part.HEAD, self._bounds.request_seconds)
        for start in range(0, len(data), PIECE_BYTES):
            piece = data[start : start + PIECE_BYTES]
            try:
                self._feed(piece)
            except HttpParserUpgrade as upgrade:
                self._upgrade(data[start + upgrade.args[0] :])
                return
            except HttpParserError:
                self._refuse(self._why or MALFORMED)
                return
            if self._why is not None:
                self._refuse(self._why)
                return
        self._keep_alive()

    def connection_lost(self, exc: Exception | None) -> None:
        self._hang_up_on_the_application()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # uvicorn forgets it where the client has reset the connection
        self._let_go()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_the_reader()

    def shutdown(self) -> None:
        """uvicorn shuts down."""
        if self._cut_at is not None:
            self.transport.close()
        else:
            super().shutdown()

    # Bytes

    def _feed(self, piece: bytes) -> None:
        self._progressed = False
        self.parser.feed_data(piece)
        self._loose_bytes = 0 if self._progressed else self._loose_bytes + len(piece)
        if self._loose_bytes > self._bounds.head_bytes:
            self._why = FRAMING_TOO_LARGE if self._part is _Part.BODY else HEAD_TOO_LARGE

    def _stop(self, why: Refusal) -> NoReturn:
        self._why = why
        raise _Stop

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes = self._leftover_bytes = 0
        if self._part is not _Part.HEAD:  # the one before it came with the same bytes
            self._expect(_Part.HEAD, self._bounds.request_seconds)

    def on_url(self, url: bytes) -> None:
        self._head_bytes += len(url)
        if self._head_bytes > self._bounds.head_bytes:
            self._stop(TOO_LONG)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._part is _Part.BODY:
            return  # a trailer, after the application has seen the headers; uvicorn would add it to them
        self._head_bytes += len(name) + len(value) + len(b": \r\n")
        if self._head_bytes > self._bounds.head_bytes:
            self._stop(HEAD_TOO_LARGE)
        if len(self.headers) >= self._bounds.headers:
            self._stop(TOO_MANY_HEADERS)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if len(self._unanswered) >= self._bounds.pipelined:
            self._stop(TOO_MANY)
        before = self.cycle
        super().on_headers_complete()
        self._progressed = True
        if self.cycle is not before:
            self._unanswered.append(self.cycle)
            ours = self.scope["path"] in self._paths
            self._expect(_Part.BODY, self._bounds.body_seconds if ours else self._bounds.request_seconds)
        elif self._unanswered:
            self._stop(NOT_NOW)  # two would write on the same connection

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self._progressed = True
        if self.cycle is not None and self.cycle.response_complete:
            self._leftover_bytes += len(body)
            if self._leftover_bytes > LEFTOVER_BYTES:
                self._stop(LEFTOVER)

    def on_message_complete(self) -> None:
        if self.cycle is not None:  # not at a WebSocket's handshake
            super().on_message_complete()
        self._progressed = True
        self._part, self._due = _Part.NOTHING, None

    def on_response_complete(self) -> None:
        if self._unanswered:
            self._unanswered.popleft()
        super().on_response_complete()
        self.flow.resume_reading()  # if that was the last but one
        self._watch_the_reader()
        if self._due is not None and self._part is _Part.BODY:  # nobody waits for it any more
            self._due = min(self._due, self.loop.time() + self._bounds.request_seconds)
            self._wake_at(self._due)

    def _keep_alive(self) -> None:
        """uvicorn counts from the answer on, and any byte ends that: if it was a body's last one, then count from here."""
        idle = self._part is _Part.NOTHING and not self._unanswered and self.timeout_keep_alive_task is None
        if idle and not self.transport.is_closing():
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _upgrade(self, rest: bytes) -> None:
        if self._should_upgrade():
            self.handle_websocket_upgrade()
            self._let_go()
            if rest:
                self.transport.get_protocol().data_received(rest)  # type: ignore[attr-defined]
            return
        # Another protocol (h2c) that we do not speak: the answer is HTTP's. The parser took no body for this request; what
        # looks like the next one may be it, which a proxy in front would not know of.
        self._deaf, self._due = True, None
        self.cycle.keep_alive = False

    # The end

    def _refuse(self, why: Refusal) -> None:
        """End the connection: with an answer, if it is this request's turn.

        Only half of it: closing with bytes unread would reset it, and what we said last would be lost.
        """
        said = {"status": int(why.status), "reason": why.message, "limit": SETTINGS.get(why)}
        log.info("request refused", **said, address=self._address)
        answers = self._has_the_word()
        self._deaf, self._due = True, None
        self._hang_up_on_the_application()
        self._cut_at = self.loop.time() + (self._bounds.request_seconds if why is LEFTOVER else CLOSE_SECONDS)
        self._wake_at(self._cut_at)
        self.flow.resume_reading()
        if answers:
            self.transport.write(handshake.refuse(why.status, why.body))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    @property
    def _address(self) -> str:
        """Of the other end: a client, or a proxy, whose headers we may never have got."""
        return self.client[0] if self.client else UNKNOWN

    def _has_the_word(self) -> bool:
        """Whether what is written next is the answer to what is being read."""
        waiting = len(self._unanswered)
        if self._part is _Part.BODY:
            return waiting == 1 and not self._unanswered[0].response_started
        return waiting == 0

    def _hang_up_on_the_application(self) -> None:
        """Tell all requests that have no answer yet. (uvicorn tells only the last.)"""
        for cycle in self._unanswered:
            cycle.disconnected = True
            cycle.message_event.set()
            cycle.on_response = _nothing
        self.flow.resume_writing()
        self._unanswered.clear()
        self.pipeline.clear()

    def _let_go(self) -> None:
        """Cut what would keep us until the garbage collector comes: this has ended, or is a WebSocket now."""
        self._clock.connection = None
        self.parser = None  # type: ignore[assignment]

    # Clocks

    def _expect(self, part: _Part, seconds: float) -> None:
        self._part, self._due = part, self.loop.time() + seconds
        self._wake_at(self._due)

    def _watch_the_reader(self) -> None:
        """Look again later, if not all that was written is gone."""
        self._unread = unread_bytes(self.transport)
        if not self._unread:
            return
        self._read_at = self.loop.time()
        if self._look_at is None:
            self._look_at = self._read_at + self._bounds.answer_seconds / SAMPLES
            self._wake_at(self._look_at)

    def _wake_at(self, time: float) -> None:
        if self._alarm is None or time < self._alarm:
            self._alarm = time
            self._wheel.schedule(self._clock, time)

    def tick(self, now: float) -> float | None:
        """Do what is due, and return when something will be next; the wheel calls this."""
        if self._due is not None and now >= self._due and not self.transport.is_closing():
            if self.flow.read_paused:  # it is we who do not read: earlier requests wait
                self._due = now + self._bounds.request_seconds
            else:
                self._refuse(TOO_SLOW)
        if self._look_at is not None and now >= self._look_at:
            self._look(now)
        if self._cut_at is not None and now >= self._cut_at:
            self.transport.abort()
            return None
        due = None if self.transport.is_closing() else self._due
        self._alarm = min((at for at in (due, self._look_at, self._cut_at) if at is not None), default=None)
        return self._alarm

    def _look(self, now: float) -> None:
        """Cut a client that does not read what was written."""
        unread = unread_bytes(self.transport)
        if unread < self._unread:
            self._read_at = now
        self._unread = unread
        self._look_at = now + self._bounds.answer_seconds / SAMPLES if unread else None
        if unread and now - self._read_at >= self._bounds.answer_seconds:
            log.info("answer not read", unread=unread, limit="REALTIME_ANSWER_TIMEOUT", address=self._address)
            self._cut_at = now


def _nothing() -> None:
    """Do what comes of an answer that is not given."""
