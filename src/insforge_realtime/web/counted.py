"""An HTTP connection that is counted, from its first bytes to its end (limiters.py).

It is authenticated once it has carried a request of a session whose client was let in (transports/polling_endpoint.py),
or if it comes from a trusted proxy, whose connections are many clients'. Until then it may be evicted.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from insforge_realtime.web.admission import log_eviction
from insforge_realtime.web.bounded import BoundedHttp

if TYPE_CHECKING:
    from insforge_realtime.web.admission import Admission

SOCKET = "insforge_realtime.socket"
"""Where an ASGI scope has a weak reference to the connection that it came by, if that is counted."""


class CountedHttp(BoundedHttp):
    """One connection."""

    admission: Admission | None = None
    """What counts it, if anything does."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._release()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        self._release()  # the WebSocket is counted for itself
        super().handle_websocket_upgrade()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[SOCKET] = weakref.ref(self)  # type: ignore[literal-required]  # we refer to the scope

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self.admission is not None and self.admission.is_trusted(self.transport):
            self.admission.sockets.authenticated(self)

    def evict(self) -> None:
        """Be gone: another socket gets the place."""
        if self.admission is not None:
            log_eviction("http", self.transport)
        self.transport.abort()

    def _release(self) -> None:
        if self.admission is not None:
            self.admission.sockets.release(self)
