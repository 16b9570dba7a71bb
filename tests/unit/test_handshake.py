"""The opening handshake, with websockets' client as the other end."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.protocol import OPEN
from websockets.uri import parse_uri

from insforge_realtime.errors import ProtocolError
from insforge_realtime.protocol import handshake

KEY = "AAAAAAAAAAAAAAAAAAAAAA=="
HEADERS = {
    "Host": "x",
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
}


def head(start: str = "GET /socket.io/?EIO=4&a=%20 HTTP/1.1", more: Sequence[str] = (), **changed: str | None) -> bytes:
    """A request; `changed` are headers, with `_` for `-`, and None for one that is left out."""
    headers: dict[str, str | None] = {**HEADERS, **{name.replace("_", "-"): value for name, value in changed.items()}}
    lines = [start, *(f"{name}: {value}" for name, value in headers.items() if value is not None), *more]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def asked(data: bytes) -> handshake.Request:
    read = handshake.read(data)
    assert read is not None
    return read[0]


def client() -> tuple[ClientProtocol, bytes]:
    """One of websockets, and its request."""
    made = ClientProtocol(parse_uri("ws://server/socket.io/?EIO=4"))
    made.send_request(made.connect())
    return made, b"".join(made.data_to_send())


def test_a_client_of_websockets_is_let_in() -> None:
    other, request = client()
    other.receive_data(handshake.accept(asked(request)))
    other.events_received()
    assert other.handshake_exc is None
    assert other.state is OPEN


def test_a_client_of_websockets_understands_a_refusal() -> None:
    other, _ = client()
    other.receive_data(handshake.refuse(HTTPStatus.FORBIDDEN, '{"code":4}'))
    other.receive_eof()
    other.events_received()
    assert isinstance(other.handshake_exc, InvalidStatus)
    assert other.handshake_exc.response.status_code == 403
    assert other.handshake_exc.response.body == b'{"code":4}'
    assert other.handshake_exc.response.headers["Sec-WebSocket-Version"] == "13"


def test_the_answer_is_that_of_the_rfc() -> None:
    answer = handshake.accept(asked(head(Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==")))
    assert answer.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


def test_a_request_has_a_path_a_query_headers_and_what_follows_it() -> None:
    read = handshake.read(head(more=["Origin: a", "X-Forwarded-For: é", "origin: b"]) + b"\x81\x80")
    assert read is not None
    request, rest = read
    assert (request.path, request.query, rest) == ("/socket.io/", "EIO=4&a=%20", b"\x81\x80")
    assert request.values(b"origin") == ["a", "b"]
    assert request.values(b"x-forwarded-for") == ["é"]
    assert request.values(b"cookie") == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Connection": "keep-alive, Upgrade"},
        {"Connection": "upgrade"},
        {"Upgrade": "WebSocket"},
        {"Sec_WebSocket_Extensions": "permessage-deflate; client_max_window_bits"},
        {"Content_Length": "0"},
    ],
)
def test_these_are_handshakes(headers: dict[str, str]) -> None:
    answer = handshake.accept(asked(head(**headers)))
    assert answer.startswith(b"HTTP/1.1 101")
    assert b"extensions" not in answer.lower()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\xff",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        head()[:-1],
        head("POST / HTTP/1.1"),
        head("GET / HTTP/1.0"),
        head(Connection=None),
        head(Upgrade=None),
        head(more=["Broken"]),
        head(more=["Bro ken: x"]),
        head(more=["X: \0"]),
        head(more=[" folded"]),
        head(more=["Transfer-Encoding: chunked", "Content-Length: 5"]),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + head(),
    ],
)
def test_what_is_not_a_whole_request_for_an_upgrade_is_left_to_others(data: bytes) -> None:
    assert handshake.read(data) is None


@pytest.mark.parametrize(
    "data",
    [
        head(Connection="Upgrades"),
        head(Upgrade="h2c"),
        head(Upgrade="websocket, h2c"),
        head(more=["Upgrade: websocket"]),
        head(Sec_WebSocket_Version=None),
        head(Sec_WebSocket_Version="8"),
        head(Sec_WebSocket_Version="13, 8"),
        head(more=["Sec-WebSocket-Version: 13"]),
        head(Sec_WebSocket_Key=None),
        head(Sec_WebSocket_Key=""),
        head(Sec_WebSocket_Key="AAAA"),
        head(Sec_WebSocket_Key=KEY[:-2]),
        head(Sec_WebSocket_Key="é" + KEY[1:]),
        head(Sec_WebSocket_Key="*" + KEY),
        head(more=[f"Sec-WebSocket-Key: {KEY}"]),
        head(Sec_WebSocket_Protocol=""),
        head(Sec_WebSocket_Protocol="a b"),
        head(Sec_WebSocket_Protocol="a,"),
        head(Sec_WebSocket_Protocol=",a"),
        head(Sec_WebSocket_Protocol="a,,b"),
        head(Sec_WebSocket_Protocol="a, b, a"),
        head(Sec_WebSocket_Protocol="é"),
        head(Sec_WebSocket_Protocol="a/b"),
        head(Sec_WebSocket_Protocol='"a"'),
        head(Sec_WebSocket_Protocol="a", more=["Sec-WebSocket-Protocol: a"]),
    ],
)
def test_a_handshake_that_is_none_is_not_accepted(data: bytes) -> None:
    read = handshake.read(data)
    if read is not None:
        with pytest.raises(ProtocolError):
            handshake.accept(read[0])


@pytest.mark.parametrize(
    ("offers", "chosen"),
    [
        (["a"], "a"),
        (["a, b"], "a"),
        (["b,a \t,\tc"], "b"),
        (["b", "a"], "b"),
        (["A, a"], "A"),
        (["!#$%&'*+-.^_`|~0Zz"], "!#$%&'*+-.^_`|~0Zz"),
        (["x" * 4000 + ", y"], "x" * 4000),
    ],
)
def test_the_first_subprotocol_that_is_offered_is_chosen(offers: list[str], chosen: str) -> None:
    lines = [f"Sec-WebSocket-Protocol: {offer}" for offer in offers]
    answer = handshake.accept(asked(head(more=lines)))
    assert answer.count(b"Sec-WebSocket-Protocol: ") == 1
    assert f"\r\nSec-WebSocket-Protocol: {chosen}\r\n\r\n".encode() in answer


def test_none_is_chosen_where_none_is_offered() -> None:
    assert b"Protocol:" not in handshake.accept(asked(head()))


@given(st.lists(st.text(st.characters(max_codepoint=255)), max_size=3))
def test_what_is_chosen_is_a_token_that_was_offered(offers: list[str]) -> None:
    try:
        chosen = handshake.subprotocol(offers)
    except ProtocolError:
        return
    if offers:
        assert chosen
        assert chosen in offers[0]
        assert not set(chosen) & set(" \t\r\n,:;\0")


@given(st.integers(0, len(head())), st.binary(max_size=4))
def test_any_bytes_are_a_request_or_none(at: int, noise: bytes) -> None:
    data = head()[:at] + noise + head()[at:]
    read = handshake.read(data)
    if read is not None:
        try:
            assert handshake.accept(read[0]).startswith(b"HTTP/1.1 101")
        except ProtocolError:
            pass
