"""One attempt to deliver: connect, POST, read the status and a little of the body.

What lives here: the HTTP client and what its errors mean. Everything about when, how often and for whom is elsewhere.
Redirects are not followed (the next address would be the receiver's choice), no proxy is used, no cookie is kept. The
answer's status decides as soon as it has arrived (answer.py): invalid headers, or a body that breaks off or never ends,
change nothing.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

import aiohttp
from yarl import URL

from insforge_realtime.pg.deliveries import Claim
from insforge_realtime.webhooks.answer import FIELD_BYTES, Answer, AnswerConnector, forget_status, status_read
from insforge_realtime.webhooks.guard import Guard, GuardedResolver, Lookup, Refused, system_lookup
from insforge_realtime.webhooks.request import (
    Outcome,
    Signer,
    answered,
    headers,
    impossible,
    postponed,
    refused,
    unreachable,
)

OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, socket.EAI_MEMORY})
"""What the system reports if this machine is short of something. The last but one: of local ports, over IPv4."""
READ_BYTES = 64 * 1024
"""How much of an answer's body is read; if it is longer, the connection is dropped."""
KEEPALIVE_SECONDS = 4.0
"""Less than common servers grant an idle connection (5 s for Node), lest we write to one that they are just closing."""


class Sender:
    """Sends requests: `async with Sender(…) as sender: await sender.send(claim, until)`.

    Args:
        guard: which addresses may be connected to.
        signer: signs requests.
        timeout: how long an attempt may take in all, in seconds.
        lookup: resolves names.
    """

    def __init__(self, guard: Guard, signer: Signer, *, timeout: float, lookup: Lookup = system_lookup) -> None:
        self.timeout = timeout
        self._guard = guard
        self._signer = signer
        self._lookup = lookup
        self._session: aiohttp.ClientSession = None  # type: ignore[assignment]

    async def __aenter__(self) -> Self:
        connector = AnswerConnector(
            resolver=GuardedResolver(self._guard, self._lookup),
            socket_factory=self._guard.socket,
            use_dns_cache=False,
            limit=0,  # the worker counts
            keepalive_timeout=KEEPALIVE_SECONDS,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            auto_decompress=False,
            trust_env=False,
            response_class=Answer,
            max_line_size=FIELD_BYTES,
            max_field_size=FIELD_BYTES,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def send(self, claim: Claim, until: float) -> Outcome:
        """Make one attempt and return its outcome. Never raises for what a URL or a receiver does.

        Args:
            claim: what to send, and where.
            until: when the lease ends, by the event loop's clock: the attempt does not outlast it.
        """
        url = parse(claim.url)
        if isinstance(url, str):
            return impossible(url)
        if claim.payload is None:
            return impossible("the message is undeliverable: its payload cannot be written as text, or is too large")
        deadline = min(asyncio.get_running_loop().time() + self.timeout, until)
        forget_status()
        try:
            async with asyncio.timeout_at(deadline):
                return await self._attempt(url, claim, claim.payload, deadline)
        except (Refused, aiohttp.ClientError, OSError, ValueError, MemoryError) as error:
            status = status_read()
            if status is not None:
                return answered(status, b"", None, datetime.now(UTC))
            return self._without_answer(url, error)

    def _without_answer(self, url: URL, error: Exception) -> Outcome:
        if _is_ours(url, error):
            return postponed(f"{type(error).__name__}: {error}".rstrip(": "))
        if isinstance(error, Refused):
            return refused(str(error))
        if isinstance(error, aiohttp.InvalidURL):
            return impossible(str(error))
        if isinstance(error, TimeoutError):
            return unreachable(f"no answer within {self.timeout:g} s")
        if isinstance(error, aiohttp.ClientResponseError):  # its text would quote the URL
            return unreachable(f"the answer is not HTTP: {error.message}")
        return unreachable(f"{type(error).__name__}: {error}".rstrip(": "))

    async def _attempt(self, url: URL, claim: Claim, payload: str, deadline: float) -> Outcome:
        now = datetime.now(UTC)
        async with self._session.post(
            url,
            data=payload.encode(),
            headers=headers(claim, payload, self._signer, now),
            allow_redirects=False,
        ) as response:
            body = bytearray()
            # In place, so that what was read counts even if the rest never arrives.
            with suppress(Exception):
                async with asyncio.timeout_at(deadline - 0.01):
                    await _read_beginning(response, body)
            return answered(response.status, bytes(body), response.headers.get("Retry-After"), now)


def _is_ours(url: URL, error: Exception) -> bool:
    """Return whether it is this machine that cannot, and not the host that does not."""
    if isinstance(error, MemoryError):
        return True
    if not isinstance(error, OSError) or error.errno not in OURS:
        return False
    # Without IPv6, a machine can never reach an IPv6 address.
    return error.errno != errno.EADDRNOTAVAIL or ":" not in str(url.host)


async def _read_beginning(response: aiohttp.ClientResponse, body: bytearray) -> None:
    """Read the body, up to `READ_BYTES`; if there is more, drop the connection."""
    while len(body) < READ_BYTES:
        chunk = await response.content.read(READ_BYTES - len(body))
        if not chunk:
            return
        body += chunk
    response.close()


def parse(text: str) -> URL | str:
    """Return a URL that can be sent to, or what is wrong with it (unquoted: there may be a password in it)."""
    try:
        url = URL(text)
        if url.scheme not in ("http", "https"):
            return "malformed URL: it must begin with http:// or https://"
        if not url.host:
            return "malformed URL: it names no host"
        return url
    except ValueError:
        return "malformed URL"
