"""The client's verbs: what a program calls. What they set in motion is in connection.py and in subscriptions.py.

Listeners outlive all of it: only `off` forgets them.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Callable, Collection
from types import TracebackType
from typing import Any, Literal, Self, overload

from insforge_realtime.client import codec
from insforge_realtime.client.backoff import Backoff
from insforge_realtime.client.connection import Connection, Hooks
from insforge_realtime.client.errors import ConnectError, InvalidRequest, NotConnected, SubscribeError
from insforge_realtime.client.link import SERVER_DISCONNECT, Endpoint, Link
from insforge_realtime.client.listeners import Listener, Listeners
from insforge_realtime.client.message_buffer import MessageBuffer
from insforge_realtime.client.options import ClientOptions, takes
from insforge_realtime.client.registration import Registration
from insforge_realtime.client.subscriptions import Notices, Subscriptions
from insforge_realtime.client.types import (
    SUBSCRIBED,
    AccessToken,
    ConnectionState,
    ErrorInfo,
    Member,
    Message,
    PublishResponse,
    Subscribed,
    SubscribeResponse,
)


class RealtimeClient(Registration):
    """A client of one server, in one event loop at a time. Made by `create_client`; `async with` disconnects it.

    Entering the block does not connect, so that listeners can be added first: `connect`, `subscribe` and `stream` do.
    The end of an event loop, of `asyncio.run`, ends the connection in it; in the next one the client begins anew, with its
    listeners. Every awaited verb raises RuntimeError while the client is connected in another loop.
    """

    def __init__(self, options: ClientOptions, listeners: Listeners | None = None) -> None:
        self._access_token = options.access_token
        self._options = options
        self._loop: asyncio.AbstractEventLoop | None = None
        super().__init__(listeners or Listeners())
        endpoint = Endpoint.parse(options.base_url, options.transports, options.ssl)
        hooks = Hooks(self._opened, self._ended, self._failed, self._given_up, self._received)
        backoff = Backoff(*options.backoff)
        self._connection = Connection(endpoint, self._credentials, backoff, options.timeout, hooks)
        notices = Notices(self._joined, self._heard, self._refused, self._connection.expired, self._connection.late)
        self._channels = Subscriptions(options.timeout, backoff, notices)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.disconnect()

    # The connection.

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now."""
        return self.connection_state == "connected"

    @property
    def connection_state(self) -> ConnectionState:
        """`disconnected`, `connecting` (the first time, or again) or `connected`."""
        self._forget_a_closed_loop()
        return self._connection.state

    @property
    def socket_id(self) -> str | None:
        """The socket's id on the server, while connected."""
        self._forget_a_closed_loop()
        link = self._connection.link
        return None if link is None else link.sid

    async def connect(self) -> None:
        """Connect, and stay connected until `disconnect`. Harmless while connected.

        Raises:
            ConnectError: the first attempt failed (there is no further one; after UNAVAILABLE and RATE_LIMITED there is,
                within `timeout`), or, while the client is reconnecting by itself, there is no connection yet after
                `timeout` (it goes on trying).
        """
        self._enter_loop()
        await self._connection.open()

    async def disconnect(self) -> None:
        """End the connection and every subscription. Listeners stay. The server handles earlier publishes first."""
        self._enter_loop()
        self._channels.clear()
        await self._connection.close()

    def set_access_token(self, access_token: AccessToken | None, *, reconnect: bool = True) -> None:
        """Use another token from now on, or another function that returns one. A reconnecting client tries at once.

        Args:
            access_token: the token, or the function.
            reconnect: replace an open connection, so that the policies judge the new user and every subscription is
                renewed. False is for a fresh token of the same user: it is used at the next handshake.
        """
        self._access_token = access_token
        self._forget_a_closed_loop()
        if reconnect or not self.is_connected:
            self._connection.renew()

    # Channels.

    async def subscribe(
        self, channel: str, *, on_subscribed: Callable[[Subscribed], object] | None = None
    ) -> SubscribeResponse:
        """Subscribe to a channel, connecting if need be. Harmless to repeat.

        The subscription is renewed after each reconnect, until `unsubscribe`. Return a refusal with the server's code, or
        with `CONNECTION_FAILED`, `SUBSCRIBE_TIMEOUT`, `SUBSCRIPTION_CANCELLED` (by `unsubscribe`), `DISCONNECTED` or
        `INVALID_REQUEST` (the name cannot be sent).

        Args:
            channel: the channel's name.
            on_subscribed: called, like a listener, at each confirmation until `unsubscribe`: the first, and after each
                reconnect, before any message of the channel is delivered. The moment to read the state from the database.
                At once, where the channel is already subscribed to.
        """
        self._enter_loop()
        told = None if on_subscribed is None else self._listeners.apart(on_subscribed)
        if problem := _unsayable(channel):
            return SubscribeResponse(False, channel, problem)
        self._connection.start()
        return await self._channels.subscribe(channel, told)

    async def unsubscribe(self, channel: str) -> None:
        """Leave a channel. Listeners hear no more of it; its streams end."""
        self._enter_loop()
        self._channels.leave(channel)

    def get_subscribed_channels(self) -> list[str]:
        """Return the channels that the server has confirmed on this connection."""
        self._forget_a_closed_loop()
        return self._channels.joined()

    def get_presence_state(self, channel: str) -> list[Member]:
        """Return who is in a channel that we are subscribed to; while reconnecting, who was there last."""
        self._forget_a_closed_loop()
        return self._channels.members(channel)

    @overload
    async def publish(
        self, channel: str, event: str, payload: dict[str, Any], *, ack: Literal[False] = False
    ) -> None: ...

    @overload
    async def publish(
        self, channel: str, event: str, payload: dict[str, Any], *, ack: Literal[True]
    ) -> PublishResponse: ...

    async def publish(
        self, channel: str, event: str, payload: dict[str, Any], *, ack: bool = False
    ) -> PublishResponse | None:
        """Publish to a channel that we are subscribed to.

        Args:
            channel: the channel's name.
            event: the event's name.
            payload: a JSON object.
            ack: wait for the server's answer: that the message is committed, or why not. With code `DISCONNECTED` or
                `PUBLISH_TIMEOUT` nobody knows. Without it a refusal arrives as the event `error`.

        Raises:
            NotConnected: there is no connection now.
            InvalidRequest: JSON cannot represent it (NaN, half a surrogate pair, an object of a class of yours): nothing
                was sent.
        """
        self._enter_loop()
        link = self._connection.link
        if link is None or not link.is_open:
            raise NotConnected(self._connection.last_error) from self._connection.last_error
        request = {"channel": channel, "event": event, "payload": payload}
        if ack:
            return await self._acknowledged(link, request)
        if not await link.send("realtime:publish", request):
            raise NotConnected
        # Commands are handled in their order: once this is acknowledged, the message has been handled.
        link.last_words = ("realtime:unsubscribe", {"channel": channel})
        return None

    async def _acknowledged(self, link: Link, request: dict[str, Any]) -> PublishResponse:
        answer: asyncio.Future[dict[str, Any] | None] = asyncio.get_running_loop().create_future()

        def reply(ack: dict[str, Any] | None) -> None:
            if not answer.done():
                answer.set_result(ack)

        if not await link.send("realtime:publish", request, reply):
            raise NotConnected
        try:
            async with asyncio.timeout(self._options.timeout):
                ack = await answer
        except TimeoutError:
            return _unpublished(request["channel"], "PUBLISH_TIMEOUT", "No answer from the server in time")
        if ack is None:
            return _unpublished(request["channel"], "DISCONNECTED", "The connection was lost before the answer")
        if ack.get("ok"):
            return PublishResponse(True, ack.get("messageId"))
        error = ack.get("error") or {}
        return _unpublished(request["channel"], str(error.get("code")), str(error.get("message")))

    async def stream(
        self,
        channel: str,
        *,
        events: Collection[str] | None = None,
        buffer: int = 10_000,
        on_subscribed: Callable[[Subscribed], object] | None = None,
    ) -> AsyncGenerator[Message, None]:
        """Subscribe, yield the channel's messages as they come, and unsubscribe at the end of the loop.

        Streams and `subscribe` share one subscription of a channel: the last one out leaves. The stream lives through
        reconnects; it ends with `unsubscribe` or `disconnect`.

        Args:
            channel: the channel's name.
            events: the names of the events to yield (presence ones too); None for all messages, without presence.
            buffer: how many messages may wait for a slow reader. One more, and the stream ends with StreamOverflow, after
                those that wait: a gap is never hidden.
            on_subscribed: as in `subscribe`, until the end of the loop.

        Raises:
            SubscribeError: the channel was refused, now or at a reconnect; or the server has disconnected this user.
            StreamOverflow: the reader was too slow.
        """
        messages = await self._open_stream(channel, events, buffer, on_subscribed)
        try:
            while (message := await messages.get()) is not None:
                yield message
        finally:
            self._close_stream(messages)

    async def _open_stream(
        self,
        channel: str,
        events: Collection[str] | None,
        buffer: int,
        on_subscribed: Callable[[Subscribed], object] | None,
    ) -> MessageBuffer:
        """Return what `stream` reads from, for a loop that is not in this thread; `_close_stream` closes it."""
        self._enter_loop()
        told = None if on_subscribed is None else self._listeners.apart(on_subscribed)
        messages = MessageBuffer(channel, events, buffer)
        if problem := _unsayable(channel):
            raise SubscribeError(problem.code, problem.message)
        self._connection.start()
        await self._channels.follow(messages, told)
        return messages

    def _close_stream(self, messages: MessageBuffer) -> None:
        """End a stream; the last one out leaves the channel."""
        self._channels.unfollow(messages)

    # The event loop.

    def _enter_loop(self) -> None:
        """Use the running loop from now on.

        Raises:
            RuntimeError: there is a connection in another one.
        """
        self._forget_a_closed_loop()
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._connection.state != "disconnected":
                raise RuntimeError(
                    "This client is connected in another event loop: use or disconnect it there, or create another"
                )
            self._forget_the_loop()
            self._loop = loop

    def _forget_a_closed_loop(self) -> None:
        if self._loop is not None and self._loop.is_closed():
            self._forget_the_loop()

    def _forget_the_loop(self) -> None:
        self._loop = None
        self._connection.forget()
        self._channels.forget()
        self._listeners.forget_calls()

    # What the connection reports.

    def _opened(self, link: Link) -> None:
        self._channels.connection_opened(link)
        self._listeners.emit("connect")

    def _ended(self, reason: str) -> None:
        self._channels.connection_ended()
        if reason == SERVER_DISCONNECT and self._connection.last_error is not None:
            self._channels.given_up(self._connection.last_error)
        self._listeners.emit("disconnect", reason)

    def _failed(self, error: ConnectError) -> None:
        self._listeners.emit("connect_error", error)

    def _given_up(self, error: ConnectError) -> None:
        self._channels.given_up(error)

    def _received(self, name: str, data: Any) -> None:
        if name == "realtime:error":
            self._errored(data if isinstance(data, dict) else {})
        elif name != SUBSCRIBED and self._channels.received(name, data):
            self._listeners.emit(name, data)

    def _errored(self, data: dict[str, Any]) -> None:
        info = ErrorInfo(str(data.get("code")), str(data.get("message")), data.get("channel"))
        self._listeners.emit("error", info)
        if info.code == "TOKEN_EXPIRED":
            self._connection.expired()

    def _joined(self, news: Subscribed, told: list[Listener]) -> None:
        for listener in told:
            self._heard(news, listener)
        self._listeners.emit(SUBSCRIBED, news)

    def _heard(self, news: Subscribed, listener: Listener) -> None:
        self._listeners.call(SUBSCRIBED, listener, news)

    def _refused(self, info: ErrorInfo) -> None:
        self._listeners.emit("error", info)

    async def _credentials(self) -> dict[str, str]:
        if self._options.api_key is not None:
            return {"apiKey": self._options.api_key}
        token: object = self._access_token
        if callable(token):
            token = token()
        if inspect.isawaitable(token):
            token = await token
        token = token or self._options.anon_key
        return {"token": str(token)} if token else {}


@takes(ClientOptions)
def create_client(options: ClientOptions) -> RealtimeClient:
    """Return a client that is not connected yet: `async with create_client(url, access_token=token) as client:`."""
    return RealtimeClient(options)


def _unsayable(channel: str) -> ErrorInfo | None:
    """Return why a channel's name cannot be sent, or None."""
    try:
        codec.encoded({"channel": channel})
    except InvalidRequest as error:
        return ErrorInfo(error.code, error.message, channel)
    return None


def _unpublished(channel: str, code: str, message: str) -> PublishResponse:
    return PublishResponse(False, error=ErrorInfo(code, message, channel))
