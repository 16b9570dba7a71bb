"""Whether anything was lost, doubled or out of order, of what one subscriber of one room got."""

from __future__ import annotations

import json


class Tally:
    """Events `["tick",{"w": writer, "n": number, …}]`, where each writer numbers its own; others do not count."""

    def __init__(self) -> None:
        self.events = self.doubled = self.disordered = 0
        self._last: dict[int, int] = {}
        self._seen: set[tuple[int, int]] = set()

    def take(self, event: bytes) -> None:
        """Count one event."""
        if not event.startswith(b'["tick"'):
            return
        data = json.loads(event)[1]
        writer, number = data["w"], data["n"]
        self.events += 1
        self.doubled += (writer, number) in self._seen
        self._seen.add((writer, number))
        self.disordered += number < self._last.get(writer, 0)
        self._last[writer] = number

    def report(self) -> dict[str, int]:
        return {
            "events": self.events,
            "distinct": len(self._seen),
            "doubled": self.doubled,
            "disordered": self.disordered,
        }
