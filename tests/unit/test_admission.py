"""Who may come in, and why not: each question, and the order in which they are put."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from insforge_realtime.config import Config
from insforge_realtime.errors import RateLimited
from insforge_realtime.metrics import Metrics
from insforge_realtime.web.admission import (
    BAD_METHOD,
    BAD_REQUEST,
    CROWDED,
    FULL,
    TOO_OFTEN,
    UNKNOWN_SESSION,
    UNKNOWN_TRANSPORT,
    WRONG_ORIGIN,
    WRONG_VERSION,
    Admission,
    Asked,
)
from insforge_realtime.web.gateway import Gateway
from insforge_realtime.web.limiters import BURST_SECONDS

QUERY = {"EIO": ["4"], "transport": ["websocket"]}
WEBSOCKET = Asked("GET", QUERY, None, True, "192.0.2.1")
POLL = Asked("GET", {"EIO": ["4"], "transport": ["polling"]}, None, False, "192.0.2.1")
PROXY = "10.0.0.1"


class Counted:
    def evict(self) -> None:
        """Goes, and says nothing."""


def admission(
    gateway: Gateway | None = None, max_sockets: int = 0, metrics: Metrics | None = None, **settings: Any
) -> Admission:
    return Admission(Config(**settings), gateway or Gateway(0), max_sockets, lambda: 100.0, metrics or Metrics())


def query(asked: Asked, **values: list[str]) -> Asked:
    return replace(asked, query={**asked.query, **values})


def socket_of(address: str) -> Any:
    """A transport whose other end has this address."""
    return SimpleNamespace(get_extra_info=lambda _: (address, 1))


def test_refusals_are_counted_by_their_words_and_sockets_by_the_limit() -> None:
    metrics = Metrics()
    door = admission(max_sockets=1, metrics=metrics, max_sockets_per_address=1)
    for asked in (WEBSOCKET, query(WEBSOCKET, EIO=["3"]), query(WEBSOCKET, EIO=["5"]), query(POLL, sid=["nobody"])):
        door.refusal(asked)
    first = Counted()
    assert door.accept(first, socket_of("192.0.2.1"))
    door.sockets.authenticated(first)
    assert not door.accept(Counted(), socket_of("192.0.2.1"))
    assert not door.accept(Counted(), socket_of("192.0.2.2"))
    assert door.enter(Counted(), WEBSOCKET) == CROWDED
    assert metrics.sockets_refused == {"address": 1, "all": 1}
    assert metrics.handshakes_refused == {
        WRONG_VERSION.message: 2,
        UNKNOWN_SESSION.message: 1,
        CROWDED.message: 1,
    }


def test_whoever_asks_in_order_is_let_in() -> None:
    assert [admission().refusal(asked) for asked in (WEBSOCKET, POLL)] == [None, None]


@pytest.mark.parametrize(
    ("asked", "refusal"),
    [
        (query(WEBSOCKET, EIO=["3"]), WRONG_VERSION),
        (query(WEBSOCKET, EIO=["4", "4"]), WRONG_VERSION),
        (query(WEBSOCKET, transport=["pigeon"]), UNKNOWN_TRANSPORT),
        (query(WEBSOCKET, transport=["websocket", "polling"]), UNKNOWN_TRANSPORT),
        (replace(WEBSOCKET, websocket=False), BAD_REQUEST),
        (query(POLL, transport=["websocket"]), BAD_REQUEST),
        (query(POLL, sid=["nobody"]), UNKNOWN_SESSION),
        (replace(POLL, method="POST"), BAD_METHOD),
        (replace(WEBSOCKET, origin="https://elsewhere.example"), WRONG_ORIGIN),
        (query(replace(POLL, method="POST", origin="https://elsewhere.example"), EIO=["3"]), WRONG_VERSION),
    ],
)
def test_a_request_that_is_wrong_is_told_what_is(asked: Asked, refusal: object) -> None:
    assert admission(cors_origins="https://app.example").refusal(asked) == refusal


def test_a_transport_that_is_not_offered_is_unknown() -> None:
    assert admission(transports="websocket").refusal(POLL) == UNKNOWN_TRANSPORT


@pytest.mark.parametrize(("handed_over", "refusal"), [(False, None), (True, BAD_REQUEST)])
def test_a_session_that_a_websocket_carries_has_no_polls(handed_over: bool, refusal: object) -> None:
    gateway = Gateway(0)
    session: Any = SimpleNamespace(handed_over=handed_over)
    gateway.polling_sessions["s1"] = session
    assert admission(gateway).refusal(query(POLL, sid=["s1"])) == refusal
    assert admission(gateway).refusal(query(WEBSOCKET, sid=["s1"])) is None


def test_a_server_that_shuts_down_or_is_full_lets_nobody_in() -> None:
    closing, full = Gateway(0), Gateway(1)
    closing.shut()
    full.clients = 1
    assert [admission(gateway).refusal(WEBSOCKET) for gateway in (closing, full)] == [FULL, FULL]


def test_an_address_that_comes_too_often_is_told_when_to_try_again() -> None:
    often = admission(max_handshakes_per_second=0.5)
    assert [often.refusal(WEBSOCKET) for _ in range(int(BURST_SECONDS / 2))] == [None] * int(BURST_SECONDS / 2)
    assert often.refusal(WEBSOCKET) == replace(TOO_OFTEN, retry_after=2)
    assert often.refusal(replace(WEBSOCKET, address="192.0.2.2")) is None
    assert often.refusal(query(POLL, sid=["nobody"])) == UNKNOWN_SESSION, "a poll is not a handshake"


def test_connects_are_counted_apart_and_a_proxy_is_nobody() -> None:
    often = admission(max_connects_per_second=1 / BURST_SECONDS, trusted_proxies=PROXY)
    often.check_connect("192.0.2.1")
    with pytest.raises(RateLimited, match="try again in 20 s"):
        often.check_connect("192.0.2.1")
    for _ in range(3):
        often.check_connect(PROXY)


def test_there_is_room_for_so_many_sockets_of_an_address_and_for_as_many_sessions() -> None:
    crowded = admission(max_sockets_per_address=1)
    first, sessions = Counted(), [Counted(), Counted()]
    assert crowded.accept(first, socket_of("192.0.2.1"))
    assert crowded.accept(first, socket_of("192.0.2.1")), "the same one again"
    crowded.sockets.authenticated(first)
    assert not crowded.accept(Counted(), socket_of("192.0.2.1"))
    assert crowded.enter(sessions[0], POLL) is None
    crowded.sessions.authenticated(sessions[0])
    assert crowded.enter(sessions[1], POLL) == CROWDED
    assert admission(max_sockets=1).enter(Counted(), WEBSOCKET) is None


def test_behind_a_proxy_a_socket_is_counted_for_the_client_it_brings() -> None:
    behind = admission(max_sockets_per_address=1, trusted_proxies=PROXY)
    sockets = [Counted(), Counted()]
    for socket in sockets:
        assert behind.accept(socket, socket_of(PROXY))
    assert behind.client_of(socket_of(PROXY), ["192.0.2.1"]) == "192.0.2.1"
    assert behind.client_of(socket_of("192.0.2.9"), ["192.0.2.1"]) == "192.0.2.9"
    assert behind.refusal(WEBSOCKET, sockets[0]) is None
    behind.sockets.authenticated(sockets[0])
    assert behind.refusal(WEBSOCKET, sockets[1]) == CROWDED
