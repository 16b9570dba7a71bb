"""What a webhook's request has in it, and what each answer means."""

from __future__ import annotations

import string
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from insforge_realtime.config import signing_keys
from insforge_realtime.pg.deliveries import Claim
from insforge_realtime.webhooks.request import (
    KEPT_BYTES,
    Signer,
    answered,
    header_value,
    headers,
    impossible,
    seconds_to_wait,
    unreachable,
)
from insforge_realtime.webhooks.sender import parse

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
OLD, NEW = "whsec_MDEyMzQ1Njc4OWFiY2RlZg==", "whsec_ZmVkY2JhOTg3NjU0MzIxMA"


def claim(event: str = "e", channel: str = "c", payload: str = "{}") -> Claim:
    return Claim(1, 2, 0, "h", "http://h/", "0de40000-0000-4000-8000-000000000001", event, channel, payload)


# Names in headers.


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("order:1", "order:1"),
        ("a name with spaces", "a name with spaces"),
        (" both ends ", "%20both ends%20"),
        ("  ", "%20%20"),
        ("", ""),
        ("100%", "100%25"),
        ("%41", "%2541"),
        ("ünï", "%C3%BCn%C3%AF"),
        ("😀", "%F0%9F%98%80"),
        ("a\r\nX-Evil: 1", "a%0D%0AX-Evil: 1"),
        ("tab\there", "tab%09here"),
        ("\x7f\x80", "%7F%C2%80"),
        (string.punctuation, string.punctuation.replace("%", "%25")),
    ],
)
def test_a_name_is_encoded_where_a_header_cannot_carry_it(name: str, value: str) -> None:
    assert header_value(name) == value


@given(st.text())
def test_every_name_comes_back_when_decoded_and_is_a_valid_header(name: str) -> None:
    value = header_value(name)
    assert unquote(value) == name.encode("utf-8", "replace").decode()
    assert value == value.strip()
    assert all(" " <= character <= "~" for character in value)


# Signatures.


def verify(secret: str | bytes, signed: dict[str, str], payload: str) -> None:
    """As a receiver does it, but for the age of the message."""
    Webhook(secret).verify(payload, signed)


def test_nothing_is_signed_without_a_secret() -> None:
    assert not [name for name in headers(claim(), "{}", Signer([]), NOW) if name.startswith("webhook")]


def test_a_receiver_with_either_secret_can_verify_and_nobody_else() -> None:
    payload = '{"text": "hé"}'
    signed = headers(claim(payload=payload), payload, Signer(signing_keys(f"{NEW}, {OLD}")), datetime.now(UTC))
    assert signed["webhook-id"] == signed["X-InsForge-Message-Id"]
    assert len(signed["webhook-signature"].split(" ")) == 2
    for secret in (OLD, NEW):
        verify(secret, signed, payload)
        with pytest.raises(WebhookVerificationError):
            verify(secret, signed, payload + " ")
        with pytest.raises(WebhookVerificationError):
            verify(secret, {**signed, "webhook-id": "another"}, payload)
    with pytest.raises(WebhookVerificationError):
        verify("whsec_c29tZWJvZHkgZWxzZSdzIHNlY3JldA==", signed, payload)


def test_a_plain_secret_is_taken_byte_by_byte() -> None:
    [key] = signing_keys("plain text that is long enough")
    signed = headers(claim(), "{}", Signer([key]), datetime.now(UTC))
    verify(b"plain text that is long enough", signed, "{}")


# Answers.


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_2xx_has_arrived(status: int) -> None:
    outcome = answered(status, b"", None, NOW)
    assert (outcome.verdict, outcome.status_code, outcome.error, outcome.host_failed) == (
        "delivered",
        status,
        None,
        False,
    )


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_what_may_pass_is_tried_again(status: int) -> None:
    outcome = answered(status, b"", None, NOW)
    assert (outcome.verdict, outcome.error, outcome.host_failed) == ("retry", f"answered {status}", True)


@pytest.mark.parametrize("status", [301, 302, 304, 307, 308, 400, 401, 403, 404, 405, 410, 413, 422, 431])
def test_any_other_answer_is_final(status: int) -> None:
    outcome = answered(status, b"", "1", NOW)
    assert (outcome.verdict, outcome.status_code, outcome.host_failed) == ("failed", status, False)
    assert ("redirects are not followed" in str(outcome.error)) == (status < 400)


def test_no_answer_is_tried_again_and_an_impossible_address_is_not() -> None:
    assert (unreachable("why").verdict, unreachable("why").host_failed) == ("retry", True)
    assert (impossible("why").verdict, impossible("why").host_failed) == ("failed", None)
    assert len(unreachable("x" * 9999).error or "") == 300


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0), ("", 0), ("0", 0), ("7", 7), (" 7 ", 7), ("60", 60), ("61", 60), ("9" * 400, 60),
        ("-5", 0), ("1.5", 0), ("soon", 0), ("٣", 0),
        (format_datetime(NOW + timedelta(seconds=20), usegmt=True), 20),
        (format_datetime(NOW + timedelta(hours=5), usegmt=True), 60),
        (format_datetime(NOW - timedelta(hours=5), usegmt=True), 0),
        ("Wed, 01 May 2024 12:00:09 -0000", 9),
        ("Wed, 99 May 2024 12:00:09 GMT", 0),
    ],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date_up_to_a_minute(header: str | None, seconds: float) -> None:
    assert seconds_to_wait(header, NOW) == seconds


@given(st.text())
def test_any_retry_after_is_read_or_passed_over(text: str) -> None:
    assert 0 <= seconds_to_wait(text, NOW) <= 60


@given(st.binary(max_size=3000))
def test_what_is_kept_of_a_body_can_be_kept_by_postgresql(body: bytes) -> None:
    kept = answered(200, body, None, NOW).response
    assert kept is None or ("\0" not in kept and kept.encode() and len(kept) <= KEPT_BYTES)


# URLs.


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("hooks.example.com/x", "must begin with http"), ("ftp://h/", "must begin with http"), ("", "must begin with http"),
        ("file:///etc/passwd", "must begin with http"), ("javascript:alert(1)", "must begin with http"),
        ("http://", "names no host"), ("http:///x", "names no host"), ("http://h:99999/", "malformed URL"),
        ("http://[::1", "malformed URL"), ("http://h\\@evil/", "malformed URL"),
    ],
)  # fmt: skip
def test_a_malformed_url_is_named_as_such_and_not_quoted(url: str, problem: str) -> None:
    said = parse(url)
    assert isinstance(said, str)
    assert problem in said
    assert not url or url not in said


@given(st.text())
def test_any_text_is_a_url_or_malformed(text: str) -> None:
    parse("http://" + text)
    parse(text)


def test_a_url_keeps_its_port_path_query_and_credentials() -> None:
    url = parse("HTTPS://user:pa%40ss@h.example:8443/a/b?c=d")
    assert not isinstance(url, str)
    assert (url.scheme, url.user, url.password, url.port) == ("https", "user", "pa@ss", 8443)
    assert url.path_qs == "/a/b?c=d"
