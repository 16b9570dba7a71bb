"""`on`, `once` and `off`, with what each event's handlers get. The same for both clients.

The overloads serve handlers without annotations of their own: lambdas. The one for any `Handler` is for lambdas with
further parameters that have defaults, which mypy does not match with the one before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar, overload

from insforge_realtime.client.errors import ConnectError
from insforge_realtime.client.listeners import Listeners
from insforge_realtime.client.types import ErrorInfo, Handler, PresenceEvent, Subscribed

H = TypeVar("H", bound=Handler)
Presence = Literal["presence:join", "presence:leave"]
Remove = Callable[[], None]
"""Removes a listener."""


class Registration:
    """The part of a client that takes listeners.

    Args:
        listeners: keeps and calls them.
    """

    def __init__(self, listeners: Listeners) -> None:
        self._listeners = listeners

    @overload
    def on(self, event: Literal["connect"], handler: Callable[[], object]) -> Remove: ...

    @overload
    def on(self, event: Literal["connect_error"], handler: Callable[[ConnectError], object]) -> Remove: ...

    @overload
    def on(self, event: Literal["disconnect"], handler: Callable[[str], object]) -> Remove: ...

    @overload
    def on(self, event: Literal["error"], handler: Callable[[ErrorInfo], object]) -> Remove: ...

    @overload
    def on(self, event: Literal["realtime:subscribed"], handler: Callable[[Subscribed], object]) -> Remove: ...

    @overload
    def on(self, event: Presence, handler: Callable[[PresenceEvent], object]) -> Remove: ...

    @overload
    def on(self, event: str, handler: Callable[[Any], object]) -> Remove: ...

    @overload
    def on(self, event: str, handler: Handler) -> Remove: ...  # type: ignore[overload-cannot-match]

    @overload
    def on(self, event: str) -> Callable[[H], H]: ...

    def on(self, event: str, handler: Handler | None = None) -> Callable[..., Any]:
        """Listen to an event: a published one, a presence one, or one of the five reserved.

        `connect` (called without data), `connect_error` (a ConnectError), `disconnect` (the reason, a string), `error` (an
        ErrorInfo) and `realtime:subscribed` (a Subscribed). With asyncio plain functions are called at once and must not
        block, and async ones run one call at a time; without it there are plain ones only, which may block.

        Returns:
            a function that removes the listener again; used as a decorator, the function itself.
        """
        return self._register(event, handler, once=False)

    @overload
    def once(self, event: Literal["connect"], handler: Callable[[], object]) -> Remove: ...

    @overload
    def once(self, event: Literal["connect_error"], handler: Callable[[ConnectError], object]) -> Remove: ...

    @overload
    def once(self, event: Literal["disconnect"], handler: Callable[[str], object]) -> Remove: ...

    @overload
    def once(self, event: Literal["error"], handler: Callable[[ErrorInfo], object]) -> Remove: ...

    @overload
    def once(self, event: Literal["realtime:subscribed"], handler: Callable[[Subscribed], object]) -> Remove: ...

    @overload
    def once(self, event: Presence, handler: Callable[[PresenceEvent], object]) -> Remove: ...

    @overload
    def once(self, event: str, handler: Callable[[Any], object]) -> Remove: ...

    @overload
    def once(self, event: str, handler: Handler) -> Remove: ...  # type: ignore[overload-cannot-match]

    @overload
    def once(self, event: str) -> Callable[[H], H]: ...

    def once(self, event: str, handler: Handler | None = None) -> Callable[..., Any]:
        """Listen like `on`, for the next event only."""
        return self._register(event, handler, once=True)

    def off(self, event: str, handler: Handler | None = None) -> None:
        """Remove a listener, or all of an event. Harmless where there is none."""
        self._listeners.remove(event, handler)

    def _register(self, event: str, handler: Handler | None, *, once: bool) -> Callable[..., Any]:
        if handler is not None:
            return self._listeners.add(event, handler, once=once)

        def decorate(handler: H) -> H:
            self._listeners.add(event, handler, once=once)
            return handler

        return decorate
