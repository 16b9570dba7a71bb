"""The messages of one channel, waiting for their reader. Bounded: a reader that is too slow gets an error, not a gap."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection

from insforge_realtime.client.errors import ClientError, StreamOverflow
from insforge_realtime.client.types import Message


class MessageBuffer:
    """The messages of one stream's reader.

    Args:
        channel: the channel's name.
        events: the events to keep; None for all but presence.
        size: how many messages may wait.
    """

    def __init__(self, channel: str, events: Collection[str] | None, size: int) -> None:
        if size < 1:
            raise ValueError(f"buffer must be at least 1, not {size}")
        self.channel = channel
        self._events = events if events is None else frozenset(events)
        self._size = size
        self._messages: deque[Message] = deque()
        self._news = asyncio.Event()
        self._ended = False
        self._error: ClientError | None = None

    def put(self, message: Message) -> None:
        """Keep a message, if it is wanted."""
        if self._ended or not self._wants(message.event):
            return
        if len(self._messages) >= self._size:
            self.end(StreamOverflow(self.channel, self._size))
            return
        self._messages.append(message)
        self._news.set()

    def end(self, error: ClientError | None = None) -> None:
        """Take nothing more. What waits is still read; then comes the error, or the end."""
        if not self._ended:
            self._ended, self._error = True, error
            self._news.set()

    async def get(self) -> Message | None:
        """Return the next message, or None at the end.

        Raises:
            ClientError: why there are no more.
        """
        while not self._messages:
            if self._error:
                raise self._error
            if self._ended:
                return None
            self._news.clear()
            await self._news.wait()
        return self._messages.popleft()

    def _wants(self, event: str) -> bool:
        if self._events is None:
            return not event.startswith("presence:")
        return event in self._events
