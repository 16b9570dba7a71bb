"""The Python client of InsForge Realtime, `pip install 'insforge-realtime[client]'`. For scripts without asyncio: `.sync`.

    async with create_client("https://example.com", access_token=token) as client:
        async for message in client.stream("order:123"):
            print(message.event, message["status"])

It imports nothing of the server. Documented in docs/sdk-python.md.
"""

from __future__ import annotations

from insforge_realtime.client.errors import (
    ClientError,
    ConnectError,
    InvalidRequest,
    NotConnected,
    StreamOverflow,
    SubscribeError,
)
from insforge_realtime.client.realtime import RealtimeClient, create_client
from insforge_realtime.client.types import (
    AccessToken,
    ConnectionState,
    ErrorInfo,
    Handler,
    Member,
    Message,
    Meta,
    PresenceEvent,
    PublishResponse,
    Subscribed,
    SubscribeResponse,
)

__all__ = [
    "AccessToken",
    "ClientError",
    "ConnectError",
    "ConnectionState",
    "ErrorInfo",
    "Handler",
    "InvalidRequest",
    "Member",
    "Message",
    "Meta",
    "NotConnected",
    "PresenceEvent",
    "PublishResponse",
    "RealtimeClient",
    "StreamOverflow",
    "SubscribeError",
    "SubscribeResponse",
    "Subscribed",
    "create_client",
]
