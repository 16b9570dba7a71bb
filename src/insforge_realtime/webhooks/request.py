"""What a webhook's request contains, and what its answer means. Pure.

Header values: an event or channel name may contain any character, a header may not. So characters that are not visible ASCII
are percent-encoded as UTF-8, and `%` always is: decoding is never ambiguous. PROTOCOL.md tells receivers.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal
from urllib.parse import quote

from standardwebhooks.webhooks import Webhook

from insforge_realtime._version import __version__
from insforge_realtime.pg.deliveries import Claim

LONGEST_RETRY_AFTER = 60.0
KEPT_BYTES = 1024
"""How much of an answer's body is kept on record."""
KEPT_ERROR = 300

_SAFE = "".join(set(string.printable) - set(string.whitespace) - {"%"}) + " "
_WORTH_ANOTHER_TRY = frozenset({408, 425, 429})

Verdict = Literal["delivered", "retry", "failed", "postponed", "refused"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one attempt.

    Args:
        verdict: delivered; worth another attempt; failed for good; postponed, since there was none; or refused,
            since this server may not send it: others may.
        status_code, error, response: for the record.
        retry_after: how long the receiver asked us to wait, in seconds.
        host_failed: whether this counts against the host as a whole; None if it says nothing about it.
    """

    verdict: Verdict
    status_code: int | None = None
    error: str | None = None
    response: str | None = None
    retry_after: float = 0.0
    host_failed: bool | None = None


def answered(status: int, body: bytes, retry_after: str | None, now: datetime) -> Outcome:
    """Interpret an HTTP answer: 2xx is delivered, some deserve another attempt, all others are final."""
    kept = kept_text(body)
    if 200 <= status < 300:
        return Outcome("delivered", status, None, kept, host_failed=False)
    if status >= 500 or status in _WORTH_ANOTHER_TRY:
        wait = seconds_to_wait(retry_after, now)
        return Outcome("retry", status, f"answered {status}", kept, retry_after=wait, host_failed=True)
    redirect = ": redirects are not followed" if 300 <= status < 400 else ""
    return Outcome("failed", status, f"answered {status}{redirect}", kept, host_failed=False)


def unreachable(error: str) -> Outcome:
    """Make the outcome of an attempt without an answer: the connection failed, broke, or took too long."""
    return Outcome("retry", error=clean(error)[:KEPT_ERROR], host_failed=True)


def postponed(error: str) -> Outcome:
    """Make the outcome of what was not even tried: this server lacks resources, which is not the host's fault."""
    return Outcome("postponed", error=clean(error)[:KEPT_ERROR])


def impossible(error: str) -> Outcome:
    """Make the outcome of what cannot be sent at all: a malformed URL."""
    return Outcome("failed", error=clean(error)[:KEPT_ERROR])


def refused(error: str) -> Outcome:
    """Make the outcome of an address that this server may not connect to."""
    return Outcome("refused", error=clean(error)[:KEPT_ERROR])


def seconds_to_wait(retry_after: str | None, now: datetime) -> float:
    """Parse the header `Retry-After`, seconds or a date; return seconds, at most 60, or 0 if it is missing or unreadable."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:6]), LONGEST_RETRY_AFTER)
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, IndexError, OverflowError):
        return 0.0
    seconds = (date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds()
    return min(max(0.0, seconds), LONGEST_RETRY_AFTER)


def kept_text(body: bytes) -> str | None:
    """Return the beginning of a body, as text that PostgreSQL can store."""
    return clean(body[:KEPT_BYTES].decode("utf-8", "replace")) or None


def clean(text: str) -> str:
    """Return text without what PostgreSQL cannot store."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def header_value(name: str) -> str:
    """Encode a name so that a header can carry it; `urllib.parse.unquote` or `decodeURIComponent` recovers it."""
    encoded = quote(name, safe=_SAFE, errors="replace")
    inner = encoded.strip(" ")
    if inner == encoded:
        return encoded
    before = len(encoded) - len(encoded.lstrip(" "))
    return "%20" * before + inner + "%20" * (len(encoded) - before - len(inner))


class Signer:
    """Signs requests by the Standard Webhooks specification, once with each key, the newest first.

    Args:
        keys: none, to sign nothing.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._hooks = [Webhook(key) for key in keys]

    def headers(self, message_id: str, payload: str, now: datetime) -> dict[str, str]:
        """Return the three headers; none if nothing is signed."""
        if not self._hooks:
            return {}
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(hook.sign(message_id, now, payload) for hook in self._hooks),
        }


def headers(claim: Claim, payload: str, signer: Signer, now: datetime) -> dict[str, str]:
    """Return all headers of a delivery that are ours to set."""
    return {
        "Content-Type": "application/json",
        "User-Agent": f"InsForge-Realtime/{__version__}",
        "Accept-Encoding": "identity",
        "X-InsForge-Event": header_value(claim.event),
        "X-InsForge-Channel": header_value(claim.channel),
        "X-InsForge-Message-Id": claim.message_id,
        **signer.headers(claim.message_id, payload, now),
    }
