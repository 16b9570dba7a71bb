"""Who the client is when proxies stand in between, some of them trusted, and anybody can write a header."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insforge_realtime.web.proxies import ForwardedHeaders, TrustedProxies

TRUSTED = TrustedProxies(map(ip_network, ("10.0.0.0/8", "192.0.2.7", "fd00::/8", "::1")))
CLIENT = "203.0.113.5"


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        # Nobody trusted: the header is the client's own invention.
        (CLIENT, "", CLIENT),
        (CLIENT, "1.2.3.4", CLIENT),
        (CLIENT, "10.0.0.1", CLIENT),
        ("192.0.2.8", "1.2.3.4", "192.0.2.8"),
        ("2001:db8::1", "1.2.3.4", "2001:db8::1"),
        ("unknown", "1.2.3.4", "unknown"),
        # A trusted proxy.
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", CLIENT, CLIENT),
        ("192.0.2.7", CLIENT, CLIENT),
        ("10.0.0.1", f"  {CLIENT}  ", CLIENT),
        ("10.0.0.1", "127.0.0.1", "127.0.0.1"),
        # What the client wrote itself is further to the left.
        ("10.0.0.1", f"1.2.3.4, {CLIENT}", CLIENT),
        ("10.0.0.1", f"10.0.0.9, {CLIENT}", CLIENT),
        ("10.0.0.1", f"1.2.3.4,5.6.7.8,{CLIENT}", CLIENT),
        # Several trusted proxies, one behind the other.
        ("10.0.0.1", f"1.2.3.4, {CLIENT}, 10.0.0.2, 192.0.2.7", CLIENT),
        ("10.0.0.1", "10.0.0.2, 10.0.0.3", "10.0.0.2"),
        ("10.0.0.1", f"{CLIENT}, 192.0.2.8, 10.0.0.2", "192.0.2.8"),
        # Ports, IPv6, and IPv4 in its clothes.
        ("10.0.0.1", f"{CLIENT}:1234", CLIENT),
        ("10.0.0.1", "[2001:db8::5]:1234", "2001:db8::5"),
        ("10.0.0.1", "[2001:db8::5]", "2001:db8::5"),
        ("::1", "2001:db8::5", "2001:db8::5"),
        ("fd12::1", "2001:db8::5, fd00::2", "2001:db8::5"),
        ("::ffff:10.0.0.1", CLIENT, CLIENT),
        ("::ffff:203.0.113.5", "1.2.3.4", "::ffff:203.0.113.5"),
        # Garbage.
        ("10.0.0.1", ",", "10.0.0.1"),
        ("10.0.0.1", ", ,", "10.0.0.1"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", "_hidden", "10.0.0.1"),
        ("10.0.0.1", f"{CLIENT}, unknown", "10.0.0.1"),
        ("10.0.0.1", "unknown, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", f"\x1b[31mevil, {CLIENT}", CLIENT),
        ("10.0.0.1", "\x1b[31mevil", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.500", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.5:x:y", "10.0.0.1"),
        ("10.0.0.1", "[", "10.0.0.1"),
        ("10.0.0.1", "x" * 100_000, "10.0.0.1"),
    ],
)  # fmt: skip
def test_the_client_is_the_first_from_the_right_that_is_not_a_trusted_proxy(
    peer: str, forwarded_for: str, client: str
) -> None:
    assert TRUSTED.client(peer, forwarded_for) == client


@given(st.ip_addresses().map(str), st.text())
def test_nothing_is_believed_of_a_peer_that_is_not_trusted(peer: str, forwarded_for: str) -> None:
    assert TrustedProxies([]).client(peer, forwarded_for) == peer


@given(st.text(), st.ip_addresses(v=4).filter(lambda address: str(address) not in TRUSTED).map(str))
def test_whatever_a_client_claims_the_proxys_word_counts(claim: str, client: str) -> None:
    assert TRUSTED.client("10.0.0.1", f"{claim}, {client}") == client


def test_networks_may_have_host_bits() -> None:
    assert "10.1.2.3" in TrustedProxies([ip_network("10.0.0.0/8")])
    assert not TrustedProxies([])
    assert TRUSTED


async def forwarded(peer: str | None, *headers: tuple[str, str], kind: str = "http", scheme: str = "http") -> Any:
    """What the application behind gets to see, as (address, scheme)."""
    seen: dict[str, Any] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.update(scope)

    client = None if peer is None else (peer, 1234)
    raw = [(name.lower().encode(), value.encode()) for name, value in headers]
    scope = {"type": kind, "client": client, "scheme": scheme, "headers": raw}
    await ForwardedHeaders(app, TRUSTED)(scope, None, None)  # type: ignore[arg-type]
    return seen["client"] and seen["client"][0], seen["scheme"]


FOR, PROTO = "X-Forwarded-For", "X-Forwarded-Proto"


async def test_a_trusted_proxy_tells_address_and_scheme() -> None:
    assert await forwarded("10.0.0.1", (FOR, CLIENT), (PROTO, "https")) == (CLIENT, "https")
    assert await forwarded("10.0.0.1", (FOR, CLIENT), (PROTO, "https"), kind="websocket", scheme="ws") == (
        CLIENT,
        "wss",
    )
    assert await forwarded("10.0.0.1", (FOR, CLIENT), (PROTO, "http"), scheme="https") == (CLIENT, "http")


async def test_headers_that_come_twice_are_one_list() -> None:
    assert await forwarded("10.0.0.1", (FOR, "1.2.3.4"), (FOR, f"{CLIENT}, 10.0.0.2")) == (CLIENT, "http")


async def test_others_are_not_believed() -> None:
    assert await forwarded(CLIENT, (FOR, "1.2.3.4"), (PROTO, "https")) == (CLIENT, "http")
    assert await forwarded(None, (FOR, "1.2.3.4"), (PROTO, "https")) == (None, "http")


@pytest.mark.parametrize("scheme", ["javascript", "", "https, http", "HTTPS", "wss"])
async def test_a_scheme_that_is_none_is_ignored(scheme: str) -> None:
    assert await forwarded("10.0.0.1", (PROTO, scheme)) == ("10.0.0.1", "http")


async def test_the_lifespan_has_no_client() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    await ForwardedHeaders(app, TRUSTED)({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert seen == ["lifespan"]
