"""The log under attack: each kind of line has a bucket, and what exceeds it is counted instead of written.

A stranger can cause lines as fast as packets: refused handshakes, closed connections, requests that are not HTTP. The first
of them say all that the others do, and a disk that is full of them, or a collector that is paid by the line, is a second
victim. Nobody keeps a list of the lines that a stranger can cause: every line is limited, wherever it comes from.

A kind is an event's name or, for lines that are not ours, the place in the code that they come from. Every `TELL_SECONDS`
while lines are left out, one line reports which kind and how many. Debug lines are not limited: anybody who turns them on
wants all of them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, WrappedLogger

BURST = 10.0
"""How many seconds' worth of lines of one kind may come at once."""
TELL_SECONDS = 10.0
KINDS = 1000
"""How many kinds are remembered. There are fewer than a hundred."""
LEFT_OUT = "lines left out"

log = structlog.get_logger("insforge_realtime")


class _Kind:
    """Lines of one kind."""

    __slots__ = ("at", "left_out", "lines", "tokens")

    def __init__(self, tokens: float, now: float) -> None:
        self.tokens, self.at = tokens, now
        self.lines = self.left_out = 0


class Floods:
    """Limits what is written.

    Args:
        rate: lines a second of each kind; 0 for no limit.
        tell: called with a kind, the number of its lines left out since the last call, and the number of its lines ever.
        now: the clock, in seconds from anywhere.
    """

    def __init__(
        self, rate: float, tell: Callable[[str, int, int], None], *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate, self._burst = rate, max(1.0, rate * BURST)
        self._tell, self._now = tell, now
        self._kinds: dict[str, _Kind] = {}
        self._telling: set[str] = set()

    def passes(self, name: str) -> bool:
        """Count a line of this kind, and return whether it is to be written."""
        if not self._rate:
            return True
        now = self._now()
        kind = self._kinds.get(name) or self._remember(name, now)
        kind.tokens = min(self._burst, kind.tokens + (now - kind.at) * self._rate)
        kind.at = now
        kind.lines += 1
        if kind.tokens >= 1:
            kind.tokens -= 1
            return True
        kind.left_out += 1
        self._tell_later(name)
        return False

    def tell(self, name: str) -> None:
        """Report what was left out of a kind, if anything was."""
        self._telling.discard(name)
        kind = self._kinds.get(name)
        if kind is not None and kind.left_out:
            left_out, kind.left_out = kind.left_out, 0
            self._tell(name, left_out, kind.lines)

    def tell_all(self) -> None:
        """Do the same for all kinds: nothing more will be written."""
        for name in list(self._kinds):
            self.tell(name)

    def _remember(self, name: str, now: float) -> _Kind:
        if len(self._kinds) >= KINDS:
            oldest = next(iter(self._kinds))
            self.tell(oldest)
            del self._kinds[oldest]
        kind = self._kinds[name] = _Kind(self._burst, now)
        return kind

    def _tell_later(self, name: str) -> None:
        """Schedule the report. A thread without a loop has no clock to wake it: `tell_all` will report it."""
        if name in self._telling:
            return
        try:
            asyncio.get_running_loop().call_later(TELL_SECONDS, self.tell, name)
        except RuntimeError:
            return
        self._telling.add(name)


class Bounded(logging.Filter):
    """A handler's filter for lines that did not come through structlog: mostly those of libraries."""

    def __init__(self, floods: Floods) -> None:
        super().__init__()
        self._floods = floods

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the line is to be written."""
        if isinstance(record.msg, dict):
            return True  # `processor` has let it pass
        ours = record.name.startswith("insforge_realtime")
        name = str(record.msg) if ours else f"{record.name}:{record.lineno}"
        return record.levelno <= logging.DEBUG or self._floods.passes(name)


def processor(floods: Floods) -> structlog.typing.Processor:
    """Make the same filter for structlog's lines, before any work is done for them."""

    def bound(_: WrappedLogger, method: str, event: EventDict) -> EventDict:
        if method != "debug" and event.get("event") != LEFT_OUT and not floods.passes(str(event.get("event"))):
            raise structlog.DropEvent
        return event

    return bound


def say(kind: str, lines: int, ever: int) -> None:
    """Log the report, in a line that always passes."""
    log.warning(LEFT_OUT, of=kind, lines=lines, in_all=ever, limit="REALTIME_MAX_LOG_LINES_PER_SECOND")
