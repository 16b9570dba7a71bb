"""The client's JSON: what is sent arrives intact or is refused here, and integers of any length stay what they are.

The library's own would write NaN and half a surrogate pair, which are not JSON, and cannot read integers of more than 100
digits, nor anything nested more than a thousand deep. Knows no sockets; link.py hands it to python-socketio as the `json` of
its packets.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from insforge_realtime.client.errors import InvalidRequest

SHORT = 600
"""Digits that Python always converts itself: its limit against slow conversions cannot be set lower than 640."""


class Json(str):
    """Finished JSON text: `dumps` leaves it as it is."""

    __slots__ = ()


def encoded(data: object) -> Json:
    """Return the JSON of a command.

    Raises:
        InvalidRequest: JSON cannot represent it; the message names what, and where.
    """
    try:
        text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        text.encode()
    except (TypeError, ValueError, RecursionError):
        text = _written(data)  # slow, but it knows where the fault is
    return Json(text)


def dumps(data: Any, **_: object) -> str:
    """Return a packet's JSON, for python-socketio: a list of an event's name and its data, or a CONNECT's object."""
    if isinstance(data, list) and data and isinstance(data[-1], Json):
        return f"[{','.join(item if isinstance(item, Json) else encoded(item) for item in data)}]"
    return encoded(data)


def loads(text: str, **_: object) -> Any:
    """Parse what came, for python-socketio."""
    try:
        return _DECODER.decode(text)
    except RecursionError:
        return _deep(text)


def _deep(text: str) -> Any:
    """Parse JSON that is nested more deeply than Python's own reader can go."""
    root: list[Any] = []
    inside: list[Any] = [root]
    key: str | None = None
    for piece in _PIECE.findall(text):
        if piece in "]}":
            inside.pop()
        elif piece not in ",:":
            value: Any = [] if piece == "[" else {} if piece == "{" else _DECODER.decode(piece)
            if isinstance(inside[-1], list):
                inside[-1].append(value)
            elif key is None:
                key = value
                continue
            else:
                inside[-1][key], key = value, None
            if piece in "[{":
                inside.append(value)
    return root[0]


def integer(digits: str) -> int:
    """Parse an integer of any length. Python refuses long ones because it is slow with them; halving is not."""
    if len(digits) <= SHORT:
        return int(digits)
    if digits.startswith("-"):
        return -integer(digits[1:])
    half = len(digits) // 2
    shift: int = 10**half
    return integer(digits[:-half]) * shift + integer(digits[-half:])


_DECODER = json.JSONDecoder(parse_int=integer)
_PIECE = re.compile(r'[\[\]{},:]|"(?:[^"\\]|\\.)*"|[^\[\]{},:"\s]+')


_Path = tuple["_Path", str] | None
"""What contains a value, and the step from there to it."""


@dataclass(frozen=True, slots=True)
class _End:
    """The end of a list or an object that is being written."""

    of: int
    bracket: str


def _written(data: object) -> str:
    """Write like json.dumps, but at any depth, with integers of any length, and locating what JSON cannot represent."""
    pieces: list[str] = []
    inside: set[int] = set()
    todo: list[tuple[object, _Path]] = [(data, None)]
    while todo:
        value, path = todo.pop()
        if isinstance(value, Json):
            pieces.append(value)
        elif isinstance(value, _End):
            inside.discard(value.of)
            pieces.append(value.bracket)
        elif isinstance(value, dict | list | tuple):
            if id(value) in inside:
                raise InvalidRequest(f"{_where(path)}: it contains itself")
            inside.add(id(value))
            opening, closing = "{}" if isinstance(value, dict) else "[]"
            items = _members(value, path) if isinstance(value, dict) else _items(value, path)
            todo += [(_End(id(value), closing), None), *reversed(items), (Json(opening), None)]
        else:
            pieces.append(_scalar(value, path))
    return "".join(pieces)


def _items(values: Sequence[object], path: _Path) -> list[tuple[object, _Path]]:
    items: list[tuple[object, _Path]] = []
    for number, value in enumerate(values):
        items += [(Json("," if number else ""), None), (value, (path, f"[{number}]"))]
    return items


def _members(values: Mapping[Any, object], path: _Path) -> list[tuple[object, _Path]]:
    members: list[tuple[object, _Path]] = []
    for number, (key, value) in enumerate(values.items()):
        name = _key(key, path)
        members += [(Json(f"{',' if number else ''}{name}:"), None), (value, (path, f".{key}"))]
    return members


def _key(key: object, path: _Path) -> str:
    """Write a key. As in the standard library, numbers, booleans and None become text."""
    if key is None or isinstance(key, str | float | int):
        text = _scalar(key, (path, " (a key)"))
        return text if isinstance(key, str) else f'"{text}"'
    raise InvalidRequest(f"{_where(path)}: a key must be text, not a {type(key).__name__}")


def _scalar(value: object, path: _Path) -> str:
    if isinstance(value, str):
        return _text(value, path)
    if isinstance(value, int) and not isinstance(value, bool):
        return _digits(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidRequest(f"{_where(path)}: {value} cannot be represented in JSON")
    if value is None or isinstance(value, bool | float):
        return json.dumps(value)
    raise InvalidRequest(f"{_where(path)}: a value of type {type(value).__name__} cannot be represented in JSON")


def _text(text: str, path: _Path) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = ord(text[error.start])
        raise InvalidRequest(f"{_where(path)}: half a surrogate pair (U+{half:04X}) is not text") from None
    return json.dumps(text, ensure_ascii=False)


def _digits(number: int) -> str:
    try:
        return int.__repr__(number)
    except ValueError:
        return f"{Decimal(number):f}"


def _where(path: _Path) -> str:
    steps: list[str] = []
    while path is not None:
        path, step = path
        steps.append(step)
    return "".join(reversed(steps)).removeprefix(".") or "the data"
