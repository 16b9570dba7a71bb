"""Parsing JSON, one part of which is handed on as the very text that arrived.

    read(text)     the parsed data, and the text of the payload
    sketch(text)   for JSON that `read` cannot parse although the grammar allows it: as much as a refusal needs

A payload becomes `jsonb`, which holds numbers that Python's and JavaScript's floats cannot. So it is never re-encoded, but
cut out of the packet. What a payload may be is validation.py's business, not this module's.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

import orjson

KEPT = "payload"
"""The member of an event's first argument whose text is kept."""
_MARK = f'"{KEPT}":'
_END = "}]"

_MARKUP = re.compile(r"[ \t\n\r]*[\[{:,][ \t\n\r]*")
"""One sign between two values."""


def read(text: str) -> tuple[Any, str | None]:
    """Parse JSON; return the data, and the text of the payload in `["name",{"payload":…}]`, or None if there is none.

    Raises:
        ValueError: orjson cannot parse it.
        RecursionError: it nests so deeply that the payload is not looked for.
    """
    start = text.find(_MARK) + len(_MARK)
    if start >= len(_MARK) and text.endswith(_END):
        try:
            return _read_apart(text, start)
        except ValueError:
            pass  # the payload is not the last thing in it, or not JSON
    data = orjson.loads(text)
    if isinstance(data, list) and len(data) > 1 and isinstance(data[1], dict) and KEPT in data[1]:
        return data, _cut_out(text)
    return data, None


def _read_apart(text: str, start: int) -> tuple[Any, str]:
    """Parse it as clients write it, with the payload last: parsed separately, that is neither searched for nor parsed twice.

    With `null` in the payload's place the rest is JSON, and so is the payload by itself: hence so is the whole.
    """
    data = orjson.loads(f"{text[:start]}null{_END}")
    payload = text[start : -len(_END)]
    if len(data) != 2:
        raise ValueError
    data[1][KEPT] = orjson.loads(payload)
    return data, payload


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


# Integers as floats: Python refuses to make an int of more than 4300 digits, and takes its time for fewer.
_DECODER = json.JSONDecoder(parse_int=float, parse_constant=_refuse_constant)


def _cut_out(text: str) -> str:
    """Return the text of the payload, wherever it is in the argument. Of several, the last counts, as for every parser."""
    payload = ""
    _, at = _DECODER.raw_decode(text, _after_markup(text, 0))
    at = _after_markup(text, _after_markup(text, at))
    while text[at] == '"':
        name, at = _DECODER.raw_decode(text, at)
        start = _after_markup(text, at)
        _, at = _DECODER.raw_decode(text, start)
        if name == KEPT:
            payload = text[start:at]
        at = _after_markup(text, at)
    return payload


def _after_markup(text: str, at: int) -> int:
    """Return where the next value begins; `at` itself if there is none, as at the end of an object."""
    found = _MARKUP.match(text, at)
    return found.end() if found else at


def sketch(text: str) -> Any:
    """Salvage what we can from JSON that is beyond us: an event's name, and the plain strings of its first argument.

    Raises:
        ValueError: it is not JSON. (What nests too deeply is not read to its end, and gets the benefit of the doubt.)
    """
    try:
        data = _DECODER.decode(text)
    except RecursionError:
        data = _beginning(text)
    if isinstance(data, list):
        return [_printable(value) for value in data[:1]] + [_plain(value) for value in data[1:2]]
    return {} if isinstance(data, dict) else data


def _beginning(text: str) -> Any:
    """Parse as much as there is before the depths."""
    start = _after_markup(text, 0)
    try:
        return [_DECODER.raw_decode(text, start)[0]] if text.lstrip().startswith("[") else {}
    except RecursionError:
        return []


def _printable(value: object) -> object:
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def _plain(value: object) -> dict[str, str]:
    members = value.items() if isinstance(value, dict) else ()
    return {name: member for name, member in members if isinstance(member, str) and _printable(member) == member}
