"""What is printed for people: no commands to the terminal, no failure for the sake of an encoding."""

from __future__ import annotations

import json
import subprocess
import sys
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insforge_realtime.cli.client import _Pretty, _show_json
from insforge_realtime.cli.terminal import ascii_json, harmless, harmless_lines
from insforge_realtime.client import Message

BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
COMMANDS = [*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)), *BIDI, "\u2028", "\u2029", "\ud800", "\udfff"]


@pytest.mark.parametrize("character", COMMANDS, ids=lambda character: f"U+{ord(character):04X}")
def test_what_a_terminal_obeys_is_escaped(character: str) -> None:
    assert harmless(f"a{character}b") == f"a\\u{ord(character):04x}b"


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_what_is_left_is_nothing_that_a_terminal_obeys(text: str) -> None:
    shown = harmless(text)
    assert not [it for it in shown if unicodedata.category(it) in ("Cc", "Zl", "Zp") or it in BIDI]
    assert harmless(shown) == shown


def test_other_text_stays_as_it_is() -> None:
    for text in ("order:123", "héllo wörld", "日本語", "👩‍👩‍👧", "שלום", "e\u0301", "a\\u001b", ""):
        assert harmless(text) == text
    assert harmless_lines("a\x1b\nb\r") == "a\\u001b\nb\\u000d"


@given(st.recursive(st.none() | st.integers() | st.text(), lambda it: st.lists(it) | st.dictionaries(st.text(), it)))
def test_json_in_ascii_is_the_same_json(value: Any) -> None:
    text = ascii_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(text) == value
    assert text.isascii()
    assert text.isprintable()


def odd_message(name: str, payload: dict[str, Any]) -> Message:
    meta = {
        "channel": name,
        "messageId": "1",
        "senderType": "user",
        "senderId": name,
        "timestamp": "2024-01-02T03:04:05Z",
    }
    return Message(name, {**payload, "meta": meta})


@pytest.mark.parametrize("evil", ["\x1b]0;owned\x07", "\x9b31m", "\x7f", "\r", "\u202e", "\u2066"])
def test_tail_obeys_nobody_that_may_name_things(evil: str, capsys: pytest.CaptureFixture[str]) -> None:
    _Pretty().show(odd_message(f"a{evil}b", {f"key{evil}": f"value{evil}", "n": 10**5000}))
    shown = capsys.readouterr().out
    assert shown.endswith("\n")
    assert shown[:-1].isprintable()
    assert shown.count(f"a{harmless(evil)}b") == 3
    _show_json(odd_message(f"a{evil}b", {f"key{evil}": evil}))
    line = capsys.readouterr().out
    assert line[:-1].isprintable()
    assert line.isascii()
    assert json.loads(line)["payload"] == {f"key{evil}": evil}


def test_tail_shows_what_is_longer_or_deeper_than_python_writes(capsys: pytest.CaptureFixture[str]) -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    for show in (_Pretty().show, _show_json):
        show(odd_message("a", {"n": int("9" * 4000) * 10**1000, "deep": deep}))
        shown = capsys.readouterr().out
        assert shown.count("\n") == 1
        assert f"{'9' * 4000}{'0' * 1000}" in shown
        assert f"{'[' * 5001}{']' * 5001}" in shown


ENCODINGS = [
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "latin-1"},
    {"PYTHONIOENCODING": "cp1252"},
    {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
]


@pytest.mark.parametrize("locale", ENCODINGS, ids=lambda locale: " ".join(f"{k}={v}" for k, v in locale.items()))
@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--help"], 0),
        (["tail", "--help"], 0),
        (["webhooks", "list", "--help"], 0),
        (["token", "--role", "rôle 🙂"], 2),
        (["tail", "kanäle 🙂", "--url", "http://127.0.0.1:1"], 1),
        (["publish", "c", "e", "{nö 🙂}"], 2),
        (["publish", "c\udcff", "e", "{}", "--url", "http://127.0.0.1:1"], 1),
        (["serve", "--host", "höst.invalid"], 2),
        (["nö 🙂"], 2),
    ],
    ids=lambda value: " ".join(value).encode("ascii", "backslashreplace").decode() if isinstance(value, list) else "",
)
def test_no_command_fails_for_the_sake_of_an_encoding(
    arguments: list[str], status: int, locale: dict[str, str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "insforge_realtime", *arguments],
        capture_output=True,
        env={"REALTIME_JWT_SECRET": "x" * 32, "DATABASE_URL": "postgresql://127.0.0.1:1/none", **locale},
        cwd="/",
        timeout=60,
        check=False,
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    assert done.returncode == status, done.stderr.decode()


@pytest.mark.parametrize("arguments", [["--version"], ["token"]], ids=lambda value: value[0])
def test_an_output_that_is_closed_or_read_by_nobody_ends_a_command_quietly(arguments: list[str]) -> None:
    command = f"{sys.executable} -m insforge_realtime {' '.join(arguments)}"
    for ending in (">&-", "2>&-", "| true"):
        done = subprocess.run(
            ["bash", "-c", f"{command} {ending}"],
            capture_output=True,
            env={"REALTIME_JWT_SECRET": "x" * 32},
            cwd="/",
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b""), ending
