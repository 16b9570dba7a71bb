"""Where the requests of HTTP long-polling come in: whether each is let in, and to which session it goes.

What lives here: no packet. What a session makes of a request is polling.py's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request

from insforge_realtime.web.admission import Asked
from insforge_realtime.web.counted import SOCKET
from insforge_realtime.web.transports.polling import Polling

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send

    from insforge_realtime.delivery import Congestion
    from insforge_realtime.web.admission import Admission
    from insforge_realtime.web.connection import MakeConnection
    from insforge_realtime.web.gateway import Gateway, PollingSession
    from insforge_realtime.web.limits import Limits
    from insforge_realtime.web.timer_wheel import TimerWheel


class PollingEndpoint:
    """The ASGI application behind `/socket.io/`, for HTTP.

    Args:
        gateway: has the sessions.
        admission: who may come in.
        connect: makes a connection.
        limits, congestion, wheel: of each session.
    """

    def __init__(
        self,
        gateway: Gateway,
        admission: Admission,
        connect: MakeConnection,
        limits: Limits,
        congestion: Congestion,
        wheel: TimerWheel,
    ) -> None:
        self._gateway, self._admission, self._connect = gateway, admission, connect
        self._limits, self._congestion, self._wheel = limits, congestion, wheel

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        asked = Asked.of(scope)
        refusal = self._admission.refusal(asked)
        if refusal is not None:
            response: Response | None = refusal.response()
        elif asked.sid is None:
            response = self._handshake(asked)
        else:
            response = await self._of_session(self._gateway.polling_sessions[asked.sid], request)
        if response is not None:
            await response(scope, receive, send)

    def _handshake(self, asked: Asked) -> Response:
        sessions = self._admission.sessions
        session = Polling(self._connect, sessions, self._limits, self._congestion, self._wheel, asked.address)
        refusal = self._admission.enter(session, asked)
        if refusal is not None:
            session.cut()
            return refusal.response()
        self._gateway.polling_sessions[session.connection.sid] = session
        return session.open(self._limits.upgrades)

    async def _of_session(self, session: PollingSession, request: Request) -> Response | None:
        reference = request.scope.get(SOCKET)  # there is none under other servers
        socket = reference and reference()
        if socket is not None and session.admitted:
            self._admission.sockets.authenticated(socket)
        return await session.respond(request)
