"""What all connections of this server share, and whether one more may come in.

What lives here: the limits, the sums, and the refusals of a request to `/socket.io/`, whichever door it came through. What
one connection does is in connection.py and in its transport's file.
"""

from __future__ import annotations

import asyncio
import resource
from dataclasses import dataclass, replace
from http import HTTPStatus
from math import ceil, inf
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import orjson
import structlog
from starlette.responses import Response

from insforge_realtime.commands import Commands
from insforge_realtime.config import Config
from insforge_realtime.delivery import Congestion
from insforge_realtime.errors import MESSAGES_MISSED, RESTARTING, RateLimited
from insforge_realtime.hub import Hub
from insforge_realtime.protocol import engineio
from insforge_realtime.protocol.session import Timing
from insforge_realtime.rates import place_of
from insforge_realtime.web.admission import Admission, Guest, Rate
from insforge_realtime.web.proxies import UNKNOWN, TrustedProxies, header_values
from insforge_realtime.web.timer_wheel import TimerWheel

if TYPE_CHECKING:
    from starlette.types import Scope

    from insforge_realtime.web.connection import Connection
    from insforge_realtime.web.transports.asgi_websocket import AsgiWebSocket
    from insforge_realtime.web.transports.polling import Polling

PATH = "/socket.io/"
ENVELOPE_BYTES = 64 * 1024
"""How much larger than its payload a frame may be, so that a payload a little over the limit gets an answer."""
GUEST = "insforge_realtime.guest"
"""Where an ASGI scope has a weak reference to the connection that it came by, if that is counted."""
RESERVED_FILES = 256
"""How many of the files that this process may open are not for sockets of clients: the database's and the webhooks' are."""
UNLIMITED = 2**31 - 1
"""What the open packet says where nothing is limited: every client can read it as a number."""

LIMITS = {"all": "REALTIME_MAX_SOCKETS", "address": "REALTIME_MAX_SOCKETS_PER_ADDRESS"}

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
        """What an ASGI scope asks for."""
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
    """The origin that a request's headers name. Several of them are nobody's origin."""
    return ", ".join(headers) if headers else None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is refused: an HTTP status, a code of the Engine.IO protocol, and words for people."""

    status: HTTPStatus
    code: int
    message: str
    retry_after: int = 0
    """In how many seconds to try again; 0 says nothing of it."""

    @property
    def body(self) -> str:
        """JSON, as the protocol has it."""
        return orjson.dumps({"code": self.code, "message": self.message}).decode()

    def response(self) -> Response:
        """The refusal as an HTTP answer."""
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


class Gateway:
    """One for each server.

    Args:
        config: the limits.
        commands: what to do with what clients send.
        hub: told of connections that change their stream.
        congestion: told of sinks that fill up.
        wheel: the timer.
    """

    def __init__(self, config: Config, commands: Commands, hub: Hub, congestion: Congestion, wheel: TimerWheel) -> None:
        self.config = config
        self.commands = commands
        self.hub = hub
        self.congestion = congestion
        self.wheel = wheel
        self._now = asyncio.get_running_loop().time
        self.paths = {prefix + path for prefix in ("", config.root_path) for path in (PATH, PATH.rstrip("/"))}
        """Where this server is found, whether a proxy leaves its prefix on the path or takes it off."""
        self.trusted = TrustedProxies(config.trusted_proxies)
        self._trusts = bool(config.trusted_proxies)
        self.timing = Timing(
            config.ping_interval, config.ping_timeout, config.connect_timeout, config.max_refused_connects or inf
        )
        places = {"per_address": config.max_sockets_per_address, "waiting": config.max_unauthenticated}
        self.sockets = Admission(most=_most_sockets(config), **places)
        self.sessions = Admission(**places)
        """Of long-polling, until they change to a WebSocket."""
        self.handshakes, self._connects = Rate(config.max_handshakes_per_second), Rate(config.max_connects_per_second)
        self.clients = 0
        """How many connections have a client that was let in."""
        self.connections: set[Connection] = set()
        self.polls: dict[str, Polling] = {}
        """The sessions that began by polling, by their id; also those that have changed to a WebSocket since."""
        self.slow_consumers = 0
        """How many connections were cut off because they read too slowly."""
        self.closing = False
        limit = config.max_payload_bytes
        self.max_payload = limit or UNLIMITED
        self.max_message_bytes = limit + ENVELOPE_BYTES if limit else None
        """Of one message over a WebSocket, or of the attachments of one."""
        self.max_stranger_payload = config.max_connect_bytes or self.max_payload
        self.max_stranger_bytes = config.max_connect_bytes or self.max_message_bytes
        """The same, of a client that was not let in yet."""
        self.high_water = max(config.max_buffered_bytes // 4, 1) if config.max_buffered_bytes else 1024 * 1024
        self.upgrades: list[str] = [transport for transport in config.transports if transport == "websocket"]
        """What a client that polls may change to."""

    def forget(self, connection: Connection) -> None:
        """Its transport is gone."""
        self.connections.discard(connection)
        polling = self.polls.pop(connection.sid, None)
        if polling is not None:
            self.sessions.leave(polling)

    def shut(self) -> None:
        """Let nobody in any more, and send home whoever is here: they will come back to another server, or to the next."""
        self.closing = True
        for connection in list(self.connections):
            connection.close(RESTARTING)

    def recall(self) -> None:
        """Have everybody connect anew: they may have missed messages, and on `connect` applications read what there is."""
        for connection in list(self.connections):
            connection.close(MESSAGES_MISSED)

    def disconnect(self, user_id: str) -> int:
        """End all connections of a user, for good. How many they were."""
        theirs = [connection for connection in self.connections if connection.subject == user_id]
        for connection in theirs:
            connection.disconnect()
        return len(theirs)

    @property
    def is_full(self) -> bool:
        """Whether no other client may be let in."""
        return 0 < self.config.max_connections <= self.clients

    # Places

    def let_in(self, guest: Guest, transport: asyncio.BaseTransport) -> bool:
        """Give a socket a place, unless it has one. False: there is none for it, and the log says so."""
        if guest in self.sockets:
            return True
        address = _peer(transport)
        full = self.sockets.enter(guest, self._place(address))
        if full is not None:
            log.warning("socket refused", address=address, limit=LIMITS[full])
        return full is None

    def entry(self, guest: AsgiWebSocket | Polling, asked: Asked) -> Refusal | None:
        """Give a place to what comes by a connection that somebody else counts, if anybody; or say why not."""
        places = self.sockets if asked.websocket else self.sessions
        full = places.enter(guest, self._place(asked.address))
        return None if full is None else self._refused(FULL if full == "all" else CROWDED, asked)

    def is_trusted(self, transport: asyncio.BaseTransport) -> bool:
        """Whether a proxy is at the other end."""
        return self._trusts and _peer(transport) in self.trusted

    def tell_of_a_place(self, what: str, transport: asyncio.BaseTransport | None = None) -> None:
        """Somebody had to give way."""
        log.info(
            "unauthenticated connection gave way",
            what=what,
            **({} if transport is None else {"address": _peer(transport)}),
        )

    def check_connect(self, address: str) -> None:
        """A client says CONNECT.

        Raises:
            RateLimited: this address does so too often.
        """
        wait = self._connects.wait(self._place(address), self._now())
        if wait:
            raise RateLimited(f"Too many CONNECTs from this address; try again in {ceil(wait)} s")

    def _place(self, address: str) -> str | None:
        """As what an address is counted: a proxy's own, as none."""
        return None if self._trusts and address in self.trusted else place_of(address)

    # Requests

    def refusal(self, asked: Asked, socket: Guest | None = None) -> Refusal | None:
        """Why a request is refused; or None.

        Args:
            asked: the request.
            socket: what it came by, if that has a place, perhaps not yet one of the client's address.
        """
        refusal = (
            self._too_often(asked)
            or self._wrong(asked)
            or (self._wrong_session(asked) if asked.sid else self._wrong_handshake(asked))
        )
        if refusal is None and self._trusts and socket is not None:
            refusal = None if self.sockets.move(socket, self._place(asked.address)) else CROWDED
        return None if refusal is None else self._refused(refusal, asked)

    def _refused(self, refusal: Refusal, asked: Asked) -> Refusal:
        log.info("handshake refused", status=int(refusal.status), body=refusal.body, address=asked.address)
        return refusal

    def _too_often(self, asked: Asked) -> Refusal | None:
        if asked.sid is not None and not asked.websocket:
            return None
        wait = self.handshakes.wait(self._place(asked.address), self._now())
        return replace(TOO_OFTEN, retry_after=ceil(wait)) if wait else None

    def _wrong(self, asked: Asked) -> Refusal | None:
        transport = asked.query.get("transport", [])
        if asked.query.get("EIO") != [engineio.REVISION]:
            return WRONG_VERSION
        if len(transport) != 1 or transport[0] not in self.config.transports:
            return UNKNOWN_TRANSPORT
        if (transport == ["websocket"]) != asked.websocket:
            return BAD_REQUEST
        return None if self.config.allows_origin(asked.origin) else WRONG_ORIGIN

    def _wrong_session(self, asked: Asked) -> Refusal | None:
        polling = self.polls.get(asked.sid or "")
        if polling is None:
            return UNKNOWN_SESSION
        return BAD_REQUEST if polling.handed_over and not asked.websocket else None

    def _wrong_handshake(self, asked: Asked) -> Refusal | None:
        if asked.method != "GET":
            return BAD_METHOD
        return FULL if self.closing or self.is_full else None


def _peer(transport: asyncio.BaseTransport) -> str:
    """The address of a socket's other end."""
    peer = transport.get_extra_info("peername")
    return peer[0] if isinstance(peer, tuple) else UNKNOWN


def _most_sockets(config: Config) -> int:
    """As configured, or as many as there may be files; 0 for no limit."""
    if config.max_sockets is not None:
        return config.max_sockets
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 0 if files == resource.RLIM_INFINITY else max(files - RESERVED_FILES, files // 2)
