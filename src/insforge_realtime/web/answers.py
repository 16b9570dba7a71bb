"""The headers of every HTTP answer of ours, as ASGI middleware: which pages may read it (CORS), and no sniffing.

Whether a web page may connect at all, admission.py decides; a WebSocket knows nothing of CORS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse, Response

from insforge_realtime.web.proxies import header_values

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

METHODS = ("GET", "HEAD", "POST")
PREFLIGHT_SECONDS = 86400
"""How long a browser may remember our answer to a preflight."""
ASKED_FOR = "Access-Control-Request-"


class NoSniff:
    """ASGI middleware: tells browsers to take an answer for what its Content-Type names, and nothing else.

    Args:
        app: what it wraps.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_marked(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                message["headers"] = [*message.get("headers", ()), (b"x-content-type-options", b"nosniff")]
            await send(message)

        await self._app(scope, receive, send_marked)


class Cors:
    """ASGI middleware: lets pages of these origins read our answers.

    Origins that are named may send credentials (cookies, for a proxy's sticky sessions). Where all are allowed, none may:
    any page could act for whoever looks at it, with whatever cookies a proxy in front takes for a login.

    Args:
        app: what it wraps.
        origins: those that are allowed; `*` for all.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        self._app = app
        self._origins = frozenset(origins)
        self._all = "*" in self._origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        origin = ", ".join(header_values(scope, b"origin"))
        if origin and scope["method"] == "OPTIONS" and _asked(scope, "Method"):
            await self._preflight(scope, origin)(scope, receive, send)
            return

        if self._all and not origin:
            await self._app(scope, receive, send)
            return

        async def send_readable(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._allow(MutableHeaders(scope=message), origin)
            await send(message)

        await self._app(scope, receive, send_readable)

    def _allows(self, origin: str) -> bool:
        return bool(origin) and (self._all or origin in self._origins)

    def _allow(self, headers: MutableHeaders, origin: str) -> None:
        """Let a page read it that may; and where it depends on the page, tell caches that it does."""
        if not self._all:
            headers.add_vary_header("Origin")
        if self._allows(origin):
            headers["Access-Control-Allow-Origin"] = "*" if self._all else origin
            if not self._all:
                headers["Access-Control-Allow-Credentials"] = "true"

    def _preflight(self, scope: Scope, origin: str) -> Response:
        """Return the answer to a preflight. One for a private network is one for us: we may be in it."""
        allowed = self._allows(origin) and _asked(scope, "Method") in METHODS
        answer = PlainTextResponse("OK" if allowed else "Not allowed", 200 if allowed else 400)
        answer.headers["Vary"] = ", ".join(f"{ASKED_FOR}{what}" for what in ("Method", "Headers", "Private-Network"))
        self._allow(answer.headers, origin)
        if not allowed:
            return answer
        answer.headers["Access-Control-Allow-Methods"] = ", ".join(METHODS)
        answer.headers["Access-Control-Max-Age"] = str(PREFLIGHT_SECONDS)
        if headers := _asked(scope, "Headers"):
            answer.headers["Access-Control-Allow-Headers"] = headers
        if _asked(scope, "Private-Network") == "true":
            answer.headers["Access-Control-Allow-Private-Network"] = "true"
        return answer


def _asked(scope: Scope, what: str) -> str:
    return ", ".join(header_values(scope, f"{ASKED_FOR}{what}".lower().encode()))
