"""What has happened in this server since it started, as numbers.

What lives here: counts, which only grow, and histograms; one object for each server, made in app.py and handed to whatever
sees things happen. What may not: gauges, which are read where the things are that they count; who reads the numbers, and
how they are written; labels that users make (a channel, an event, a user, a URL): there is no end of these.

Everything is an int, changed by the thread of the event loop alone: adding to one takes 30 ns and no lock. A hot path still
counts once for a batch, never for each socket. Names are Prometheus', without prefix and `_total`; times are microseconds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

OK = "ok"
"""The result of what was not refused, where the others are the codes of errors.py."""
FULL = "full"
"""That of a CONNECT with a good credential, where the server had no room for one more client."""

MICROSECONDS = (
    *(250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000),
    *(1_000_000, 2_500_000, 5_000_000, 10_000_000),
)
"""From a quarter of a millisecond to ten seconds."""
SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 4_000)
"""Up to the largest page of the feed."""


class Histogram:
    """How many values there were of about which size.

    Args:
        bounds: the greatest value of each bucket, ascending; one more bucket has what is greater than all of them.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[int, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0

    def observe(self, value: int) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)


@dataclass(slots=True)
class RoundTrips:
    """Statements to PostgreSQL that carry many things at once."""

    sizes: Histogram = field(default_factory=lambda: Histogram(SIZES))
    microseconds: Histogram = field(default_factory=lambda: Histogram(MICROSECONDS))

    def observe(self, size: int, seconds: float) -> None:
        """Count one of them.

        Args:
            size: how many things it carried. Zero does not count as a size: most looks of a feed find nothing.
            seconds: how long it took.
        """
        if size:
            self.sizes.observe(size)
        self.microseconds.observe(int(seconds * 1_000_000))


@dataclass(slots=True)
class Metrics:
    """The numbers of one server. Every field is counted in one place, which its name finds."""

    # The street down
    messages_read: int = 0
    """Messages that the feed has handed to delivery."""
    messages_undeliverable: int = 0
    messages_oversized: int = 0
    """Messages that were passed over, since they cannot be events, or are larger than any client may leave unread."""
    deliveries: int = 0
    """Messages times the sockets that each was sent to. Presence events are not messages."""
    delivered_bytes: int = 0
    """Of frames that rooms have written to WebSockets, with those of presence events; for other sinks, characters."""
    delivery_failures: int = 0
    """Writes to a room that raised."""
    slow_consumers: int = 0
    """Connections that were cut off, since they left too much unread."""

    # The feed
    feed_looks: int = 0
    feed_rings: int = 0
    feed_naps: int = 0
    feed_gaps: int = 0
    """How often nobody could tell what was missed."""
    pages: RoundTrips = field(default_factory=RoundTrips)
    """A look's statement, and the messages in its answer."""

    # The street up
    connects: Counter[str] = field(default_factory=Counter)
    """CONNECTs by result."""
    subscribes: Counter[str] = field(default_factory=Counter)
    unsubscribes: Counter[str] = field(default_factory=Counter)
    publishes: Counter[str] = field(default_factory=Counter)
    unknown_commands: Counter[str] = field(default_factory=Counter)
    """Commands by result."""
    subscribe_batches: RoundTrips = field(default_factory=RoundTrips)
    publish_batches: RoundTrips = field(default_factory=RoundTrips)
    """Clients' requests that PostgreSQL judged together. Cancelled ones are counted, lost ones are not."""

    # The door
    sockets_refused: Counter[str] = field(default_factory=Counter)
    """TCP connections without a place, by the limit that left none: `all`, `address`."""
    handshakes_refused: Counter[str] = field(default_factory=Counter)
    """Requests to `/socket.io/` that were refused, by the words of the answer."""
    connections_evicted: int = 0
    """Unauthenticated connections that had to give way to others."""
