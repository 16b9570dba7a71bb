"""When a proxy stands in between: who the client is, and which path the proxy leaves on the requests.

`X-Forwarded-*` counts from those proxies only that the operator trusts. A request that comes from anywhere else keeps the
address that its socket has, whatever its headers say.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

UNKNOWN = "unknown"
"""The address of whatever comes through a UNIX socket."""


class TrustedProxies:
    """The proxies whose word counts.

    Args:
        networks: their addresses.
    """

    def __init__(self, networks: Iterable[IPv4Network | IPv6Network]) -> None:
        self._networks = tuple(networks)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def __contains__(self, address: str) -> bool:
        parsed = _parsed(address)
        return parsed is not None and any(parsed in network for network in self._networks)

    def client(self, peer: str, forwarded_for: str) -> str:
        """Return the client's address.

        Args:
            peer: the address of the socket's other end.
            forwarded_for: `X-Forwarded-For`, several of them joined with commas. Each proxy appends the address that it
                got the request from, so the first from the right that is not a trusted proxy is the client. Anything that is
                not an address (`unknown`, or an attack on the log) is ignored: the proxy before it is the last one known.
        """
        address = peer
        for hop in reversed([hop.strip() for hop in forwarded_for.split(",") if hop.strip()]):
            hop = _without_port(hop)
            if address not in self or _parsed(hop) is None:
                break
            address = hop
        return address


def _parsed(address: str) -> IPv4Address | IPv6Address | None:
    """Parse an address; an IPv4-mapped IPv6 address, as dual-stack sockets report it, becomes IPv4."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed


def _without_port(hop: str) -> str:
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


class ForwardedHeaders:
    """ASGI middleware: sets `client` and `scheme` of a request to what a trusted proxy reports.

    Args:
        app: what it wraps.
        trusted: the proxies.
    """

    def __init__(self, app: ASGIApp, trusted: TrustedProxies) -> None:
        self._app = app
        self._trusted = trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            peer = scope["client"][0] if scope.get("client") else UNKNOWN
            if peer in self._trusted:
                scope = {**scope, **self._forwarded(scope, peer)}
        await self._app(scope, receive, send)

    def _forwarded(self, scope: Scope, peer: str) -> dict[str, object]:
        forwarded_for = ", ".join(header_values(scope, b"x-forwarded-for"))
        forwarded: dict[str, object] = {"client": (self._trusted.client(peer, forwarded_for), 0)}
        scheme = ", ".join(header_values(scope, b"x-forwarded-proto"))
        if scheme in ("http", "https"):
            forwarded["scheme"] = scheme.replace("http", "ws") if scope["type"] == "websocket" else scheme
        return forwarded


class RootPath:
    """ASGI middleware: tells the application of the path that a proxy leaves on its requests.

    Args:
        app: what it wraps.
        root_path: the path. One that the server, or the application that we are mounted in, already knows of wins.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan" and not scope.get("root_path"):
            scope = {**scope, "root_path": self._root_path}
        await self._app(scope, receive, send)


def header_values(scope: Scope, name: bytes) -> list[str]:
    """Return the values that an ASGI scope has for a header."""
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]
