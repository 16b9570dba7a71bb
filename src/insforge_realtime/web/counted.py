"""An HTTP connection as a guest: counted from its first bytes to its end (admission.py).

transports/polling.py vouches for it once it has carried a request of a session whose client was let in; so does it itself if
it comes from a trusted proxy, whose connections are many clients'. Until then it may have to give way.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from insforge_realtime.web.bounded import BoundedHttp
from insforge_realtime.web.gateway import GUEST

if TYPE_CHECKING:
    from insforge_realtime.web.gateway import Gateway


class CountedHttp(BoundedHttp):
    """One connection."""

    gateway: Gateway | None = None
    """Whose guest it is, once it has got its place."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        self._leave()  # the WebSocket takes a place of its own
        super().handle_websocket_upgrade()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[GUEST] = weakref.ref(self)  # type: ignore[literal-required]  # we refer to the scope

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self.gateway is not None and self.gateway.is_trusted(self.transport):
            self.gateway.sockets.vouch(self)

    def give_way(self) -> None:
        """Another socket gets the place."""
        if self.gateway is not None:
            self.gateway.tell_of_a_place("http", self.transport)
        self.transport.abort()

    def _leave(self) -> None:
        if self.gateway is not None:
            self.gateway.sockets.leave(self)
