"""What the endpoints of all transports hold. What each does with a request is in its transport's file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from insforge_realtime.delivery import Congestion
    from insforge_realtime.web.admission import Admission
    from insforge_realtime.web.connection import MakeConnection
    from insforge_realtime.web.gateway import Gateway
    from insforge_realtime.web.limits import Limits
    from insforge_realtime.web.timer_wheel import TimerWheel


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What all that come in here share.

    Args:
        gateway: the long-polling sessions, which a WebSocket may take over.
        admission: who may come in.
        connect: makes a connection.
        limits, congestion, wheel: of each transport.
    """

    gateway: Gateway
    admission: Admission
    connect: MakeConnection
    limits: Limits
    congestion: Congestion
    wheel: TimerWheel
