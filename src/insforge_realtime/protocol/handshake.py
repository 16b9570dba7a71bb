"""The opening handshake of a WebSocket (RFC 6455, section 4), as a server sees it, without I/O.

    read(bytes)      the HTTP request in them, if it is complete and requests a WebSocket
    accept(request)  the response that accepts
    refuse(…)        the response that refuses
    subprotocol(…)   which of the offered subprotocols the client gets

httptools reads the HTTP. `websockets` could do all of this, but takes six times as long (77 µs to 12), and keeps the
headers for as long as the connection lives.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from email.utils import formatdate
from http import HTTPStatus

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from insforge_realtime.errors import ProtocolError

VERSION = "13"
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_NAME = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_OFFER = re.compile(rf"{_NAME}(?:[ \t]*,[ \t]*{_NAME})*")


class Request:
    """An HTTP request without a body. httptools calls its `on_…` methods; afterwards it is only read."""

    __slots__ = ("_begun", "_headers", "_target")

    def __init__(self) -> None:
        self._begun = 0
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []

    def on_message_begin(self) -> None:
        self._begun += 1

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    @property
    def alone(self) -> bool:
        """Whether no other request came before it in the same bytes."""
        return self._begun == 1

    @property
    def size(self) -> int:
        """The number of its headers."""
        return len(self._headers)

    @property
    def path(self) -> str:
        """The target, without the query."""
        return self._target.partition(b"?")[0].decode("latin-1")

    @property
    def query(self) -> str:
        """What follows the question mark."""
        return self._target.partition(b"?")[2].decode("latin-1")

    def values(self, name: bytes) -> list[str]:
        """Return all values of a header, whose name is given in lower case."""
        return [value.decode("latin-1").strip() for key, value in self._headers if key == name]

    def tokens(self, name: bytes) -> list[str]:
        """Return the elements of a header that is a list, in lower case."""
        return [token.strip().lower() for token in ",".join(self.values(name)).split(",")]


def read(data: bytes) -> tuple[Request, bytes] | None:
    """Return the request that these bytes begin with, and the bytes after it; None unless it is complete, and a GET of
    HTTP/1.1 that requests an upgrade. Whether it does so correctly, `accept` decides."""
    request = Request()
    parser = HttpRequestParser(request)
    try:
        parser.feed_data(data)
    except HttpParserUpgrade as upgrade:
        if request.alone and parser.get_method() == b"GET" and parser.get_http_version() == "1.1":
            return request, data[upgrade.args[0] :]
    except HttpParserError:
        pass
    return None


def accept(request: Request) -> bytes:
    """Make the response that turns the connection into a WebSocket.

    Raises:
        ProtocolError: the request is not as the RFC demands.
    """
    if "upgrade" not in request.tokens(b"connection") or request.tokens(b"upgrade") != ["websocket"]:
        raise ProtocolError("not a WebSocket handshake")
    if request.values(b"sec-websocket-version") != [VERSION]:
        raise ProtocolError("not this version of WebSocket")
    keys = request.values(b"sec-websocket-key")
    if len(keys) != 1 or not _is_key(keys[0]):
        raise ProtocolError("not a Sec-WebSocket-Key")
    chosen = subprotocol(request.values(b"sec-websocket-protocol"))
    digest = hashlib.sha1(keys[0].encode() + _GUID, usedforsecurity=False).digest()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n%b\r\n"
        % (base64.b64encode(digest), b"" if chosen is None else b"Sec-WebSocket-Protocol: %b\r\n" % chosen.encode())
    )


def subprotocol(offers: list[str]) -> str | None:
    """Choose the first subprotocol that a client offers, as Node's servers do: whatever its name, Engine.IO is spoken.

    Browsers, and Node's clients, treat it as a failure if none is chosen.

    Args:
        offers: the headers `Sec-WebSocket-Protocol`.

    Raises:
        ProtocolError: the offers are not tokens, or one appears twice.
    """
    if not offers:
        return None
    offer = ", ".join(offers)
    if not _OFFER.fullmatch(offer):
        raise ProtocolError("not a Sec-WebSocket-Protocol")
    names = re.findall(_NAME, offer)
    if len(set(names)) < len(names):
        raise ProtocolError("a subprotocol is offered twice")
    return str(names[0])


def refuse(status: HTTPStatus, body: str, retry_after: int = 0) -> bytes:
    """Make the response that ends the connection. It names our version, as the RFC demands if another was requested.

    Args:
        status: of HTTP.
        body: JSON.
        retry_after: in how many seconds to try again; 0 for no such header.
    """
    content = body.encode()
    again = f"Retry-After: {retry_after}\r\n" if retry_after else ""
    return (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nDate: {formatdate(usegmt=True)}\r\nConnection: close\r\n"
        f"{again}Sec-WebSocket-Version: {VERSION}\r\nX-Content-Type-Options: nosniff\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    ).encode() + content


def _is_key(key: str) -> bool:
    """Whether this is sixteen bytes in base64."""
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False
