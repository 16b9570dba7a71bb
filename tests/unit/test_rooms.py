"""Whoever is in a room knows who else is, however people come, go, and come back before anybody was told."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from insforge_realtime.hub import SLICE, Batch, Hub, Stream
from insforge_realtime.model import Member
from insforge_realtime.presence import Presence
from insforge_realtime.rooms import PAUSE_FOR_EACH, Rooms

NAMES = "abcdef"


class Guest:
    """A socket that keeps the roster: the snapshot, and what it hears."""

    stream: Stream | None = None

    def __init__(self, name: str) -> None:
        self.name = name
        self.roster: dict[str, str] = {}
        self.heard: list[tuple[str, str]] = []
        self.ahead = False
        """Whether it got a second snapshot, which may have what it is still to be told."""

    def welcome(self, members: list[Member]) -> None:
        self.roster = {member.presence_id: member.joined_at for member in members}

    def deliver(self, batch: Batch) -> None:
        for event in batch.events:
            name, data = json.loads(event)
            if "member" in data:
                self._hear(name, data["member"])
            self.heard.append((name, data.get("member", {}).get("presenceId", "")))

    def _hear(self, name: str, member: dict[str, Any]) -> None:
        assert member["presenceId"] != self.name, "told of itself"
        if name == "presence:join":
            assert self.ahead or member["presenceId"] not in self.roster, "told twice"
            self.roster[member["presenceId"]] = member["joinedAt"]
        else:
            assert self.roster.pop(member["presenceId"], None) or self.ahead, "told of nobody"


class House:
    """One room, and a clock for when its members joined."""

    def __init__(self) -> None:
        self.hub, self.presence = Hub(), Presence()
        self.rooms = Rooms(self.hub, self.presence)
        self.inside: list[Guest] = []
        self.times = 0

    def enter(self, name: str) -> Guest:
        guest = Guest(name)
        self.times += 1
        member = Member("user", name, str(self.times))
        self.rooms.enter("room", guest, member, lambda: guest.welcome(self.rooms.members("room")))
        self.inside.append(guest)
        return guest

    def leave(self, guest: Guest) -> None:
        self.inside.remove(guest)
        self.rooms.leave("room", guest, guest.name)

    def flush(self) -> None:
        for channel in self.hub.waiting():
            list(self.hub.fan_out(channel, ()))

    def truth(self) -> dict[str, str]:
        return {member.presence_id: member.joined_at for member in self.rooms.members("room")}


@given(
    st.lists(
        st.tuples(st.sampled_from(["enter", "leave", "ask again", "flush", "message"]), st.integers(0, 99)), max_size=80
    )
)
def test_everybody_knows_who_is_there(steps: list[tuple[str, int]]) -> None:
    async def play() -> None:
        house = House()
        house.rooms._flushing = True  # by hand, below
        for step, number in steps:
            if step == "enter":
                house.enter(NAMES[number % len(NAMES)])
            elif step == "leave" and house.inside:
                house.leave(house.inside[number % len(house.inside)])
            elif step == "ask again" and house.inside:
                guest = house.inside[number % len(house.inside)]
                guest.welcome(house.rooms.members("room"))
                guest.ahead = True
            elif step == "flush":
                house.flush()
            elif step == "message":
                list(house.hub.fan_out("room", ['["message",{}]']))
        house.flush()
        for guest in house.inside:
            assert guest.roster == house.truth()

    asyncio.run(play())


async def test_what_a_second_snapshot_has_left_out_is_sent_when_it_comes_back() -> None:
    house = House()
    witness, other = house.enter("witness"), house.enter("other")
    house.flush()
    house.leave(other)
    witness.welcome(house.rooms.members("room"))  # it subscribes again
    witness.ahead = True
    house.enter("other")
    house.flush()
    assert witness.roster == house.truth()


async def test_a_member_that_comes_and_goes_within_a_pause_is_nothing_to_the_others() -> None:
    house = House()
    witness = house.enter("witness")
    for _ in range(100):
        house.leave(house.enter("restless"))
    await asyncio.sleep(0.05)
    assert witness.heard == []
    house.leave(house.enter("restless"))
    guest = house.enter("restless")
    while not witness.heard:
        await asyncio.sleep(0.001)
    for _ in range(100):
        house.leave(guest)
        guest = house.enter("restless")
    await asyncio.sleep(0.05)
    assert witness.heard == [("presence:join", "restless")]
    assert witness.roster == house.truth()


async def test_a_room_of_many_is_told_a_few_times_a_second() -> None:
    house = House()
    everybody = [house.enter("crowd") for _ in range(400)]
    await asyncio.sleep(0.05)
    loop = asyncio.get_running_loop()
    began, guest = loop.time(), None
    while loop.time() - began < 1.0:  # longer than any pause of this room, so that nothing cancels
        if guest is None:
            guest = house.enter("restless")
        else:
            house.leave(guest)
            guest = None
        await asyncio.sleep(0.02)
    allowed = (loop.time() - began) / (400 * PAUSE_FOR_EACH) + 2
    assert 1 <= len(everybody[0].heard) <= allowed


async def test_the_loop_gets_its_turns_while_a_large_room_is_told() -> None:
    house = House()
    order: list[str] = []

    class Noting(Guest):
        def deliver(self, batch: Batch) -> None:
            super().deliver(batch)
            order.append(self.name)

    for _ in range(3 * SLICE):
        guest = Noting("crowd")
        house.rooms.enter("room", guest, Member("user", "crowd", "now"), lambda: None)
        house.inside.append(guest)
    house.enter("newcomer")

    async def others() -> None:
        while len(order) < 3 * SLICE:
            if order:
                order.append("somebody else")
            await asyncio.sleep(0)

    await asyncio.wait_for(others(), 20)
    assert order.index("somebody else") <= SLICE


def test_a_message_does_not_overtake_presence_events_that_are_being_told() -> None:
    hub = Hub()
    guests = [Guest("crowd") for _ in range(2 * SLICE)]
    for guest in guests:
        hub.join("room", guest)
    hub.queue("room", '["presence:join",{"member":{"presenceId":"x","joinedAt":"now"}}]', Member("user", "x", "now"))
    telling = hub.fan_out("room", ())
    assert next(telling) == SLICE
    assert hub.waiting() == []
    audience = sum(hub.fan_out("room", ['["message",{}]']))
    assert audience == 2 * SLICE
    assert {tuple(guest.heard) for guest in guests} == {(("presence:join", "x"), ("message", ""))}
    assert list(telling) == []
