"""Whom the log names when a proxy stands in between: through every door, from proxies that are trusted and from others."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from support.databases import wait_until
from support.servers import AsgiServer, Server
from support.wire import Refused, WireClient

FACTORY = "insforge_realtime.app:create_app"
UVICORN = ("-m", "uvicorn", "--factory", FACTORY, "--port", "{port}", "--no-proxy-headers", "--log-config", "{logging}")
"""Like many an application, it has a logging configuration of its own, in which our lines turn up."""
CHAIN = "203.0.113.9, 198.51.100.7, 10.1.2.3"
"""A client that claims to be another; a proxy of ours heard it from 198.51.100.7, and 10.1.2.3 is a second proxy of ours."""


def addresses(server: Server) -> list[str]:
    """Those of all refusals, in order."""
    return [line["address"] for line in server.lines if line.get("event") in ("connect refused", "handshake refused")]
