"""How much of HTTP one connection may ask of us, and how one that asks for more is refused. bounded.py sees to it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Self

from insforge_realtime.web.admission import Refusal
from insforge_realtime.web.transport import CLOSE_SECONDS

if TYPE_CHECKING:
    from insforge_realtime.config import Config


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a connection may ask of us.

    Args:
        head_bytes: the size of a request's line and headers, in bytes.
        headers: how many of them.
        pipelined: requests that are not answered yet.
        request_seconds: the time for a head, and for a body.
        body_seconds: the time for the body of a request to `/socket.io/`, which has a shorter limit of its own that tells
            the session why it ends.
        answer_seconds: how long a client may read nothing of an answer.
    """

    head_bytes: int
    headers: int
    pipelined: int
    request_seconds: float
    body_seconds: float
    answer_seconds: float

    @classmethod
    def of(cls, config: Config) -> Self:
        """Return the bounds as configured."""
        body = config.ping_interval + config.ping_timeout + CLOSE_SECONDS
        return cls(
            head_bytes=config.max_head_bytes or sys.maxsize,
            headers=config.max_headers or sys.maxsize,
            pipelined=config.max_pipelined or sys.maxsize,
            request_seconds=config.request_timeout,
            body_seconds=max(body, config.request_timeout),
            answer_seconds=config.answer_timeout,
        )


MALFORMED = Refusal(HTTPStatus.BAD_REQUEST, 3, "Not a valid HTTP request")
TOO_LONG = Refusal(HTTPStatus.REQUEST_URI_TOO_LONG, 3, "The request target is too long")
HEAD_TOO_LARGE = Refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, 3, "The request's headers are too large")
TOO_MANY_HEADERS = Refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, 3, "The request has too many headers")
FRAMING_TOO_LARGE = Refusal(HTTPStatus.BAD_REQUEST, 3, "The chunks of the body carry too much overhead")
LEFTOVER = Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, 3, "The request has been answered, but its body does not end")
TOO_MANY = Refusal(HTTPStatus.TOO_MANY_REQUESTS, 3, "Too many unanswered requests")
NOT_NOW = Refusal(HTTPStatus.BAD_REQUEST, 3, "A WebSocket handshake before earlier requests are answered")
TOO_SLOW = Refusal(HTTPStatus.REQUEST_TIMEOUT, 3, "The request takes too long to arrive")
SETTINGS = {
    TOO_LONG: "REALTIME_MAX_HEAD_BYTES",
    HEAD_TOO_LARGE: "REALTIME_MAX_HEAD_BYTES",
    FRAMING_TOO_LARGE: "REALTIME_MAX_HEAD_BYTES",
    TOO_MANY_HEADERS: "REALTIME_MAX_HEADERS",
    TOO_MANY: "REALTIME_MAX_PIPELINED",
    TOO_SLOW: "REALTIME_REQUEST_TIMEOUT",
}
"""Which limit it was, for the log."""
