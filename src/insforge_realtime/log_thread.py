"""The thread that writes the log, so that a slow, stuck or absent reader never stops the server.

What lives here: the handler for the standard library's loggers, its queue and its thread. logs.py decides what a line looks
like.

A pipe takes 64 KiB; then the writer waits until somebody reads. So lines are formatted where they are logged, queued up to
a number of bytes, and written elsewhere. Lines for which there is no room, and lines that cannot be written (the reader is
gone, the disk is full), are dropped and counted, and the count becomes a line in their place, as soon as something can be
written again. Nothing is retried: a broken descriptor costs one system call per batch of lines.
"""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from typing import TextIO

BATCH_BYTES = 64 * 1024
"""How much is written at a time: under load the thread gets few turns, and each must count."""
LAST_LINES_SECONDS = 2.0
"""How long the end of the process waits for what is queued."""

Line = tuple[int, bytes, threading.Event | None]
"""How many lines were dropped before it; its text; and the event to set once it is written."""


class ThreadedHandler(logging.Handler):
    """Writes log lines to a descriptor, from a thread, in their order. `logging.shutdown` flushes it when the process ends.

    Args:
        stream: the destination. Its descriptor is kept, even if somebody closes the stream.
        room: how many bytes of lines may wait; 0 for any number.
        dropped: makes the record that reports how many lines were dropped.

    Raises:
        OSError: the stream has no descriptor.
    """

    def __init__(self, stream: TextIO, room: int, dropped: Callable[[int], logging.LogRecord]) -> None:
        super().__init__()
        self._descriptor = os.dup(stream.fileno())
        self._encoding = stream.encoding or "utf-8"
        self._room = room
        self._record_of_dropped = dropped
        self._lines: SimpleQueue[Line] = SimpleQueue()
        self._put = 0  # bytes; only `emit` changes it, under the handler's lock
        self._taken = 0  # bytes; only the thread changes it
        self._dropped = 0  # lines for which there was no room, since the last one that had some; under the lock
        self._lost = 0  # lines not reported yet; only the thread's
        self._torn = False  # the last write ended within a line; only the thread's
        self._gave_up = False
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line, or count it as dropped. Never waits, and never raises. (The handler's lock is held.)"""
        line = self._line(record)
        if 0 < self._room < self._put - self._taken + len(line):
            self._dropped += 1
            return
        self._put += len(line)
        self._queue(line)

    def flush(self) -> None:
        """Wait until everything logged is written, but not for long, and not again after a wait in vain."""
        written = threading.Event()
        with self._locked:
            self._queue(b"", written)
        if not self._gave_up:
            self._gave_up = not written.wait(LAST_LINES_SECONDS)

    @property
    def _locked(self) -> threading.RLock:
        assert self.lock is not None
        return self.lock

    def _queue(self, line: bytes, written: threading.Event | None = None) -> None:
        self._lines.put((self._dropped, line, written))
        self._dropped = 0

    def _line(self, record: logging.LogRecord) -> bytes:
        try:
            text = self.format(record)
        except Exception as error:  # values that cannot be shown: where they were logged is worth a line
            text = (
                f"a log line of {record.name} ({record.module}:{record.lineno}) cannot be shown: {type(error).__name__}"
            )
        return f"{text}\n".encode(self._encoding, "backslashreplace")

    # The thread.

    def _run(self) -> None:
        while True:
            self._write_batch(self._lines.get())
            if self._lines.empty():
                self._say_what_was_dropped_last()

    def _write_batch(self, first: Line) -> None:
        """Write a line and those that wait behind it, up to a number of bytes."""
        batch, size = [first], len(first[1])
        while size < BATCH_BYTES and not self._lines.empty():
            batch.append(self._lines.get())
            size += len(batch[-1][1])
        self._write(batch)
        self._taken += size
        for _, _, written in batch:
            if written is not None:
                written.set()

    def _say_what_was_dropped_last(self) -> None:
        """Report the lines dropped last: none may follow soon. (A long holder of the lock waits for this thread.)"""
        while self._lines.empty():
            if self._locked.acquire(timeout=0.05):
                dropped, self._dropped = self._dropped, 0
                self._locked.release()
                if dropped:
                    self._write([(dropped, b"", None)])
                return

    def _write(self, batch: Iterable[Line]) -> None:
        """Write lines, and the number missing before them. Any that cannot be written are missing before the next ones."""
        data, lines = bytearray(b"\n" if self._torn else b""), 0
        for dropped, line, _ in batch:
            self._lost += dropped
            if self._lost and (line or dropped):
                data += self._line(self._record_of_dropped(self._lost))
                lines, self._lost = lines + self._lost, 0
            data += line
            lines += bool(line)
        if not self._write_all(data):
            self._lost += lines

    def _write_all(self, data: bytearray) -> bool:
        """Write the bytes, and return whether all of them could be written."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:  # somebody made the pipe a non-blocking one, for all who share it
                _wait_for_room(self._descriptor)
            except OSError:
                self._torn = self._torn or len(rest) < len(data)
                return False
        self._torn = self._torn and not data
        return True


def _wait_for_room(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    poll.poll()
