"""What is printed for people: nothing in it commands the terminal, and no encoding makes it fail.

Names, payloads and errors come from databases and from other people. A terminal obeys control characters, and reorders
what is between two bidirectional ones: both are shown as what they are, `\\u001b`.
"""

from __future__ import annotations

import io
import os
import re
import sys

_COMMANDS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_NOT_ASCII = re.compile(r"[^ -~]")


def prepare() -> None:
    """Let both outputs take any text. To be called at the beginning of a command.

    What the encoding of an output (that of the locale, or PYTHONIOENCODING) does not have is written as an escape, and an
    output that is closed takes everything.
    """
    _fill_descriptors()
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _fill_descriptors() -> None:
    """Open standard descriptors that are closed: the next socket would get one, and what libraries write to it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free


def _nowhere() -> io.TextIOWrapper:
    return open(os.devnull, "w", encoding="utf-8")


def say(text: str) -> None:
    """Print a line on standard output, at once. (typer.echo would write UTF-8 where the encoding is ASCII.)"""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def harmless(text: str) -> str:
    """Return a text in one line, with escapes in place of what a terminal might obey."""
    return _COMMANDS.sub(_escaped, text)


def harmless_lines(text: str) -> str:
    """Return the same for a text of several lines."""
    return "\n".join(map(harmless, text.split("\n")))


def ascii_json(json: str) -> str:
    """Return JSON (without line breaks) in printable ASCII: the same JSON, whatever reads it."""
    return _NOT_ASCII.sub(_escaped, json)


def _escaped(character: re.Match[str]) -> str:
    """Write a character as JSON does: one escape for each half of a surrogate pair."""
    units = character[0].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
