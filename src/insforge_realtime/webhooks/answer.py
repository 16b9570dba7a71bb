"""The beginning of an answer, which alone decides: parsed here before aiohttp parses it again.

aiohttp is strict about headers, as a client that needs them must be: one that is too long, or a duplicate Content-Length,
is an error to it. To us an answer is its status line, and what follows must not undo it. And informational answers
(`103 Early Hints`), of which it reads any number in a loop that gives nobody else a turn, are stripped here, up to
`INFORMATIONAL_BYTES` per attempt.

What lives here: the status line, and how it is kept (`status_read`). request.py decides what it means.
"""

from __future__ import annotations

import asyncio
import re
from contextvars import ContextVar
from functools import partial
from typing import Any, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError

INFORMATIONAL_BYTES = 64 * 1024
LINE_BYTES = 1024
"""A longer status line counts without its end: only the reason phrase is missing."""
FIELD_BYTES = 64 * 1024
"""The longest header that is read; after a longer one, an answer's status is all that is known."""

_STATUS_LINE = re.compile(rb"HTTP/\d\.\d[ \t]+([1-9]\d\d)(?:[ \t\r][^\n]*)?\n")
_LONG_LINE = re.compile(rb"HTTP/\d\.\d[ \t]+([1-9]\d\d)[ \t]")
_END_OF_HEAD = re.compile(rb"\n\r?\n")

_reading: ContextVar[AnswerHandler | None] = ContextVar("reading", default=None)


def status_read() -> int | None:
    """Return the status of this task's latest answer, if its status line has arrived, whatever became of the rest."""
    handler = _reading.get()
    return None if handler is None else handler.status


def forget_status() -> None:
    """Reset at the beginning of an attempt: nothing has arrived yet."""
    _reading.set(None)


class AnswerHandler(ResponseHandler):
    """A connection, as aiohttp has it, that knows the status of its answer as soon as the line is there."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.status: int | None = None
        self._beginning = bytearray()
        self._skipped = 0
        self._reads = False

    def set_response_params(self, **options: Any) -> None:
        """Begin a request; whatever arrived before it is handed on at once."""
        self.status, self._skipped, self._reads = None, 0, True
        self._beginning.clear()
        super().set_response_params(**options)

    def data_received(self, data: bytes) -> None:
        """Keep what arrives until the status line is complete, and hand everything on from then."""
        if not self._reads:
            super().data_received(data)
            return
        self._beginning += data
        self._skip_informational()
        if self._skipped + len(self._beginning) > INFORMATIONAL_BYTES and not self._has_answer():
            self._give_up("nothing but informational answers")
        elif self._has_answer():
            self._hand_on()

    def _has_answer(self) -> bool:
        """Return whether the deciding line is there, even if it is not HTTP."""
        return self._has_line() and not self._is_informational()

    def _skip_informational(self) -> None:
        while self._is_informational():
            end = _END_OF_HEAD.search(self._beginning)
            if end is None or self._skipped > INFORMATIONAL_BYTES:
                return
            self._skipped += end.end()
            del self._beginning[: end.end()]

    def _is_informational(self) -> bool:
        """Return whether an informational answer comes first. 101 does not count: it is the last answer in HTTP."""
        status = self._first_status()
        return status is not None and status < 200 and status != 101

    def _first_status(self) -> int | None:
        self._strip()
        found = _STATUS_LINE.match(self._beginning)
        if found is None and len(self._beginning) >= LINE_BYTES:
            found = _LONG_LINE.match(self._beginning)
        return int(found[1]) if found else None

    def _strip(self) -> None:
        """Remove blank lines before the status line, which some servers send."""
        blank = len(self._beginning) - len(self._beginning.lstrip(b"\r\n"))
        self._skipped += blank
        del self._beginning[:blank]

    def _has_line(self) -> bool:
        return b"\n" in self._beginning or len(self._beginning) >= LINE_BYTES

    def _hand_on(self) -> None:
        self.status = self._first_status()
        if self.status is None:
            self._give_up("it does not begin with a status line")
            return
        self._reads = False
        beginning = bytes(self._beginning)
        self._beginning.clear()
        super().data_received(beginning)

    def _give_up(self, why: str) -> None:
        self._reads = False
        self._beginning.clear()
        if self.transport is not None:
            self.transport.abort()
        self.set_exception(HttpProcessingError(message=why))


class AnswerConnector(aiohttp.TCPConnector):
    """Makes such connections. (aiohttp has no other hook for that.)"""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factory = cast(Any, partial(AnswerHandler, loop=self._loop))


class Answer(aiohttp.ClientResponse):
    """An answer that records which connection it arrives on."""

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        """Wait for the status and the headers."""
        handler = connection.protocol
        _reading.set(handler if isinstance(handler, AnswerHandler) else None)
        return await super().start(connection)
