"""Who may come in: a request to `/socket.io/`, whichever transport brought it, and why it is refused.

What lives here: the questions (origin, version, transport, session, rate, room), in their order, and the words of a no. The
counting is in limiters.py; who is connected already, in gateway.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from http import HTTPStatus
from math import ceil
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import orjson
import structlog
from starlette.responses import Response

from insforge_realtime.errors import RateLimited
from insforge_realtime.protocol import engineio
from insforge_realtime.rates import place_of
from insforge_realtime.web.limiters import ConnectionLimiter, RateLimiter
from insforge_realtime.web.proxies import UNKNOWN, TrustedProxies, header_values

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from starlette.types import Scope

    from insforge_realtime.config import Config
    from insforge_realtime.metrics import Metrics
    from insforge_realtime.web.gateway import Gateway
    from insforge_realtime.web.limiters import Evictable, Full

SETTINGS: dict[Full, str] = {"all": "REALTIME_MAX_SOCKETS", "address": "REALTIME_MAX_SOCKETS_PER_ADDRESS"}
"""Which limit it was, for the log."""

log = structlog.get_logger("insforge_realtime.web")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to `/socket.io/`.

    Args:
        method: of HTTP.
        query: the query's values, by name.
        origin: of the web page that asks, if one does.
        websocket: whether it is a WebSocket handshake.
        address: the client's.
    """

    method: str
    query: dict[str, list[str]]
    origin: str | None
    websocket: bool
    address: str

    @classmethod
    def of(cls, scope: Scope) -> Asked:
        """Return what an ASGI scope asks for."""
        client = scope.get("client")
        return cls(
            scope.get("method", "GET"),
            parse_qs(scope["query_string"].decode("latin-1")),
            origin_of(header_values(scope, b"origin")),
            scope["type"] == "websocket",
            client[0] if client else UNKNOWN,
        )

    @property
    def sid(self) -> str | None:
        """The session that it belongs to; None for a handshake."""
        return self.query["sid"][0] if "sid" in self.query else None


def origin_of(headers: list[str]) -> str | None:
    """Return the origin that a request's headers name. Several of them are nobody's origin."""
    return ", ".join(headers) if headers else None


def peer_of(transport: asyncio.BaseTransport) -> str:
    """Return the address of a socket's other end."""
    peer = transport.get_extra_info("peername")
    return peer[0] if isinstance(peer, tuple) else UNKNOWN


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is refused: an HTTP status, a code of the Engine.IO protocol, and words for people."""

    status: HTTPStatus
    code: int
    message: str
    retry_after: int = 0
    """In how many seconds to try again; 0 leaves it open."""

    @property
    def body(self) -> str:
        """JSON, as the protocol has it."""
        return orjson.dumps({"code": self.code, "message": self.message}).decode()

    def response(self) -> Response:
        """Return the refusal as an HTTP answer."""
        return Response(self.body, self.status, self.headers, media_type="application/json")

    @property
    def headers(self) -> dict[str, str]:
        """Those of the answer beside the body's."""
        return {"Retry-After": str(self.retry_after)} if self.retry_after else {}


UNKNOWN_TRANSPORT = Refusal(HTTPStatus.BAD_REQUEST, 0, "Transport unknown")
UNKNOWN_SESSION = Refusal(HTTPStatus.BAD_REQUEST, 1, "Session ID unknown")
BAD_METHOD = Refusal(HTTPStatus.BAD_REQUEST, 2, "Bad handshake method")
BAD_REQUEST = Refusal(HTTPStatus.BAD_REQUEST, 3, "Bad request")
WRONG_ORIGIN = Refusal(HTTPStatus.FORBIDDEN, 4, "Origin not allowed")
FULL = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, 4, "Too many connections, try again later")
CROWDED = Refusal(HTTPStatus.TOO_MANY_REQUESTS, 4, "Too many connections from this address, try again later", 60)
TOO_OFTEN = Refusal(HTTPStatus.TOO_MANY_REQUESTS, 4, "Too many handshakes from this address, try again later")
WRONG_VERSION = Refusal(HTTPStatus.BAD_REQUEST, 5, "Unsupported protocol version")
TOO_LARGE = Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, 3, "Payload too large")


class Admission:
    """Decides for one server.

    Args:
        config: the origins, the transports, the proxies, the limits.
        gateway: who is connected already.
        max_sockets: how many there may be, whatever they are for; 0 for no limit.
        now: a clock, in seconds from anywhere.
        metrics: where refusals are counted.
    """

    def __init__(
        self, config: Config, gateway: Gateway, max_sockets: int, now: Callable[[], float], metrics: Metrics
    ) -> None:
        self._gateway = gateway
        self._now = now
        self._metrics = metrics
        self._transports = config.transports
        self._allows_origin = config.allows_origin
        self.trusted = TrustedProxies(config.trusted_proxies)
        self._trusts = bool(config.trusted_proxies)
        limits = {"per_address": config.max_sockets_per_address, "unauthenticated": config.max_unauthenticated}
        self.sockets = ConnectionLimiter(most=max_sockets, metrics=metrics, **limits)
        self.sessions = ConnectionLimiter(metrics=metrics, **limits)
        """Of long-polling, until they change to a WebSocket."""
        self._handshakes = RateLimiter(config.max_handshakes_per_second)
        self._connects = RateLimiter(config.max_connects_per_second)

    # Sockets

    def accept(self, socket: Evictable, transport: asyncio.BaseTransport) -> bool:
        """Count a socket, unless it is counted. Return False, and log it, if there is no room."""
        if socket in self.sockets:
            return True
        address = peer_of(transport)
        full = self.sockets.acquire(socket, self._place(address))
        if full is not None:
            self._metrics.sockets_refused[full] += 1
            log.warning("socket refused", address=address, limit=SETTINGS[full])
        return full is None

    def enter(self, connection: Evictable, asked: Asked) -> Refusal | None:
        """Count what comes by a socket that somebody else counts, if anybody does; or return why not.

        Args:
            connection: a WebSocket, or a session of long-polling.
            asked: what it began with.
        """
        limiter = self.sockets if asked.websocket else self.sessions
        full = limiter.acquire(connection, self._place(asked.address))
        return None if full is None else self._noted(FULL if full == "all" else CROWDED, asked)

    def is_trusted(self, transport: asyncio.BaseTransport) -> bool:
        """Return whether a proxy is at the other end."""
        return self._trusts and peer_of(transport) in self.trusted

    def check_connect(self, address: str) -> None:
        """Count a CONNECT of a client.

        Raises:
            RateLimited: this address sends them too often.
        """
        wait = self._connects.wait(self._place(address), self._now())
        if wait:
            raise RateLimited(f"Too many CONNECTs from this address; try again in {ceil(wait)} s")

    def _place(self, address: str) -> str | None:
        """Return as what an address is counted: a proxy's own, as none."""
        return None if self._trusts and address in self.trusted else place_of(address)

    # Requests

    def client_of(self, transport: asyncio.BaseTransport, forwarded_for: list[str]) -> str:
        """Return the client's address, which is the other end's unless that is a proxy.

        Args:
            transport: what the request came by.
            forwarded_for: the request's headers of this name.
        """
        peer = peer_of(transport)
        return self.trusted.client(peer, ", ".join(forwarded_for)) if self._trusts else peer

    def refusal(self, asked: Asked, socket: Evictable | None = None) -> Refusal | None:
        """Return why a request is refused; or None.

        Args:
            asked: the request.
            socket: what it came by, if that is counted, perhaps not yet for the client's address.
        """
        refusal = (
            self._too_often(asked)
            or self._wrong(asked)
            or (self._wrong_session(asked) if asked.sid else self._wrong_handshake(asked))
        )
        if refusal is None and self._trusts and socket is not None:
            refusal = None if self.sockets.move(socket, self._place(asked.address)) else CROWDED
        return None if refusal is None else self._noted(refusal, asked)

    def _too_often(self, asked: Asked) -> Refusal | None:
        if asked.sid is not None and not asked.websocket:
            return None
        wait = self._handshakes.wait(self._place(asked.address), self._now())
        return replace(TOO_OFTEN, retry_after=ceil(wait)) if wait else None

    def _wrong(self, asked: Asked) -> Refusal | None:
        transport = asked.query.get("transport", [])
        if asked.query.get("EIO") != [engineio.REVISION]:
            return WRONG_VERSION
        if len(transport) != 1 or transport[0] not in self._transports:
            return UNKNOWN_TRANSPORT
        if (transport == ["websocket"]) != asked.websocket:
            return BAD_REQUEST
        return None if self._allows_origin(asked.origin) else WRONG_ORIGIN

    def _wrong_session(self, asked: Asked) -> Refusal | None:
        session = self._gateway.polling_sessions.get(asked.sid or "")
        if session is None:
            return UNKNOWN_SESSION
        return BAD_REQUEST if session.handed_over and not asked.websocket else None

    def _wrong_handshake(self, asked: Asked) -> Refusal | None:
        if asked.method != "GET":
            return BAD_METHOD
        return FULL if self._gateway.closing or self._gateway.is_full else None

    def _noted(self, refusal: Refusal, asked: Asked) -> Refusal:
        """Return the refusal, once it is counted and logged."""
        self._metrics.handshakes_refused[refusal.message] += 1
        log.info("handshake refused", status=int(refusal.status), body=refusal.body, address=asked.address)
        return refusal


def log_eviction(what: str, transport: asyncio.BaseTransport | None = None) -> None:
    """Log that an unauthenticated connection gave way.

    Args:
        what: it was.
        transport: its socket, if it is one of ours.
    """
    address = {} if transport is None else {"address": peer_of(transport)}
    log.info("unauthenticated connection gave way", what=what, **address)
