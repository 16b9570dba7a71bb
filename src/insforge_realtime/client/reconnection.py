"""When to connect, when to wait and when to stop: the decisions, without a socket, a clock or a task.

`step` is a pure function that obeys this table, and the twin of the one in clients/js/src/reconnection.ts: both pass
clients/reconnection-cases.json. connection.py carries out what it decides.

    phase      event                         → phase      action
    ─────────  ────────────────────────────  ───────────  ──────────────────────────────────────────────────────────────
    idle       connect                         handshake  get a token, open a connection
    handshake  accepted                        online     renew every subscription; `connect`; connect() returns
    handshake  failed, not lasting             idle       `connect_error`; connect() raises
    handshake  failed, lasting                 pause      `connect_error`; back off
    handshake  failed: later                   pause      the same, lasting or not
    handshake  token                           handshake  begin again, with the new token
    online     lost                            pause      `disconnect`; back off
    online     lost after TOKEN_EXPIRED        handshake  `disconnect`; at once, unless that connection had just begun
    online     token                           handshake  `disconnect`; at once
    online     ended                           idle       `disconnect`: the server has sent this client away for good
    pause      due, wake, token                handshake  the back-off is over, or there is a reason not to sit it out
    handshake  giveUp, not lasting             idle       connect() raises: its time is over
    pause      giveUp, not lasting             idle       the same
    any        disconnect                      idle       `disconnect` if it was online; connect() raises; all is forgotten
    else                                       unchanged

*Lasting* is a link that has been accepted once: it goes on without end, whatever the failure. UNAUTHORIZED is not an
exception: a function may have a better token next time, a server that cannot tell good from bad for a while may have its
keys back, and set_access_token is always possible. A link that is not lasting is the first connect() of a program, which
wants to hear that its address or its token is wrong. (In TypeScript a mounted component makes a link lasting, and a network
that is back wakes it; Python has neither.)
A failure is *later* when the server cannot judge, or not now: UNAVAILABLE, RATE_LIMITED. It is never taken for a no.
A connection has *held* when it lasted a while. Then the count of failures begins anew; a server that accepts and drops at
once does not see its clients come back any faster.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Phase = Literal["idle", "handshake", "online", "pause"]
EventType = Literal[
    "connect",
    "accepted",
    "failed",
    "lost",
    "expired",
    "ended",
    "due",
    "wake",
    "token",
    "giveUp",
    "disconnect",
]


@dataclass(frozen=True, slots=True)
class LinkState:
    """All that the decisions depend on.

    Args:
        phase: where the link stands.
        failures: handshakes that failed, and connections that did not hold, one after the other.
        lasting: it goes on whatever fails.
        expired: the server has announced that the token has ended.
    """

    phase: Phase = "idle"
    failures: int = 0
    lasting: bool = False
    expired: bool = False


@dataclass(frozen=True, slots=True)
class LinkEvent:
    """What happens to a link.

    Args:
        type: what.
        lasting: of `connect`.
        later: of `failed`.
        held: of `lost`, and of `token` while online.
    """

    type: EventType
    lasting: bool = False
    later: bool = False
    held: bool = False


@dataclass(frozen=True, slots=True)
class Action:
    """What is to be done.

    Args:
        do: open a connection, wait for the back-off, or do nothing more.
        failures: of `wait`: how many there were before this one.
    """

    do: Literal["open", "wait", "stop"]
    failures: int = 0


Step = tuple[LinkState, Action | None]
"""A decision. No action: what is being done is right."""

IDLE = LinkState()
"""Before anything has happened."""
OPEN = Action("open")
STOP = Action("stop")


def step(state: LinkState, event: LinkEvent) -> Step:
    """Decide by the table above."""
    if event.type == "disconnect":
        return IDLE, STOP
    if event.type == "connect":
        return _connect(replace(state, lasting=state.lasting or event.lasting))
    match state.phase:
        case "handshake":
            return _in_handshake(state, event)
        case "online":
            return _online(state, event)
        case "pause":
            return _in_pause(state, event)
        case "idle":
            return state, None


def _connect(state: LinkState) -> Step:
    return _open(state) if state.phase == "idle" else (state, None)


def _in_handshake(state: LinkState, event: LinkEvent) -> Step:
    match event.type:
        case "accepted":
            return replace(state, phase="online", lasting=True, expired=False), None
        case "failed":
            return _pause(state) if event.later or state.lasting else (IDLE, STOP)
        case "token":
            return _open(state)
        case "giveUp":
            return _give_up(state)
    return state, None


def _online(state: LinkState, event: LinkEvent) -> Step:
    match event.type:
        case "expired":
            return replace(state, expired=True), None
        case "ended":
            return IDLE, STOP
        case "lost" | "token":
            after = replace(state, failures=0 if event.held else state.failures)
            at_once = event.type == "token" or (state.expired and event.held)
            return _open(after) if at_once else _pause(after)
    return state, None


def _in_pause(state: LinkState, event: LinkEvent) -> Step:
    match event.type:
        case "due" | "wake" | "token":
            return _open(state)
        case "giveUp":
            return _give_up(state)
    return state, None


def _give_up(state: LinkState) -> Step:
    return (state, None) if state.lasting else (IDLE, STOP)


def _open(state: LinkState) -> Step:
    return replace(state, phase="handshake", expired=False), OPEN


def _pause(state: LinkState) -> Step:
    return replace(state, phase="pause", failures=state.failures + 1), Action("wait", state.failures)
