"""A WebSocket that asks to become the transport of a session that polls. Until it is, it carries nothing.

protocol/upgrade.py has the packets; here is what they do to the poll that waits and to the session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import structlog

from insforge_realtime.errors import MESSAGE_TOO_BIG, Close, ProtocolError, broken_protocol
from insforge_realtime.protocol.upgrade import DONE, PROBED, Upgrade

if TYPE_CHECKING:
    from insforge_realtime.protocol import engineio
    from insforge_realtime.web.transport import Upgradable

log = structlog.get_logger("insforge_realtime.web")


class Upgrading(Protocol):
    """The session, as an attempt sees it."""

    attempt: UpgradeAttempt | None
    """The one that is under way."""

    @property
    def address(self) -> str:
        """The client's, for the log."""

    def release(self) -> None:
        """Answer the poll that waits."""

    def hand_over(self, websocket: Upgradable) -> None:
        """Let the WebSocket carry the session, with all that is unsent."""


class UpgradeAttempt:
    """One attempt; a `Receiver`.

    Args:
        session: what polls.
        websocket: what asks to carry it.
    """

    __slots__ = ("_session", "_upgrade", "_websocket")

    def __init__(self, session: Upgrading, websocket: Upgradable) -> None:
        self._session = session
        self._websocket = websocket
        self._upgrade = Upgrade()

    @property
    def answered(self) -> bool:
        """Whether the client is about to come to rest."""
        return self._upgrade.state == PROBED

    def receive(self, packet: engineio.Packet) -> None:
        """Take in one packet."""
        try:
            answer = self._upgrade.receive(packet)
        except ProtocolError as error:
            self.fail(broken_protocol(str(error)))
            return
        if answer is not None:
            self._websocket.send(answer)
            self._session.release()
        if self._upgrade.state == DONE:
            self._session.hand_over(self._websocket)

    def fail(self, end: Close) -> None:
        """Close the WebSocket. The session goes on over polling."""
        log.info("upgrade failed", code=end.code, reason=end.reason, address=self._session.address)
        self._websocket.close(end)
        self.lost()

    def too_large(self) -> None:
        """Close: no packet of an upgrade is large."""
        self.fail(MESSAGE_TOO_BIG)

    def too_slow(self) -> None:
        """Cut: the client does not even read pongs."""
        self._websocket.cut()

    def end(self) -> None:
        """Let another one try: the client gave up."""
        self.lost()

    def lost(self) -> None:
        """Let another one try: the WebSocket is gone."""
        if self._session.attempt is self:
            self._session.attempt = None
