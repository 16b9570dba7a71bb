"""Where the requests of HTTP long-polling come in: whether each is let in, and to which session it goes.

What lives here: no packet. What a session makes of a request is polling.py's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request

from insforge_realtime.web.admission import Asked
from insforge_realtime.web.counted import SOCKET
from insforge_realtime.web.transports.endpoint import Endpoint
from insforge_realtime.web.transports.polling import Polling

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send

    from insforge_realtime.web.gateway import PollingSession


class PollingEndpoint(Endpoint):
    """The ASGI application behind `/socket.io/`, for HTTP."""

    __slots__ = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        asked = Asked.of(scope)
        refusal = self.admission.refusal(asked)
        if refusal is not None:
            response: Response | None = refusal.response()
        elif asked.sid is None:
            response = self._handshake(asked)
        else:
            response = await self._of_session(self.gateway.polling_sessions[asked.sid], request)
        if response is not None:
            await response(scope, receive, send)

    def _handshake(self, asked: Asked) -> Response:
        sessions = self.admission.sessions
        session = Polling(self.connect, sessions, self.limits, self.congestion, self.wheel, asked.address)
        refusal = self.admission.enter(session, asked)
        if refusal is not None:
            session.cut()
            return refusal.response()
        self.gateway.polling_sessions[session.connection.sid] = session
        return session.open(self.limits.upgrades)

    async def _of_session(self, session: PollingSession, request: Request) -> Response | None:
        reference = request.scope.get(SOCKET)  # there is none under other servers
        socket = reference and reference()
        if socket is not None and session.admitted:
            self.admission.sockets.authenticated(socket)
        return await session.respond(request)
