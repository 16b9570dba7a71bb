"""A WebSocket that asks to become the transport of a connection that polls. While it asks, it carries nothing.

protocol/upgrade.py says what may be said; here is what that does to the poll that waits and to the connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import structlog

from insforge_realtime.errors import MESSAGE_TOO_BIG, UPGRADE_REFUSED, Close, ProtocolError, broken_protocol
from insforge_realtime.protocol.upgrade import DONE, PROBED, Upgrade
from insforge_realtime.web.connection import Receiver, Transport

if TYPE_CHECKING:
    from insforge_realtime.protocol import engineio
    from insforge_realtime.web.transports.polling import Polling

log = structlog.get_logger("insforge_realtime.web")


class Upgradable(Transport, Protocol):
    """A transport that can be asked to carry for somebody else."""

    def carry(self, receiver: Receiver) -> None:
        """From now on, hand packets to this one."""


class UpgradeAttempt:
    """One attempt; a `Receiver`.

    Args:
        polling: what carries the connection now.
        websocket: what asks to.
    """

    __slots__ = ("_polling", "_upgrade", "_websocket")

    def __init__(self, polling: Polling, websocket: Upgradable) -> None:
        self._polling = polling
        self._websocket = websocket
        self._upgrade = Upgrade()

    def begin(self) -> None:
        """Begin, unless another WebSocket has begun, or the session is no longer polling."""
        if self._polling.may_upgrade:
            self._polling.probe = self
        else:
            self.fail(UPGRADE_REFUSED)

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
            self._polling.release()
        if self._upgrade.state == DONE:
            connection = self._polling.connection
            self._websocket.carry(connection)
            connection.carry_on(self._websocket, self._polling.hand_over())

    def fail(self, end: Close) -> None:
        """It does not become one. The session goes on over polling."""
        log.info("upgrade failed", code=end.code, reason=end.reason, address=self._polling.connection.address)
        self._websocket.close(end)
        self.lost()

    def too_large(self) -> None:
        """No packet of an upgrade is large."""
        self.fail(MESSAGE_TOO_BIG)

    def too_slow(self) -> None:
        """It does not even read pongs."""
        self._websocket.cut()

    def end(self) -> None:
        """The client gave up."""
        self.lost()

    def lost(self) -> None:
        """The WebSocket is gone."""
        if self._polling.probe is self:
            self._polling.probe = None
