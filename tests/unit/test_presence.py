"""Members are counted by socket."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from insforge_realtime.model import Member
from insforge_realtime.presence import Presence


def member(name: str, joined_at: str = "2026-01-01T00:00:00.000Z") -> Member:
    return Member("user", name, joined_at)


def test_only_the_first_socket_joins_and_only_the_last_one_leaves() -> None:
    presence = Presence()
    assert presence.join("a", member("alice")) is True
    assert presence.join("a", member("alice")) is False
    assert presence.leave("a", "alice") is None
    assert presence.leave("a", "alice") == member("alice")
    assert presence.members("a") == []


def test_a_member_stands_there_since_its_first_socket_came() -> None:
    presence = Presence()
    presence.join("a", member("alice", "first"))
    presence.join("a", member("alice", "second"))
    assert presence.members("a") == [member("alice", "first")]
    presence.leave("a", "alice")
    assert presence.leave("a", "alice") == member("alice", "first")


def test_members_are_listed_in_the_order_of_arrival() -> None:
    presence = Presence()
    for name in ("carol", "alice", "bob", "carol"):
        presence.join("a", member(name))
    assert [present.presence_id for present in presence.members("a")] == ["carol", "alice", "bob"]


def test_channels_do_not_know_of_each_other() -> None:
    presence = Presence()
    presence.join("a", member("alice"))
    assert presence.join("b", member("alice")) is True
    assert presence.leave("a", "alice") == member("alice")
    assert presence.members("b") == [member("alice")]


def test_a_member_that_is_not_there_cannot_leave() -> None:
    presence = Presence()
    assert presence.leave("a", "alice") is None
    presence.join("a", member("alice"))
    assert presence.leave("a", "bob") is None
    assert presence.leave("b", "alice") is None


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("ab"), st.sampled_from("xyz"))))
def test_presence_agrees_with_a_count_of_sockets(moves: list[tuple[bool, str, str]]) -> None:
    presence, sockets = Presence(), Counter[tuple[str, str]]()
    for joins, channel, name in moves:
        if joins:
            assert presence.join(channel, member(name)) is (sockets[channel, name] == 0)
            sockets[channel, name] += 1
        else:
            gone = presence.leave(channel, name)
            assert (gone is not None) is (sockets[channel, name] == 1)
            sockets[channel, name] = max(0, sockets[channel, name] - 1)
    for channel in "ab":
        here = {present.presence_id for present in presence.members(channel)}
        assert here == {name for name in "xyz" if sockets[channel, name]}
