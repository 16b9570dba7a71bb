"""Who listens to which event, and how they are called.

Plain listeners are called at once, in order. An async listener has one call running at a time; what comes meanwhile waits
in its own queue, so each listener sees its events in order and does not wait for another. What one raises is logged and
affects nobody else. `on` and `off` may be called from any thread, and from a listener.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from insforge_realtime import tasks
from insforge_realtime.client.types import Handler

log = logging.getLogger(__name__)

WAITING_MANY = 1000
"""Calls in an async listener's queue at which a warning is logged."""


class Listener:
    """One registration."""

    __slots__ = ("active", "handler", "once", "waiting", "working")

    def __init__(self, handler: Handler, once: bool) -> None:
        self.handler = handler
        self.once = once
        self.active = True
        self.working = False
        self.waiting: deque[tuple[Any, ...]] = deque()


class Listeners:
    """The listeners of one client."""

    def __init__(self) -> None:
        self._by_event: dict[str, tuple[Listener, ...]] = {}
        self._lock = threading.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, event: str, handler: Handler, *, once: bool = False) -> Callable[[], None]:
        """Listen, unless the handler already listens to this event. Return what removes it."""
        added = self.apart(handler)
        added.once = once
        with self._lock:
            present = self._by_event.get(event, ())
            if not any(listener.handler == handler and listener.once == once for listener in present):
                self._by_event[event] = (*present, added)
        return lambda: self.remove(event, handler)

    def remove(self, event: str, handler: Handler | None = None) -> None:
        """Forget a handler, or all of an event. It is not called again, not even for what is queued."""
        with self._lock:
            present = self._by_event.get(event, ())
            gone = [listener for listener in present if handler is None or listener.handler == handler]
            for listener in gone:
                listener.active = False
            self._keep(event, gone)

    def emit(self, event: str, *data: object) -> None:
        """Call all current listeners of this event."""
        listeners = self._by_event.get(event, ())
        used = [listener for listener in listeners if listener.once]
        if used:
            with self._lock:
                self._keep(event, used)
        for listener in listeners:
            self._call(event, listener, data)

    def apart(self, handler: Handler) -> Listener:
        """Make a listener that its caller keeps, and calls by `call`.

        Raises:
            TypeError: it is not callable.
        """
        if not callable(handler):
            raise TypeError(f"a listener must be callable, not {type(handler).__name__}")
        return Listener(handler, False)

    def call(self, event: str, listener: Listener, *data: object) -> None:
        """Call a listener that is kept apart."""
        self._call(event, listener, data)

    def forget_calls(self) -> None:
        """Forget the calls under way and those queued: they went with their event loop. The listeners stay."""
        with self._lock:
            for listeners in self._by_event.values():
                for listener in listeners:
                    listener.working = False
                    listener.waiting.clear()
            self._tasks.clear()

    def _keep(self, event: str, gone: list[Listener]) -> None:
        kept = tuple(listener for listener in self._by_event.get(event, ()) if listener not in gone)
        self._by_event[event] = kept
        if not kept:
            del self._by_event[event]

    def _call(self, event: str, listener: Listener, data: tuple[Any, ...]) -> None:
        if listener.working:
            listener.waiting.append(data)
            if len(listener.waiting) == WAITING_MANY:
                log.warning("a listener of %r is slow: %d events are waiting for it", event, WAITING_MANY)
            return
        result = self._begin(event, listener, data)
        if inspect.isawaitable(result):
            listener.working = True
            tasks.start(self._work(event, listener, result), f"a listener of {event!r}", self._tasks)

    @staticmethod
    def _begin(event: str, listener: Listener, data: tuple[Any, ...]) -> object:
        try:
            return listener.handler(*data) if listener.active else None
        except Exception:
            log.exception("a listener of %r failed", event)
            return None

    async def _work(self, event: str, listener: Listener, result: Any) -> None:
        """Finish a call that has begun, then those in the queue."""
        try:
            while True:
                try:
                    if inspect.isawaitable(result):
                        await result
                except Exception:
                    log.exception("a listener of %r failed", event)
                if not listener.waiting:
                    return
                result = self._begin(event, listener, listener.waiting.popleft())
        finally:
            listener.working = False
