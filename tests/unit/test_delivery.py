"""The street down: what is joined, what is counted, and how long anybody is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from insforge_realtime import delivery as module
from insforge_realtime.delivery import BURST, BURST_CHARS, Congestion, Delivery
from insforge_realtime.hub import SLICE, Batch, Hub
from insforge_realtime.metrics import Metrics
from insforge_realtime.model import Message
from insforge_realtime.presence import Presence
from insforge_realtime.rooms import Rooms


class Recorder:
    stream = None

    def __init__(self, react: Callable[[], None] | None = None) -> None:
        self.writes: list[list[str]] = []
        self.react = react

    @property
    def got(self) -> list[str]:
        return [event for write in self.writes for event in write]

    def deliver(self, batch: Batch) -> None:
        self.writes.append(list(batch.events))
        if self.react is not None:
            self.react()


class Street:
    """A delivery with a real hub behind it."""

    def __init__(self) -> None:
        self.hub = Hub()
        self.counted: dict[int, int] = {}
        self.congestion = Congestion()
        self.metrics = Metrics()
        self.deliver = Delivery(Rooms(self.hub, Presence()), self._count, self.congestion, self.metrics)

    def _count(self, seq: int, audience: int) -> None:
        assert seq not in self.counted
        self.counted[seq] = audience

    def sink(self, *channels: str) -> Recorder:
        recorder = Recorder()
        for channel in channels:
            self.hub.join(channel, recorder)
        return recorder


def page(*channels: str, size: int = 0) -> list[Message]:
    """Messages to these channels, in this order, numbered from 1."""
    return [Message(seq, channel, f"{channel}{seq}".ljust(size, ".")) for seq, channel in enumerate(channels, 1)]


async def test_consecutive_messages_of_a_channel_are_one_write() -> None:
    street = Street()
    sink = street.sink("a")
    await street.deliver(page("a", "a", "a"))
    assert sink.writes == [["a1", "a2", "a3"]]


async def test_messages_that_are_not_consecutive_are_not_joined() -> None:
    street = Street()
    both, one = street.sink("a", "b"), street.sink("a")
    await street.deliver(page("a", "b", "b", "a", "a"))
    assert both.writes == [["a1"], ["b2", "b3"], ["a4", "a5"]]
    assert one.writes == [["a1"], ["a4", "a5"]]


@given(st.lists(st.sampled_from("abc"), max_size=40))
def test_a_client_of_several_channels_gets_everything_in_the_order_in_which_it_was_written(channels: list[str]) -> None:
    street = Street()
    sink = street.sink("a", "b")
    asyncio.run(street.deliver(page(*channels)))
    assert sink.got == [message.event for message in page(*channels) if message.channel != "c"]


async def test_every_message_is_counted_with_the_sinks_it_was_written_to() -> None:
    street = Street()
    street.sink("a", "b")
    street.sink("a")
    await street.deliver(page("a", "b", "c", "a"))
    assert street.counted == {1: 2, 2: 1, 3: 0, 4: 2}


async def test_deliveries_are_added_up_over_sockets() -> None:
    street = Street()
    for channels in ("ab", "a", "c"):
        street.sink(*channels)
    await street.deliver(page("a", "a", "b", "none"))
    assert street.metrics.deliveries == 2 * 2 + 1


async def test_a_large_room_lets_the_event_loop_turn_between_slices_and_is_counted_whole() -> None:
    street = Street()
    for _ in range(2 * SLICE + 1):
        street.sink("a")
    turns = 0

    async def spin() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    spinner = asyncio.create_task(spin())
    await street.deliver(page("a"))
    assert turns >= 2
    assert street.counted == {1: 2 * SLICE + 1}
    spinner.cancel()


async def test_a_newcomer_between_two_slices_is_not_counted_and_hears_the_next_message() -> None:
    street = Street()
    for _ in range(SLICE + 1):
        street.sink("a")
    late: list[Recorder] = []
    asyncio.get_running_loop().call_soon(lambda: late.append(street.sink("a")))
    await street.deliver(page("a"))
    assert street.counted == {1: SLICE + 1}
    await street.deliver([Message(2, "a", "a2")])
    assert late[0].got == ["a2"]
    assert street.counted[2] == SLICE + 2


async def test_one_room_that_fails_does_not_stop_the_others() -> None:
    street = Street()
    good = street.sink("a", "c")
    broken = street.sink("b")

    def fail() -> None:
        raise RuntimeError("broken sink")

    broken.react = fail
    with capture_logs() as logs:
        await street.deliver(page("a", "b", "c"))
    assert good.got == ["a1", "c3"]
    assert street.counted == {1: 1, 3: 1}
    assert [(line["event"], line["channel"]) for line in logs] == [("delivery failed", "b")]
    assert (street.metrics.delivery_failures, street.metrics.deliveries) == (1, 2)


async def test_one_write_has_no_more_than_a_burst_of_text() -> None:
    street = Street()
    sink = street.sink("a")
    await street.deliver(page(*"a" * 10, size=BURST_CHARS // 3))
    assert [len(write) for write in sink.writes] == [3, 3, 3, 1]
    assert sink.got == [message.event for message in page(*"a" * 10, size=BURST_CHARS // 3)]


async def test_a_message_larger_than_a_burst_goes_alone() -> None:
    street = Street()
    sink = street.sink("a")
    await street.deliver([*page("a"), Message(2, "a", "x" * 2 * BURST_CHARS), Message(3, "a", "a3")])
    assert [len(write) for write in sink.writes] == [1, 1, 1]


@pytest.mark.parametrize("messages", [page(*"a" * BURST), page("a", size=BURST_CHARS)], ids=["many", "large"])
async def test_after_a_burst_sinks_get_a_moment_to_drain_and_it_is_bounded(
    messages: list[Message], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EASE_SECONDS", 0.02)
    street = Street()
    sink = street.sink("a")
    street.congestion.filled(sink)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await street.deliver(messages)
    assert 0.015 < loop.time() - began < 2
    # It has had its moment: the next burst does not wait for it.
    monkeypatch.setattr(module, "EASE_SECONDS", 60)
    async with asyncio.timeout(10):
        await street.deliver([Message(-message.seq, "a", message.event) for message in messages])


async def test_within_a_burst_sinks_get_a_moment_too() -> None:
    street = Street()
    sink = street.sink("a")
    loop = asyncio.get_running_loop()
    buffered = 0

    def fill() -> None:
        nonlocal buffered
        buffered += 1
        assert buffered == 1  # it was given the time to drain before the next write
        street.congestion.filled(sink)
        loop.call_soon(drain)

    def drain() -> None:
        nonlocal buffered
        buffered = 0
        street.congestion.drained(sink)

    sink.react = fill
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "EASE_SECONDS", 60)
        async with asyncio.timeout(10):
            await street.deliver(page(*"a" * 8, size=BURST_CHARS // 2))
    assert len(sink.got) == 8


async def test_a_few_small_messages_wait_for_nobody() -> None:
    street = Street()
    street.congestion.filled(street.sink("a"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "EASE_SECONDS", 60)
        async with asyncio.timeout(10):
            await street.deliver(page(*"a" * (BURST - 1)))


async def test_easing_ends_as_soon_as_everybody_has_drained() -> None:
    congestion, loop = Congestion(), asyncio.get_running_loop()
    congestion.filled("x")
    congestion.filled("y")
    loop.call_later(0.001, congestion.drained, "x")
    loop.call_later(0.005, congestion.drained, "y")
    async with asyncio.timeout(10):
        await congestion.ease(60)


async def test_easing_without_congestion_takes_no_time() -> None:
    congestion = Congestion()
    async with asyncio.timeout(10):
        await congestion.ease(60)
    congestion.drained("never filled")
    async with asyncio.timeout(10):
        await congestion.ease(60)


async def test_who_fills_up_again_gets_another_moment() -> None:
    congestion, loop = Congestion(), asyncio.get_running_loop()
    congestion.filled("x")
    await congestion.ease(0.001)
    congestion.filled("x")
    began = loop.time()
    await congestion.ease(0.02)
    assert loop.time() - began >= 0.015
