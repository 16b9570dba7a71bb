"""What the fuzzer has found, and what it begins with: every input keeps every promise of its target."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz.seeds import seeds
from fuzz.targets import TARGETS

FINDS = Path(__file__).parent / "finds"


@pytest.mark.parametrize("target", TARGETS)
def test_what_was_found_once_is_not_found_again(target: str) -> None:
    for file in sorted((FINDS / target).glob("*")):
        TARGETS[target](file.read_bytes())


@pytest.mark.parametrize("target", TARGETS)
def test_the_seeds_keep_every_promise(target: str) -> None:
    begin_with = seeds()
    assert len(begin_with) > 500
    for seed in begin_with:
        TARGETS[target](seed)


@pytest.mark.parametrize(
    ("target", "broken"),
    [
        ("frames", b"\x81\x80\0\0\0"),
        ("packets", b'2["a",{"b":1}]'),
    ],
)
def test_a_target_sees_a_broken_promise(target: str, broken: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that answers differently the second time, or miscounts."""
    answers = iter(range(1, 10))
    monkeypatch.setattr("fuzz.targets.frames.Reader.receive", lambda *_: [str(next(answers))])
    monkeypatch.setattr("insforge_realtime.protocol.socketio._bytes", lambda _: 0)
    with pytest.raises(AssertionError):
        TARGETS[target](broken)
