"""The client for programs without asyncio: the same verbs, which wait instead of being awaited.

    with create_client("https://example.com", access_token=token) as client:
        for message in client.stream("order:123"):
            print(message.event, message["status"])

A client has two threads, from its first use to the end of its `with` block. The asyncio client lives in one. The other calls
all listeners, one after the other, in the order of the events: a listener may take its time, and may use the client, but it
holds up the listeners behind it. An `access_token` function is called in the first, and must not use the client.
"""

from __future__ import annotations

import asyncio
import inspect
import queue
import threading
from collections.abc import Callable, Collection, Coroutine, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, overload

from insforge_realtime.client.listeners import Listener, Listeners
from insforge_realtime.client.options import ClientOptions, takes
from insforge_realtime.client.realtime import RealtimeClient as AsyncRealtimeClient
from insforge_realtime.client.registration import Registration
from insforge_realtime.client.types import (
    AccessToken,
    ConnectionState,
    Handler,
    Member,
    Message,
    PublishResponse,
    Subscribed,
    SubscribeResponse,
)

__all__ = ["RealtimeClient", "create_client"]

T = TypeVar("T")


class _ThreadedListeners(Listeners):
    """Listeners with a thread of their own."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: queue.SimpleQueue[tuple[str, Listener, tuple[Any, ...]] | None] = queue.SimpleQueue()

    def apart(self, handler: Handler) -> Listener:
        """Make a listener; plain functions only."""
        if inspect.iscoroutinefunction(handler):
            raise TypeError("async listeners are for insforge_realtime.client; this one takes plain functions")
        return super().apart(handler)

    def run(self) -> None:
        """Call listeners until `stop`: the body of the thread."""
        while (call := self._calls.get()) is not None:
            self._begin(*call)

    def stop(self) -> None:
        """Have `run` return after what has come so far."""
        self._calls.put(None)

    def _call(self, event: str, listener: Listener, data: tuple[Any, ...]) -> None:
        self._calls.put((event, listener, data))


class RealtimeClient(Registration):
    """The asyncio client of the same name, for threads: see there for what each verb does. Several threads may share it."""

    def __init__(self, options: ClientOptions) -> None:
        self._threaded = _ThreadedListeners()
        super().__init__(self._threaded)
        self._client = AsyncRealtimeClient(options, self._threaded)
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect, and end the threads once the listeners have had what came before: the end of the `with` block."""
        with self._lock:
            loop, self._loop = self._loop, None
            threads, self._threads = self._threads, []
        if loop is None:
            return
        asyncio.run_coroutine_threadsafe(self._client.disconnect(), loop).result()
        self._threaded.stop()
        loop.call_soon_threadsafe(loop.stop)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join()

    # The connection.

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now."""
        return self._client.is_connected

    @property
    def connection_state(self) -> ConnectionState:
        """`disconnected`, `connecting` (the first time, or again) or `connected`."""
        return self._client.connection_state

    @property
    def socket_id(self) -> str | None:
        """The socket's id on the server, while connected."""
        return self._client.socket_id

    def connect(self) -> None:
        """Connect, and stay connected until `disconnect`. Raises ConnectError."""
        self._wait(self._client.connect())

    def disconnect(self) -> None:
        """End the connection and every subscription. Listeners stay."""
        self._wait(self._client.disconnect())

    def set_access_token(self, access_token: AccessToken | None, *, reconnect: bool = True) -> None:
        """Use another token from now on."""
        self._wait(_call(self._client.set_access_token, access_token, reconnect=reconnect))

    # Channels.

    def subscribe(
        self, channel: str, *, on_subscribed: Callable[[Subscribed], object] | None = None
    ) -> SubscribeResponse:
        """Subscribe to a channel, connecting if need be, and return the answer; see the asyncio client."""
        return self._wait(self._client.subscribe(channel, on_subscribed=on_subscribed))

    def unsubscribe(self, channel: str) -> None:
        """Leave a channel."""
        self._wait(self._client.unsubscribe(channel))

    def get_subscribed_channels(self) -> list[str]:
        """Return the channels that the server has confirmed on this connection."""
        return self._wait(_call(self._client.get_subscribed_channels))

    def get_presence_state(self, channel: str) -> list[Member]:
        """Return who is in a channel that we are subscribed to."""
        return self._wait(_call(self._client.get_presence_state, channel))

    @overload
    def publish(self, channel: str, event: str, payload: dict[str, Any], *, ack: Literal[False] = False) -> None: ...

    @overload
    def publish(self, channel: str, event: str, payload: dict[str, Any], *, ack: Literal[True]) -> PublishResponse: ...

    def publish(
        self, channel: str, event: str, payload: dict[str, Any], *, ack: bool = False
    ) -> PublishResponse | None:
        """Publish to a channel that we are subscribed to; with `ack`, wait for the server's answer and return it."""
        if ack:
            return self._wait(self._client.publish(channel, event, payload, ack=True))
        return self._wait(self._client.publish(channel, event, payload))

    def stream(
        self,
        channel: str,
        *,
        events: Collection[str] | None = None,
        buffer: int = 10_000,
        on_subscribed: Callable[[Subscribed], object] | None = None,
    ) -> Iterator[Message]:
        """Subscribe, yield the channel's messages as they come, and unsubscribe at the end of the loop."""
        messages = self._wait(self._client._open_stream(channel, events, buffer, on_subscribed))
        try:
            while (message := self._wait(messages.get())) is not None:
                yield message
        finally:
            if self._loop is not None:
                self._wait(_call(self._client._close_stream, messages))

    # The threads.

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it in the client's thread, and return its result. An interrupt here (Ctrl-C) cancels it there."""
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._started())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._threads = [
                    threading.Thread(target=_run, args=(self._loop,), name="insforge-realtime", daemon=True),
                    threading.Thread(target=self._threaded.run, name="insforge-realtime-listeners", daemon=True),
                ]
                for thread in self._threads:
                    thread.start()
            return self._loop


@takes(ClientOptions)
def create_client(options: ClientOptions) -> RealtimeClient:
    """Return a client that is not connected yet: `with create_client(url, access_token=token) as client:`."""
    return RealtimeClient(options)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """Run the client's loop: the body of its thread. As in asyncio.run, what is left over is cancelled at the end."""
    try:
        loop.run_forever()
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def _call(function: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """Call something that is not to be awaited, in the client's thread."""
    return function(*arguments, **options)
