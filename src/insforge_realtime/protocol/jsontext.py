"""JSON that is read, and one part of it that is handed on as the very text that came.

    read(text)     what it says, and the text of the payload
    sketch(text)   of JSON that `read` cannot read although the grammar allows it: as much as a refusal needs

A payload becomes `jsonb`, and that holds numbers which Python's floats and JavaScript's do not. So nobody writes it anew: it
is cut out of the packet. What a payload may be is validation.py's business, not this module's.
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
    """What JSON says, and the text of `["name",{"payload":…}]`'s payload; None where there is no such thing.

    Raises:
        ValueError: orjson cannot read it.
        RecursionError: it nests so deeply that the payload is not looked for.
    """
    start = text.find(_MARK) + len(_MARK)
    if start >= len(_MARK) and text.endswith(_END):
        try:
            return _read_apart(text, start)
        except ValueError:
            pass  # the payload is not what is last in it, or it is no JSON
    data = orjson.loads(text)
    if isinstance(data, list) and len(data) > 1 and isinstance(data[1], dict) and KEPT in data[1]:
        return data, _cut_out(text)
    return data, None


def _read_apart(text: str, start: int) -> tuple[Any, str]:
    """As clients write it: the payload is the last thing in it. Read apart, it need be neither searched for nor read twice.

    With `null` in its place all else is JSON, and so is the payload by itself: hence the whole is, with the payload there.
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
    """The text of the payload, wherever in the argument it is. Of several, the last one counts, as for every parser."""
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
    """Where the next value begins; `at` itself where there is none, as at the end of an object."""
    found = _MARKUP.match(text, at)
    return found.end() if found else at


def sketch(text: str) -> Any:
    """What can be told of JSON that is beyond us: the name of an event, and the plain strings of its first argument.

    Raises:
        ValueError: it is no JSON. (What nests too deeply is not read to its end, and gets the benefit of the doubt.)
    """
    try:
        data = _DECODER.decode(text)
    except RecursionError:
        data = _beginning(text)
    if isinstance(data, list):
        return [_printable(value) for value in data[:1]] + [_plain(value) for value in data[1:2]]
    return {} if isinstance(data, dict) else data


def _beginning(text: str) -> Any:
    """As much as there is before the depths."""
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
