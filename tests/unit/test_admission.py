"""Who has a place and who gives way, held against a model; and the buckets of addresses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from insforge_realtime.rates import place_of
from insforge_realtime.web import admission
from insforge_realtime.web.admission import BURST_SECONDS, Admission, Rate

ADDRESSES = st.sampled_from(["a", "b", "c", None])


class Guest:
    """Notes that it had to go; a rude one does not say so, a polite one leaves, as the real ones do."""

    def __init__(self, admission: Admission | None = None) -> None:
        self.admission = admission
        self.gone = False

    def give_way(self) -> None:
        assert not self.gone
        self.gone = True
        if self.admission is not None:
            self.admission.leave(self)


class Places(RuleBasedStateMachine):
    """Any calls in any order, also by guests who have left or were never here, against the plainest of models."""

    def __init__(self) -> None:
        super().__init__()
        self.most, self.per_address, self.most_waiting = 6, 3, 4
        self.admission = Admission(most=self.most, per_address=self.per_address, waiting=self.most_waiting)
        self.guests: list[Guest] = [Guest()]
        self.held: dict[Guest, str | None] = {}
        self.waiting: list[Guest] = []

    def _out(self, guest: Guest) -> None:
        self.held.pop(guest, None)
        if guest in self.waiting:
            self.waiting.remove(guest)

    def _evict(self, address: str | None = None) -> bool:
        for guest in self.waiting:
            if address is None or self.held[guest] == address:
                self._out(guest)
                return True
        return False

    def _room(self, address: str | None) -> bool:
        of_it = [guest for guest, held in self.held.items() if held == address]
        return address is None or len(of_it) < self.per_address or self._evict(address)

    def _wait(self, guest: Guest) -> None:
        if len(self.waiting) >= self.most_waiting:
            self._evict()
        self.waiting.append(guest)

    @rule(address=ADDRESSES, polite=st.booleans())
    def enter(self, address: str | None, polite: bool) -> None:
        guest = Guest(self.admission if polite else None)
        self.guests.append(guest)
        found = self.admission.enter(guest, address)
        if not self._room(address):
            assert found == "address"
        elif len(self.held) >= self.most and not self._evict():
            assert found == "all"
        else:
            assert found is None
            self.held[guest] = address
            self._wait(guest)

    @rule(data=st.data(), address=ADDRESSES)
    def move(self, data: st.DataObject, address: str | None) -> None:
        guest = data.draw(st.sampled_from(self.guests))
        moved = self.admission.move(guest, address)
        if guest not in self.held or self.held[guest] == address:
            assert moved
        elif moved is self._room(address) and moved:
            self.held[guest] = address
            if guest in self.waiting:
                self.waiting.remove(guest)
                self.waiting.append(guest)

    @rule(data=st.data())
    def vouch(self, data: st.DataObject) -> None:
        guest = data.draw(st.sampled_from(self.guests))
        self.admission.vouch(guest)
        if guest in self.waiting:
            self.waiting.remove(guest)

    @rule(data=st.data())
    def doubt(self, data: st.DataObject) -> None:
        guest = data.draw(st.sampled_from(self.guests))
        self.admission.doubt(guest)
        if guest in self.held and guest not in self.waiting:
            self._wait(guest)

    @rule(data=st.data(), polite=st.booleans())
    def hand_over(self, data: st.DataObject, polite: bool) -> None:
        guest, successor = data.draw(st.sampled_from(self.guests)), Guest(self.admission if polite else None)
        self.guests.append(successor)
        self.admission.hand_over(guest, successor)
        if guest in self.held:
            self.held[successor] = self.held.pop(guest)
            if guest in self.waiting:
                self.waiting.remove(guest)
                self.waiting.append(successor)

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        guest = data.draw(st.sampled_from(self.guests))
        self.admission.leave(guest)
        self._out(guest)

    @invariant()
    def the_books_are_right(self) -> None:
        books = self.admission
        assert {guest: place.name for guest, place in books._held.items()} == self.held
        assert list(books._waiting) == self.waiting
        assert (len(books), books.waiting) == (len(self.held), len(self.waiting))
        for address, place in books._addresses.items():
            assert place.held == list(self.held.values()).count(address) > 0
            assert list(place.waiting or {}) == [guest for guest in self.waiting if self.held[guest] == address]
            assert place.waiting != {}
        assert set(books._addresses) == {address for address in self.held.values() if address is not None}

    @invariant()
    def no_limit_is_passed(self) -> None:
        assert len(self.held) <= self.most
        assert len(self.waiting) <= self.most_waiting
        for address in "abc":
            assert list(self.held.values()).count(address) <= self.per_address

    @invariant()
    def who_gave_way_is_out_and_counted(self) -> None:
        gone = [guest for guest in self.guests if guest.gone]
        assert not set(gone) & set(self.held)
        assert self.admission.gave_way == len(gone)


TestPlaces = Places.TestCase


def test_a_flood_of_those_who_wait_does_not_keep_out_who_is_vouched_for_in_time() -> None:
    books = Admission(most=100, per_address=100, waiting=50)
    for _ in range(10):
        for _ in range(49):
            assert books.enter(Guest(), "flood") is None
        honest = Guest()
        assert books.enter(honest, "honest") is None
        for _ in range(49):
            assert books.enter(Guest(), "flood") is None
        books.vouch(honest)
        for _ in range(200):
            assert books.enter(Guest(), "flood") is None
        assert not honest.gone


def test_without_limits_everybody_is_let_in() -> None:
    books = Admission()
    for number in range(1000):
        assert books.enter(Guest(), "a" if number % 2 else None) is None
    assert (len(books), books.waiting, books.addresses, books.gave_way) == (1000, 1000, 1, 0)


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
    rate = Rate(5)
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
    bucket, now, passed = Rate(rate), 0.0, 0
    for step in steps:
        now += step
        wait = bucket.wait("a", now)
        passed += wait == 0.0
        assert passed <= max(1.0, rate * BURST_SECONDS) + rate * now + 1e-3
        if wait:
            assert bucket.wait("a", now + wait + 1e-6) == 0.0
            now, passed = now + wait + 1e-6, passed + 1


def test_no_rate_is_no_limit_and_remembers_nobody() -> None:
    rate = Rate(0)
    assert not any(rate.wait("a", 0.0) for _ in range(10_000))
    assert len(rate) == 0


def test_a_million_addresses_are_not_remembered_and_full_buckets_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "REMEMBERED", 1000)
    rate = Rate(5)
    for number in range(20_000):
        rate.wait(f"{number}", 0.0)
    assert len(rate) == 1000
    for number in range(1000):
        rate.wait("later", 10.0 + number)
    assert len(rate) == 1


def test_a_rate_below_one_in_a_burst_still_lets_one_through() -> None:
    rate = Rate(0.01)
    assert rate.wait("a", 0.0) == 0.0
    assert rate.wait("a", 1.0) == pytest.approx(99.0)
    assert rate.wait("a", 100.0) == 0.0
