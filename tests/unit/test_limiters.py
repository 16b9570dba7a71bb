"""Who has a place and who gives way, held against a model; and the buckets of addresses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from insforge_realtime.metrics import Metrics
from insforge_realtime.rates import place_of
from insforge_realtime.web import limiters
from insforge_realtime.web.limiters import BURST_SECONDS, ConnectionLimiter, RateLimiter

ADDRESSES = st.sampled_from(["a", "b", "c", None])


class Counted:
    """Notes that it had to go; a rude one does not say so, a polite one leaves, as the real ones do."""

    def __init__(self, limiter: ConnectionLimiter | None = None) -> None:
        self.limiter = limiter
        self.gone = False

    def evict(self) -> None:
        assert not self.gone
        self.gone = True
        if self.limiter is not None:
            self.limiter.release(self)


class Places(RuleBasedStateMachine):
    """Any calls in any order, also for connections that have left or were never here, against the plainest of models."""

    def __init__(self) -> None:
        super().__init__()
        self.most, self.per_address, self.most_waiting = 6, 3, 4
        self.metrics = Metrics()
        self.limiter = ConnectionLimiter(
            most=self.most, per_address=self.per_address, unauthenticated=self.most_waiting, metrics=self.metrics
        )
        self.counted: list[Counted] = [Counted()]
        self.held: dict[Counted, str | None] = {}
        self.waiting: list[Counted] = []

    def _out(self, connection: Counted) -> None:
        self.held.pop(connection, None)
        if connection in self.waiting:
            self.waiting.remove(connection)

    def _evict(self, address: str | None = None) -> bool:
        for connection in self.waiting:
            if address is None or self.held[connection] == address:
                self._out(connection)
                return True
        return False

    def _room(self, address: str | None) -> bool:
        of_it = [connection for connection, held in self.held.items() if held == address]
        return address is None or len(of_it) < self.per_address or self._evict(address)

    def _wait(self, connection: Counted) -> None:
        if len(self.waiting) >= self.most_waiting:
            self._evict()
        self.waiting.append(connection)

    @rule(address=ADDRESSES, polite=st.booleans())
    def acquire(self, address: str | None, polite: bool) -> None:
        connection = Counted(self.limiter if polite else None)
        self.counted.append(connection)
        found = self.limiter.acquire(connection, address)
        if not self._room(address):
            assert found == "address"
        elif len(self.held) >= self.most and not self._evict():
            assert found == "all"
        else:
            assert found is None
            self.held[connection] = address
            self._wait(connection)

    @rule(data=st.data(), address=ADDRESSES)
    def move(self, data: st.DataObject, address: str | None) -> None:
        connection = data.draw(st.sampled_from(self.counted))
        moved = self.limiter.move(connection, address)
        if connection not in self.held or self.held[connection] == address:
            assert moved
        elif moved is self._room(address) and moved:
            self.held[connection] = address
            if connection in self.waiting:
                self.waiting.remove(connection)
                self.waiting.append(connection)

    @rule(data=st.data())
    def authenticated(self, data: st.DataObject) -> None:
        connection = data.draw(st.sampled_from(self.counted))
        self.limiter.authenticated(connection)
        if connection in self.waiting:
            self.waiting.remove(connection)

    @rule(data=st.data())
    def unauthenticated(self, data: st.DataObject) -> None:
        connection = data.draw(st.sampled_from(self.counted))
        self.limiter.unauthenticated(connection)
        if connection in self.held and connection not in self.waiting:
            self._wait(connection)

    @rule(data=st.data(), polite=st.booleans())
    def hand_over(self, data: st.DataObject, polite: bool) -> None:
        connection, successor = data.draw(st.sampled_from(self.counted)), Counted(self.limiter if polite else None)
        self.counted.append(successor)
        self.limiter.hand_over(connection, successor)
        if connection in self.held:
            self.held[successor] = self.held.pop(connection)
            if connection in self.waiting:
                self.waiting.remove(connection)
                self.waiting.append(successor)

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        connection = data.draw(st.sampled_from(self.counted))
        self.limiter.release(connection)
        self._out(connection)

    @invariant()
    def the_books_are_right(self) -> None:
        books = self.limiter
        assert {connection: place.name for connection, place in books._held.items()} == self.held
        assert list(books._waiting) == self.waiting
        assert (len(books), books.waiting) == (len(self.held), len(self.waiting))
        for address, place in books._addresses.items():
            assert place.held == list(self.held.values()).count(address) > 0
            assert list(place.waiting or {}) == [
                connection for connection in self.waiting if self.held[connection] == address
            ]
            assert place.waiting != {}
        assert set(books._addresses) == {address for address in self.held.values() if address is not None}

    @invariant()
    def no_limit_is_passed(self) -> None:
        assert len(self.held) <= self.most
        assert len(self.waiting) <= self.most_waiting
        for address in "abc":
            assert list(self.held.values()).count(address) <= self.per_address

    @invariant()
    def what_was_evicted_is_out_and_counted(self) -> None:
        gone = [connection for connection in self.counted if connection.gone]
        assert not set(gone) & set(self.held)
        assert self.metrics.connections_evicted == len(gone)


TestPlaces = Places.TestCase


def test_a_flood_of_those_who_wait_does_not_keep_out_one_that_is_authenticated_in_time() -> None:
    books = ConnectionLimiter(most=100, per_address=100, unauthenticated=50)
    for _ in range(10):
        for _ in range(49):
            assert books.acquire(Counted(), "flood") is None
        honest = Counted()
        assert books.acquire(honest, "honest") is None
        for _ in range(49):
            assert books.acquire(Counted(), "flood") is None
        books.authenticated(honest)
        for _ in range(200):
            assert books.acquire(Counted(), "flood") is None
        assert not honest.gone


def test_without_limits_everybody_is_let_in() -> None:
    metrics = Metrics()
    books = ConnectionLimiter(metrics=metrics)
    for number in range(1000):
        assert books.acquire(Counted(), "a" if number % 2 else None) is None
    assert (len(books), books.waiting, books.addresses, metrics.connections_evicted) == (1000, 1000, 1, 0)


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("unknown", None),
        ("", None),
        ("a:b", None),
    ],
)
def test_an_address_counts_as_itself_or_as_its_64_bits(address: str, place: str | None) -> None:
    assert place_of(address) == place


def test_a_bucket_lets_a_burst_through_and_then_its_rate() -> None:
    rate = RateLimiter(5)
    burst = int(5 * BURST_SECONDS)
    assert [rate.wait("a", 100.0) for _ in range(burst)] == [0.0] * burst
    assert rate.wait("a", 100.0) == pytest.approx(0.2)
    assert rate.wait("b", 100.0) == 0.0
    assert rate.wait(None, 100.0) == 0.0
    assert rate.wait("a", 100.1) == pytest.approx(0.1)  # those that were refused do not count
    assert rate.wait("a", 100.2) == 0.0
    assert rate.wait("a", 100.2) > 0
    assert [rate.wait("a", 100.2 + BURST_SECONDS) for _ in range(burst)] == [0.0] * burst


@given(rate=st.floats(0.01, 1000), steps=st.lists(st.floats(0, 30), max_size=200))
def test_no_more_than_the_burst_and_the_rate_pass_in_any_span_and_a_wait_is_never_in_vain(
    rate: float, steps: list[float]
) -> None:
    bucket, now, passed = RateLimiter(rate), 0.0, 0
    for step in steps:
        now += step
        wait = bucket.wait("a", now)
        passed += wait == 0.0
        assert passed <= max(1.0, rate * BURST_SECONDS) + rate * now + 1e-3
        if wait:
            assert bucket.wait("a", now + wait + 1e-6) == 0.0
            now, passed = now + wait + 1e-6, passed + 1


def test_no_rate_is_no_limit_and_remembers_nobody() -> None:
    rate = RateLimiter(0)
    assert not any(rate.wait("a", 0.0) for _ in range(10_000))
    assert len(rate) == 0


def test_a_million_addresses_are_not_remembered_and_full_buckets_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limiters, "REMEMBERED", 1000)
    rate = RateLimiter(5)
    for number in range(20_000):
        rate.wait(f"{number}", 0.0)
    assert len(rate) == 1000
    for number in range(1000):
        rate.wait("later", 10.0 + number)
    assert len(rate) == 1


def test_a_rate_below_one_in_a_burst_still_lets_one_through() -> None:
    rate = RateLimiter(0.01)
    assert rate.wait("a", 0.0) == 0.0
    assert rate.wait("a", 1.0) == pytest.approx(99.0)
    assert rate.wait("a", 100.0) == 0.0
