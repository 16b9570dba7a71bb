"""One connection to the server, from its handshake to its end. The only file that knows python-socketio.

A new `Link` is made for every attempt, so nothing of a connection that has gone can reach the next one. The library's own
reconnecting is off: reconnection.py decides when to reconnect.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl as ssl_module
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

try:
    import aiohttp
    import socketio
    import socketio.packet
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        f"the client needs {missing.name}: pip install 'insforge-realtime[client]'", name=missing.name
    ) from None

from insforge_realtime import tasks
from insforge_realtime.client import codec
from insforge_realtime.client.errors import ConnectError, InvalidRequest

# The library logs packets, and so tokens and payloads, at level INFO. To see them, set the level of this logger.
_wire = logging.getLogger("insforge_realtime.client.wire")
_wire.setLevel(logging.CRITICAL + 1)

CLOSE_SECONDS = 2.0
"""How long a good-bye may take: first what was sent before it, then the closing handshake."""
WRITE_SECONDS = 30.0
"""How long a write may wait for a peer that does not read."""

TRANSPORTS = (("websocket",), ("polling",), ("polling", "websocket"))
"""What python-engineio can do: either of the two, or polling first and an upgrade."""

Reply = Callable[[dict[str, Any] | None], None]
"""Called once, with the server's ack; with None when the connection ended first, or the ack was not an object."""

SERVER_DISCONNECT = "io server disconnect"
"""The reason when the server has ended a connection for good, by a DISCONNECT packet."""
_REASONS = {"client disconnect": "io client disconnect", "server disconnect": SERVER_DISCONNECT}
TRANSPORT_CLOSE = "transport close"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to connect, and how.

    Args:
        url: scheme, host and port.
        path: where Socket.IO is there.
        transports: one of `TRANSPORTS`.
        ssl: for https, where the system's certificates are not enough.
    """

    url: str
    path: str
    transports: tuple[str, ...]
    ssl: ssl_module.SSLContext | None = None

    @classmethod
    def parse(cls, base_url: str, transports: Sequence[str], ssl: ssl_module.SSLContext | None) -> Endpoint:
        """Parse an address; a path in `base_url` is where the server is mounted.

        Raises:
            ValueError: the URL cannot be used, or a transport is unknown.
        """
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https", "ws", "wss") or not parts.hostname:
            raise ValueError(f"base_url must be a URL like https://example.com, not {base_url!r}")
        if tuple(transports) not in TRANSPORTS:
            raise ValueError(f"transports must be one of {list(TRANSPORTS)}, not {tuple(transports)!r}")
        url = urlunsplit((parts.scheme, parts.netloc, "", "", ""))
        return cls(url, f"{parts.path.strip('/')}/socket.io".lstrip("/"), tuple(transports), ssl)


class _Socket(aiohttp.ClientWebSocketResponse):
    """A WebSocket that can end although nobody takes its bytes."""

    def abort(self) -> None:
        """Close it without waiting for unsent bytes, as aiohttp would. Harmless when closed."""
        connection = self._response.connection
        if connection is not None and connection.transport is not None:
            connection.transport.abort()
        self._response.close()

    async def send_str(self, data: str, compress: int | None = None) -> None:
        """Send, or fail when it takes too long: python-engineio would wait, and never find the connection dead."""
        async with asyncio.timeout(WRITE_SECONDS):
            await super().send_str(data, compress)


class _Packet(socketio.packet.Packet):  # type: ignore[misc]
    """A packet with our JSON. (The library client's `json=` would change everybody's.)"""

    json = codec
    uses_binary_events = False


class _Namespace(socketio.AsyncClientNamespace):  # type: ignore[misc]
    """Takes every event, whatever its name: `on` does not take `*` or `__disconnect_final` for messages.

    Args:
        own: what to call for the library's events.
        on_message: what to call for the server's, with the name and the data.
    """

    def __init__(self, own: Mapping[str, Callable[..., None]], on_message: Callable[[str, Any], None]) -> None:
        super().__init__("/")
        self._own = own
        self._on_message = on_message

    async def trigger_event(self, event: str, *data: Any) -> None:
        """Take an event from the library."""
        if event in self._own:
            self._own[event](*data)
        elif data:  # without data, it is one of the library's that we can ignore
            self._on_message(event, data[0])


class Link:
    """One connection.

    Args:
        endpoint: where to.
        on_event: called with this link, and the name and the data of every event.
    """

    def __init__(self, endpoint: Endpoint, on_event: Callable[[Link, str, Any], None]) -> None:
        self._endpoint = endpoint
        self._on_event = on_event
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=endpoint.ssl or True),
            ws_response_class=self._new_socket,  # type: ignore[arg-type]
        )
        self._sio = socketio.AsyncClient(
            reconnection=False,
            handle_sigint=False,
            logger=_wire,
            engineio_logger=_wire,
            http_session=self._http,
            serializer=_Packet,
            # The server limits the size of messages; there is no second limit here.
            websocket_extra_options={"max_msg_size": 0},
        )
        self._socket: _Socket | None = None
        self._reason = TRANSPORT_CLOSE
        self._sends: set[asyncio.Task[bool]] = set()
        self._replies: set[Reply] = set()
        self._ended: asyncio.Task[None] | None = None
        self._dropped = asyncio.Event()
        self.is_open = False
        self.last_words: tuple[str, dict[str, Any]] | None = None
        """An event to send, and to have acknowledged, before a good-bye: the server drops a leaver's pending commands."""

    def _new_socket(self, *args: Any, **options: Any) -> _Socket:
        self._socket = _Socket(*args, **options)
        return self._socket

    @property
    def sid(self) -> str | None:
        """The socket's id on the server."""
        sid: str | None = self._sio.get_sid()
        return sid

    async def open(self, credentials: Callable[[], Awaitable[dict[str, str]]], seconds: float) -> None:
        """Connect, and be let in. A failure leaves nothing open.

        Args:
            credentials: makes the data of the CONNECT packet; what it raises is a failure to connect.
            seconds: how long it may take.

        Raises:
            ConnectError: the server could not be reached, or it refused.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._handshake(await _made(credentials))
        except TimeoutError:
            await self.close()
            raise ConnectError("CONNECTION_FAILED", f"No answer from {self._endpoint.url} in {seconds:.3g} s") from None
        except BaseException:
            await self.close()
            raise

    async def _handshake(self, auth: dict[str, str]) -> None:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def answered(data: object = None) -> None:
            if not answer.done():
                answer.set_result(data)

        def let_in() -> None:
            self.is_open = True
            answered()

        own: dict[str, Callable[..., None]] = {
            "connect": let_in,
            "connect_error": answered,
            "disconnect": self._on_disconnect,
        }
        self._sio.register_namespace(_Namespace(own, lambda name, data: self._on_event(self, name, data)))
        try:
            await self._sio.connect(
                self._endpoint.url,
                auth=auth,
                transports=list(self._endpoint.transports),
                socketio_path=self._endpoint.path,
                wait=False,
            )
        except Exception as error:
            raise ConnectError("CONNECTION_FAILED", f"Cannot connect to {self._endpoint.url}: {_why(error)}") from error
        self._ended = asyncio.ensure_future(self._sio.eio.wait())
        await asyncio.wait({answer, self._ended}, return_when=asyncio.FIRST_COMPLETED)
        if not self.is_open:
            raise _refusal(answer.result() if answer.done() else None, self._endpoint.url)

    async def ended(self) -> str:
        """Wait for its end; `close` tidies up. Return the reason, in Socket.IO's words."""
        assert self._ended is not None
        dropped = asyncio.ensure_future(self._dropped.wait())
        try:
            await asyncio.wait({self._ended, dropped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            dropped.cancel()
        return self._reason

    def send(self, name: str, data: dict[str, Any], reply: Reply | None = None) -> asyncio.Task[bool]:
        """Emit an event. Events leave in the order of the calls.

        Args:
            name: the event.
            data: its data.
            reply: called with the ack, which it requests.

        Returns:
            a task whose result is whether it is on its way; False where the connection has gone.

        Raises:
            InvalidRequest: JSON cannot represent it.
        """
        ready = codec.encoded(data)
        once = self._once(reply) if reply else None
        return tasks.start(self._emit(name, ready, once), name, self._sends)

    async def _emit(self, name: str, data: codec.Json, reply: Reply | None) -> bool:
        try:
            await self._sio.emit(name, data, callback=reply)
        except socketio.exceptions.SocketIOError:
            return False
        return True

    def _once(self, reply: Reply) -> Reply:
        """Return a reply that is forgotten when called, and called with None if the connection ends first."""

        def once(answer: object = None, *_: object) -> None:
            self._replies.discard(once)
            reply(answer if isinstance(answer, dict) else None)

        self._replies.add(once)
        return once

    def _on_disconnect(self, reason: str) -> None:
        # No need to wait any longer: after a close by polling, python-engineio sits out a timeout first.
        self._reason = _REASONS.get(reason, TRANSPORT_CLOSE)
        self.drop()

    def drop(self, reason: str | None = None) -> None:
        """End it now: `ended` returns, with this reason if there is one."""
        self._reason = reason or self._reason
        self.is_open = False
        self._dropped.set()

    async def close(self, *, polite: bool = True) -> None:
        """End it. What was sent before leaves first, as far as the peer takes it in time. Harmless to repeat.

        Args:
            polite: false ends it at once.
        """
        heard = False
        try:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(CLOSE_SECONDS):
                    heard = polite and await self._say_goodbye()
        finally:
            self.is_open = False
            for task in (self._ended, self._sio.eio.read_loop_task, self._sio.eio.write_loop_task):
                if task is not None:
                    task.cancel()
            if self._socket is not None and not heard:
                self._socket.abort()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self._http.close()
            for reply in tuple(self._replies):
                reply(None)

    async def _say_goodbye(self) -> bool:
        """Say it, and return whether there was anybody to hear it."""
        if self._sio.eio.state != "connected":
            return False
        if self.is_open:
            if self.last_words is not None:
                heard = asyncio.Event()
                self.send(*self.last_words, lambda _: heard.set())
                await heard.wait()
            await asyncio.gather(*self._sends, return_exceptions=True)
            await self._sio.eio.queue.join()
        await self._sio.disconnect()
        return True


async def _made(credentials: Callable[[], Awaitable[dict[str, str]]]) -> dict[str, str]:
    try:
        auth = await credentials()
    except Exception as error:
        raise ConnectError("CONNECTION_FAILED", f"access_token failed: {type(error).__name__}") from error
    try:
        codec.encoded(auth)
    except InvalidRequest as error:
        raise ConnectError(error.code, f"The credentials cannot be sent: {error.message}") from None
    return auth


def _refusal(data: object, url: str) -> ConnectError:
    """Return a CONNECT_ERROR's data as an error; without any, the connection ended before the answer."""
    if isinstance(data, dict):
        details = data.get("data")
        code = details.get("code") if isinstance(details, dict) else None
        return ConnectError(str(code or "CONNECTION_FAILED"), str(data.get("message", "Refused")))
    return ConnectError("CONNECTION_FAILED", f"{url} closed the connection without an answer")


def _why(error: BaseException) -> str:
    """Return the deepest cause with a message: the library wraps `Connection error` around it."""
    message = str(error)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, aiohttp.WSServerHandshakeError):
            return f"HTTP status {cause.status}"
        message = str(cause) or type(cause).__name__
        cause = cause.__cause__ or cause.__context__
    return message
