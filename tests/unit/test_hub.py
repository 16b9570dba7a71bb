"""The rooms: who gets what, in which order, while sinks come and go."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from insforge_realtime import hub as module
from insforge_realtime.hub import SLICE, Batch, Hub, Stream
from insforge_realtime.metrics import Metrics
from insforge_realtime.model import Member
from insforge_realtime.protocol.frames import text_frame

SOMEBODY = Member("user", "somebody", "now")


class Recorder:
    """A sink that notes what it gets, and may do something about it."""

    stream: Stream | None = None

    def __init__(self, react: Callable[[], None] | None = None) -> None:
        self.got: list[str] = []
        self.batches: list[Batch] = []
        self.react = react

    def deliver(self, batch: Batch) -> None:
        self.batches.append(batch)
        self.got += batch.events
        if self.react is not None:
            self.react()


class Streaming(Recorder):
    """A sink that is written to without asking, except while it is full."""

    def __init__(self, hub: Hub) -> None:
        super().__init__()
        self.hub = hub
        self.stream = self

    def write(self, data: bytes) -> None:
        assert self.stream is not None, "written to without asking, though it was full"
        while data:
            size = data[1]
            self.got.append(data[4 : 2 + size].decode())
            data = data[2 + size :]

    def fill(self, full: bool) -> None:
        self.stream = None if full else self
        self.hub.streams_changed()


def crowded(count: int) -> tuple[Hub, list[Recorder]]:
    """Return a hub with so many sinks in the room "a"."""
    hub, sinks = Hub(), [Recorder() for _ in range(count)]
    for sink in sinks:
        hub.join("a", sink)
    return hub, sinks


def send(hub: Hub, channel: str, *events: str) -> int:
    """Fan out to the end, and return the audience."""
    return sum(hub.fan_out(channel, events))


def flush(hub: Hub) -> int:
    """Everything queued, also what is queued meanwhile."""
    audience = 0
    while waiting := hub.waiting():
        audience += send(hub, waiting[0])
    return audience


def test_a_message_reaches_everybody_in_the_room_and_nobody_else() -> None:
    hub, inside, outside = Hub(), [Recorder(), Recorder()], Recorder()
    for sink in inside:
        hub.join("a", sink)
    hub.join("b", outside)
    assert send(hub, "a", "1", "2") == 2
    assert [sink.got for sink in inside] == [["1", "2"]] * 2
    assert outside.got == []


def test_nobody_gets_what_is_sent_to_an_empty_room() -> None:
    hub = Hub()
    assert list(hub.fan_out("a", ["1"])) == []
    hub.queue("a", "join", SOMEBODY)
    assert flush(hub) == 0


def test_consecutive_messages_are_one_write_and_made_once_for_all() -> None:
    hub, sinks = crowded(3)
    send(hub, "a", '["x",{}]', '["ö",{}]')
    assert [len(sink.batches) for sink in sinks] == [1, 1, 1]
    assert sinks[0].batches[0] is sinks[2].batches[0]
    batch = sinks[0].batches[0]
    assert batch.packets == ['42["x",{}]', '42["ö",{}]']
    assert batch.websocket == text_frame(b'42["x",{}]') + text_frame('42["ö",{}]'.encode())
    assert batch.websocket is batch.websocket


def test_joining_twice_is_joining_once() -> None:
    hub, sink = Hub(), Recorder()
    hub.join("a", sink)
    hub.join("a", sink)
    assert hub.audience("a") == 1
    assert send(hub, "a", "1") == 1
    assert sink.got == ["1"]
    hub.leave("a", sink)
    assert hub.audience("a") == 0


def test_joining_again_does_not_lose_what_is_queued() -> None:
    hub, sink = Hub(), Recorder()
    hub.join("a", sink)
    hub.queue("a", "join", SOMEBODY)
    hub.join("a", sink)
    flush(hub)
    assert sink.got == ["join"]


def test_a_sink_that_has_left_gets_nothing_and_leaving_twice_is_harmless() -> None:
    hub, sink, other = Hub(), Recorder(), Recorder()
    hub.join("a", sink)
    hub.join("a", other)
    hub.leave("a", sink)
    hub.leave("a", sink)
    hub.leave("nowhere", sink)
    assert send(hub, "a", "1") == 1
    assert (sink.got, other.got) == ([], ["1"])


def test_a_room_exists_while_somebody_is_in_it() -> None:
    hub, sinks = crowded(2)
    assert hub.rooms == 1
    hub.queue("a", "1", SOMEBODY)
    for sink in sinks:
        hub.leave("a", sink)
    assert (hub.rooms, hub.audience("a")) == (0, 0)
    hub.join("a", sinks[0])
    assert flush(hub) == 0
    assert sinks[0].got == []


def test_queued_events_wait_for_the_flush() -> None:
    hub, sink = Hub(), Recorder()
    hub.join("a", sink)
    hub.queue("a", "1", SOMEBODY)
    hub.queue("a", "2", SOMEBODY)
    assert sink.got == []
    assert flush(hub) == 1
    assert sink.got == ["1", "2"]
    assert len(sink.batches) == 1
    assert flush(hub) == 0


def test_queued_events_go_before_a_message_of_the_same_room() -> None:
    hub, sink, elsewhere = Hub(), Recorder(), Recorder()
    hub.join("a", sink)
    hub.join("b", elsewhere)
    hub.queue("a", "join", SOMEBODY)
    hub.queue("b", "join", SOMEBODY)
    send(hub, "a", "message")
    assert sink.got == ["join", "message"]
    assert elsewhere.got == []
    flush(hub)
    assert sink.got == ["join", "message"]
    assert elsewhere.got == ["join"]


def test_a_newcomer_gets_only_later_events_and_never_its_own_join() -> None:
    hub, old, new, newer = Hub(), Recorder(), Recorder(), Recorder()
    hub.join("a", old)
    send(hub, "a", "before")
    hub.queue("a", "new joins", SOMEBODY)
    hub.join("a", new)
    hub.queue("a", "newer joins", SOMEBODY)
    hub.join("a", newer)
    send(hub, "a", "after")
    assert old.got == ["before", "new joins", "newer joins", "after"]
    assert new.got == ["newer joins", "after"]
    assert newer.got == ["after"]


def test_newcomers_of_the_same_moment_share_their_bytes() -> None:
    hub, old = Hub(), Recorder()
    hub.join("a", old)
    hub.queue("a", "1", SOMEBODY)
    new = [Recorder(), Recorder()]
    for sink in new:
        hub.join("a", sink)
    send(hub, "a", "2")
    assert new[0].batches[0] is new[1].batches[0]


def test_a_large_room_is_written_in_slices_that_add_up_to_the_audience() -> None:
    hub, sinks = crowded(2 * SLICE + 500)
    slices = hub.fan_out("a", ["1"])
    assert next(slices) == SLICE
    assert sum(len(sink.got) for sink in sinks) == SLICE
    assert list(slices) == [SLICE, 500]
    assert all(sink.got == ["1"] for sink in sinks)


def test_a_room_of_exactly_one_slice_gets_everything_once() -> None:
    hub, sinks = crowded(SLICE)
    assert send(hub, "a", "1") == SLICE
    assert all(sink.got == ["1"] for sink in sinks)


def test_what_is_written_is_counted_in_bytes_of_frames_and_where_there_are_none_in_characters() -> None:
    metrics = Metrics()
    hub = Hub(metrics)
    for sink in (Streaming(hub), Streaming(hub), Recorder()):
        hub.join("a", sink)
    send(hub, "a", '["ä"]')
    assert metrics.delivered_bytes == 2 * len(text_frame('42["ä"]'.encode())) + len('42["ä"]')
    send(hub, "nobody's", '["x"]')
    assert metrics.delivered_bytes == 2 * 10 + 7


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLICE", 2)


@pytest.mark.usefixtures("small_slices")
def test_a_sink_that_leaves_between_two_slices_gets_nothing_more_and_is_not_counted() -> None:
    hub, sinks = crowded(5)
    slices = hub.fan_out("a", ["1"])
    assert next(slices) == 2
    hub.leave("a", sinks[0])
    hub.leave("a", sinks[3])
    assert sum(slices) == 2
    assert [len(sink.got) for sink in sinks] == [1, 1, 1, 0, 1]


@pytest.mark.usefixtures("small_slices")
def test_a_sink_that_joins_or_returns_between_two_slices_gets_only_what_comes_later() -> None:
    (hub, sinks), new = crowded(5), Recorder()
    slices = hub.fan_out("a", ["1"])
    next(slices)
    hub.join("a", new)
    hub.leave("a", sinks[4])
    hub.join("a", sinks[4])
    assert sum(slices) == 2
    send(hub, "a", "2")
    assert new.got == sinks[4].got == ["2"]
    assert sinks[3].got == ["1", "2"]


@pytest.mark.usefixtures("small_slices")
def test_a_room_that_closes_and_opens_again_between_two_slices_is_another_room() -> None:
    hub, sinks = crowded(3)
    slices = hub.fan_out("a", ["1"])
    next(slices)
    for sink in sinks:
        hub.leave("a", sink)
    hub.join("a", sinks[2])
    assert sum(slices) == 0
    assert sinks[2].got == []


def test_frames_are_written_straight_to_streams_and_a_full_one_is_asked() -> None:
    hub = Hub()
    streaming, recorder = Streaming(hub), Recorder()
    hub.join("a", streaming)
    hub.join("a", recorder)
    assert send(hub, "a", "1", "2") == 2
    assert streaming.batches == []
    streaming.fill(full=True)
    send(hub, "a", "3")
    assert len(streaming.batches) == 1
    streaming.fill(full=False)
    send(hub, "a", "4")
    assert len(streaming.batches) == 1
    assert streaming.got == recorder.got == ["1", "2", "3", "4"]


@pytest.mark.usefixtures("small_slices")
def test_a_stream_that_fills_up_between_two_slices_is_asked() -> None:
    hub = Hub()
    sinks = [Streaming(hub) for _ in range(4)]
    for sink in sinks:
        hub.join("a", sink)
    slices = hub.fan_out("a", ["1"])
    next(slices)
    sinks[3].fill(full=True)
    assert sum(slices) == 2
    assert [sink.got for sink in sinks] == [["1"]] * 4


def test_sinks_that_close_in_the_middle_of_a_delivery_disturb_nobody() -> None:
    hub = Hub()
    sinks = [Recorder() for _ in range(6)]

    def everybody_odd_leaves() -> None:
        for sink in sinks[1::2]:
            hub.leave("a", sink)
            hub.leave("b", sink)
            hub.queue("a", "left", SOMEBODY)

    for sink in sinks:
        hub.join("a", sink)
        hub.join("b", sink)
    sinks[1].react = everybody_odd_leaves
    assert send(hub, "a", "1") == 4  # the one that left while being written to was written to
    assert [sink.got for sink in sinks] == [["1"], ["1"], ["1"], [], ["1"], []]
    assert (hub.audience("a"), hub.audience("b")) == (3, 3)
    flush(hub)
    assert sinks[0].got == ["1", "left", "left", "left"]


def test_the_last_one_may_close_the_room_while_it_is_being_flushed() -> None:
    hub = Hub()
    sink = Recorder()
    sink.react = lambda: hub.leave("a", sink)
    hub.join("a", sink)
    hub.queue("a", "1", SOMEBODY)
    assert flush(hub) == 1
    assert hub.rooms == 0
    assert flush(hub) == 0


def test_what_is_queued_during_a_flush_goes_out_in_the_same_flush() -> None:
    hub = Hub()
    first, second = Recorder(), Recorder()

    def leave_once() -> None:
        first.react = None
        hub.leave("a", first)
        hub.queue("a", "first left", SOMEBODY)

    hub.join("a", first)
    hub.join("a", second)
    first.react = leave_once
    hub.queue("a", "1", SOMEBODY)
    flush(hub)
    assert first.got == ["1"]
    assert second.got == ["1", "first left"]


class HubAgainstModel(RuleBasedStateMachine):
    """The hub in random use, against a model that keeps for each event the list of who is to get it."""

    channels = st.sampled_from("ab")
    numbers = st.integers(0, 5)

    def __init__(self) -> None:
        super().__init__()
        self.hub = Hub()
        self.sinks = [Recorder() if number % 3 == 0 else Streaming(self.hub) for number in range(6)]
        self.serial = 0
        self.rooms: dict[str, list[int]] = {"a": [], "b": []}
        self.queues: dict[str, list[tuple[str, set[int]]]] = {"a": [], "b": []}
        self.expected: list[dict[str, list[str]]] = [{"a": [], "b": []} for _ in self.sinks]
        self.running: tuple[str, Iterator[int], list[str], list[int]] | None = None

    def event(self, channel: str) -> str:
        self.serial += 1
        return f"{channel}{self.serial}"

    @rule(channel=channels, number=numbers)
    def join(self, channel: str, number: int) -> None:
        self.hub.join(channel, self.sinks[number])
        if number not in self.rooms[channel]:
            self.rooms[channel].append(number)

    @rule(channel=channels, number=numbers)
    def leave(self, channel: str, number: int) -> None:
        self.hub.leave(channel, self.sinks[number])
        if number in self.rooms[channel]:
            self.rooms[channel].remove(number)
        for _, audience in self.queues[channel]:
            audience.discard(number)
        if not self.rooms[channel]:
            self.queues[channel].clear()
        if self.running is not None and self.running[0] == channel and number in self.running[3]:
            self.running[3].remove(number)

    @rule(number=numbers, full=st.booleans())
    def fill(self, number: int, full: bool) -> None:
        sink = self.sinks[number]
        if isinstance(sink, Streaming):
            sink.fill(full)

    @rule(channel=channels)
    def queue(self, channel: str) -> None:
        event = self.event(channel)
        self.hub.queue(channel, event, SOMEBODY)
        if self.rooms[channel]:
            self.queues[channel].append((event, set(self.rooms[channel])))

    def take_queue(self, channel: str) -> None:
        for event, audience in self.queues[channel]:
            for number in audience:
                self.expected[number][channel].append(event)
        self.queues[channel].clear()

    @precondition(lambda self: self.running is None)
    @rule()
    def flush(self) -> None:
        flush(self.hub)
        self.take_queue("a")
        self.take_queue("b")

    @precondition(lambda self: self.running is None)
    @rule(channel=channels, count=st.integers(1, 3))
    def message(self, channel: str, count: int) -> None:
        events = [self.event(channel) for _ in range(count)]
        assert send(self.hub, channel, *events) == len(self.rooms[channel])
        self.take_queue(channel)
        for number in self.rooms[channel]:
            self.expected[number][channel] += events

    @precondition(lambda self: self.running is None)
    @rule(channel=channels)
    def begin_message(self, channel: str) -> None:
        if self.rooms[channel] and not self.queues[channel]:
            event = self.event(channel)
            slices = self.hub.fan_out(channel, [event])
            self.running = channel, slices, [event], list(self.rooms[channel])
            self.step()

    def step(self) -> None:
        """One slice of at most two; whoever was written to is told from whoever still has to be."""
        assert self.running is not None
        channel, slices, events, left = self.running
        before = [len(sink.got) for sink in self.sinks]
        written = next(slices, None)
        got = [number for number, sink in enumerate(self.sinks) if len(sink.got) > before[number]]
        assert written is None or written == len(got) <= 2
        for number in got:
            assert number in left
            left.remove(number)
            self.expected[number][channel] += events
        if written is None:
            assert left == []
            self.running = None

    @precondition(lambda self: self.running is not None)
    @rule()
    def go_on(self) -> None:
        self.step()

    @invariant()
    def everybody_has_what_the_model_says(self) -> None:
        for sink, expected in zip(self.sinks, self.expected, strict=True):
            for channel in "ab":
                assert [event for event in sink.got if event[0] == channel] == expected[channel]

    @invariant()
    def the_counts_are_right(self) -> None:
        for channel in "ab":
            assert self.hub.audience(channel) == len(self.rooms[channel])
        assert self.hub.rooms == sum(bool(room) for room in self.rooms.values())


@pytest.mark.usefixtures("small_slices")
class TestHubAgainstModel(HubAgainstModel.TestCase):  # type: ignore[misc,valid-type]
    settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
