"""An HTTP connection as a guest: counted from its first bytes to its end (admission.py).

Somebody vouches for it once it has carried a request of a session whose client was let in (polling.py does), or if it comes
from a trusted proxy, whose connections are many clients'. Until then it may have to give way.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from insforge_realtime.web.bounded import BoundedHttp
from insforge_realtime.web.doorway import GUEST

if TYPE_CHECKING:
    from insforge_realtime.web.doorway import Doorway


class CountedHttp(BoundedHttp):
    """One connection."""

    doorway: Doorway | None = None
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
        if self.doorway is not None and self.doorway.is_trusted(self.transport):
            self.doorway.sockets.vouch(self)

    def give_way(self) -> None:
        """Another socket gets the place."""
        if self.doorway is not None:
            self.doorway.tell_of_a_place("http", self.transport)
        self.transport.abort()

    def _leave(self) -> None:
        if self.doorway is not None:
            self.doorway.sockets.leave(self)
