"""What `create_client` takes: written once, for both clients. What is made of it is in realtime.py."""

from __future__ import annotations

import functools
import inspect
import ssl as ssl_module
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import ParamSpec, TypeVar

from insforge_realtime.client.types import AccessToken

P = ParamSpec("P")
Made = TypeVar("Made")
Options = TypeVar("Options")


@dataclass(frozen=True, slots=True, repr=False)  # it holds secrets
class ClientOptions:
    """A client's options.

    Args:
        base_url: of the server, `https://example.com`; a path in it is where the server is mounted.
        access_token: the user's JWT, or a function (plain or async) that is called for one at every handshake, so that a
            reconnect has a fresh one. None, or a function that returns None, falls back to `anon_key`.
        anon_key: the project's anonymous key.
        api_key: the project's admin key, for servers only; instead of the other two.
        transports: `("websocket",)`; or, where WebSockets do not get through, `("polling",)`; or `("polling", "websocket")`,
            which begins with polling and upgrades.
        ssl: for https, where the system's certificates are not enough.
        timeout: of one handshake, of a subscribe, of an acknowledgement, in seconds.
        backoff: the first and the longest wait between two attempts, in seconds.

    Raises:
        ValueError: an argument cannot be used.
    """

    base_url: str
    _: KW_ONLY
    access_token: AccessToken | None = None
    anon_key: str | None = None
    api_key: str | None = None
    transports: Sequence[str] = ("websocket",)
    ssl: ssl_module.SSLContext | None = None
    timeout: float = 10.0
    backoff: tuple[float, float] = (1.0, 20.0)

    def __post_init__(self) -> None:
        if self.api_key is not None and (self.access_token is not None or self.anon_key is not None):
            raise ValueError("give either api_key, or access_token and anon_key")
        if self.timeout <= 0 or not 0 < self.backoff[0] <= self.backoff[1]:
            raise ValueError("timeout must be positive, and backoff (first, limit) with 0 < first <= limit")


def takes(options: Callable[P, Options]) -> Callable[[Callable[[Options], Made]], Callable[P, Made]]:
    """Return a decorator that gives a function of some options their own arguments, for callers and for type checkers."""

    def decorate(make: Callable[[Options], Made]) -> Callable[P, Made]:
        @functools.wraps(make)
        def made(*args: P.args, **kwargs: P.kwargs) -> Made:
            return make(options(*args, **kwargs))

        made.__doc__ = f"{make.__doc__}\n{inspect.cleandoc(options.__doc__ or '').partition(chr(10))[2]}"
        signature = inspect.signature(options).replace(return_annotation=inspect.signature(make).return_annotation)
        made.__signature__ = signature  # type: ignore[attr-defined]  # which help() and notebooks read
        return made

    return decorate
