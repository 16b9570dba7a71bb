"""The public keys that verify tokens, fetched from the URL of a JWKS (RFC 7517) and remembered.

What lives here: fetching, which keys are usable, which of them is a token's. What does not: tokens (auth.py). One fetch at
a time, in a thread, shared by all who wait for it; a key that is known keeps verifying while the URL cannot be reached.
"""

from __future__ import annotations

import asyncio
import math
import time
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.error import URLError

import jwt
import orjson
import structlog

from insforge_realtime import tasks
from insforge_realtime.errors import Unauthorized, Unavailable

SHORTEST_RSA = 2048  # bits; RFC 7518
JWKS_TIMEOUT = 5.0
JWKS_MAX_BYTES = 1_000_000
JWKS_RETRY_AFTER = 10  # anyone can invent a kid, so unknown ones must not become a stream of fetches
JWKS_STALE_AFTER = 600

# A key verifies one algorithm only, told by its type and never by the token: no alg confusion.
ALGORITHM_OF_KEY = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}

log = structlog.get_logger("insforge_realtime.auth")


class Jwks:
    """The public keys at a URL, remembered; fetched in a thread, by one fetch that all who wait share."""

    def __init__(self, url: str, clock: Callable[[], float]) -> None:
        self._url, self._clock = url, clock
        self._keys: list[jwt.PyJWK] = []
        self._read_at = self._tried_at = -math.inf
        self._failed = False
        self._fetch: asyncio.Task[None] | None = None

    async def key(self, algorithm: str, kid: str | None) -> jwt.PyJWK:
        """The key of a token; Unauthorized where there is none, Unavailable where that cannot be known."""
        found = self._find(algorithm, kid)
        if not found and (fetch := self._started()):
            # Unlike wait_for, wait cancels nothing: neither in time nor when this caller goes away.
            await asyncio.wait({fetch}, timeout=JWKS_TIMEOUT)
            found = self._find(algorithm, kid)
        elif self._passed(self._read_at, JWKS_STALE_AFTER):
            self._started()  # nobody waits: the old keys serve until the new ones are here
        if not found and (self._failed or self._fetch or not self._keys):
            raise Unavailable("The keys that verify tokens cannot be read right now; try again")
        if not found:
            raise Unauthorized("The token is signed with a key that is not in the JWKS")
        if kid is None and len(found) > 1:
            raise Unauthorized("The token must name its key (kid)")
        return found[0]

    def _find(self, algorithm: str, kid: str | None) -> list[jwt.PyJWK]:
        return [k for k in self._keys if k.algorithm_name == algorithm and kid in (None, k.key_id)]

    def _passed(self, since: float, seconds: float) -> bool:
        return abs(self._clock() - since) >= seconds  # abs: a clock set back must not stop the refreshing

    def _started(self) -> asyncio.Task[None] | None:
        """The fetch in flight; else a new one, unless the last is too recent."""
        if self._fetch is None and self._passed(self._tried_at, JWKS_RETRY_AFTER):
            self._tried_at = self._clock()
            self._fetch = tasks.start(self._load(), "fetch of the JWKS")
        return self._fetch

    async def _load(self) -> None:
        try:
            self._keys = await asyncio.to_thread(_fetched_keys, self._url)
            self._read_at, self._failed = self._clock(), False
        except Exception as error:
            self._failed = True
            log.warning("the JWKS cannot be read; the keys known so far stay valid", error=str(error))
        finally:
            self._fetch = None


class _SameScheme(urllib.request.HTTPRedirectHandler):
    """A redirect may not lead from https to where anyone can answer."""

    def redirect_request(self, req: urllib.request.Request, *rest: Any, **named: Any) -> Any:
        redirected = super().redirect_request(req, *rest, **named)
        if redirected is not None and redirected.type != req.type:
            raise URLError("redirected to another scheme")
        return redirected


def _fetched_keys(url: str) -> list[jwt.PyJWK]:
    """Read a JWKS, in `JWKS_TIMEOUT` or so at most. Raises whatever went wrong."""
    headers = {"User-Agent": "insforge-realtime"}  # some CDNs refuse Python's own
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 -- Config admits http and https only
    with urllib.request.build_opener(_SameScheme).open(request, timeout=JWKS_TIMEOUT) as response:
        keys = orjson.loads(_body(response))["keys"]
    if not isinstance(keys, list):
        raise ValueError("the answer is not a JWKS")
    return [key for key in map(_usable, keys) if key is not None]


def _body(response: Any) -> bytes:
    """The body, unless it is too long or drips in too slowly: the socket's timeout is for each read alone."""
    deadline, body = time.monotonic() + JWKS_TIMEOUT, b""
    while chunk := response.read1(65536):
        body += chunk
        if len(body) > JWKS_MAX_BYTES or time.monotonic() > deadline:
            raise ValueError("the answer is too long or too slow")
    return body


def _usable(jwk: Any) -> jwt.PyJWK | None:
    """The key of a JWK, where it is one that verifies tokens here."""
    try:
        algorithm = ALGORITHM_OF_KEY[jwk["kty"], jwk.get("crv")]
        if jwk.get("use", "sig") != "sig" or jwk.get("alg", algorithm) != algorithm or "d" in jwk:
            return None
        key = jwt.PyJWK(jwk, algorithm)
    except Exception as error:
        log.debug("a key of the JWKS is not usable", error=type(error).__name__)
        return None
    return None if algorithm == "RS256" and key.key.key_size < SHORTEST_RSA else key
