"""The Python client's JSON: what it refuses, and where it finds the fault; numbers of any length."""

from __future__ import annotations

import json
import math
import sys
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insforge_realtime.client import ClientError, InvalidRequest
from insforge_realtime.client.codec import Json, dumps, encoded, loads

NOTHING: dict[str, Any] = {}
CYCLE: dict[str, Any] = {"list": []}
CYCLE["list"].append(CYCLE)


@pytest.mark.parametrize(
    ("payload", "fault"),
    [
        ({"n": math.nan}, "payload.n: nan"),
        ({"a": [1, {"b": math.inf}]}, "payload.a[1].b: inf"),
        ({"a": (-math.inf,)}, "payload.a[0]: -inf"),
        ({math.nan: 1}, "payload (a key): nan"),
        ({"t": "a\ud83d"}, "payload.t: half a surrogate pair (U+D83D)"),
        ({"t": "\ude00\ud83d"}, "payload.t: half a surrogate pair (U+DE00)"),
        ({"a": {"b\udc80": 1}}, "payload.a (a key): half a surrogate pair"),
        ({"o": object()}, "payload.o: a object cannot be said in JSON"),
        ({"o": b"bytes"}, "payload.o: a bytes"),
        ({"o": {1, 2}}, "payload.o: a set"),
        ({(1, 2): 1}, "payload: a key must be text, not a tuple"),
        (CYCLE, "payload.list[0]: it contains itself"),
    ],
    ids=range(12),
)
def test_what_json_cannot_express_is_refused_with_the_place(payload: Any, fault: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        encoded({"channel": "c", "event": "e", "payload": payload})
    assert caught.value.code == "INVALID_REQUEST"
    assert fault in caught.value.message
    caught.value.message.encode()
    assert isinstance(caught.value, ClientError | TypeError | ValueError)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
"""Hypothesis makes no text with half a surrogate pair by itself when it is to be encoded."""


@given(VALUES)
def test_what_json_can_express_arrives_as_it_is(value: Any) -> None:
    try:
        text = dumps(["event", encoded(value)])
    except InvalidRequest:
        with pytest.raises(UnicodeEncodeError):
            json.dumps(value, ensure_ascii=False).encode()
        return
    assert loads(text) == ["event", value]
    assert json.loads(text) == ["event", value]


@pytest.mark.parametrize("digits", [1, 18, 19, 20, 100, 101, 599, 600, 601, 4300, 4301, 131_072])
@pytest.mark.parametrize("sign", [1, -1])
def test_integers_of_any_length_are_read_and_written_exactly(digits: int, sign: int) -> None:
    number = sign * (10**digits // 7)
    text = dumps(["event", encoded({"payload": [number, {"n": number}]})])
    assert loads(text) == ["event", {"payload": [number, {"n": number}]}]
    assert loads("-" * (sign < 0) + "9" * digits) == sign * (10**digits - 1)


def test_a_long_integer_cannot_occupy_a_client() -> None:
    begin = time.process_time()
    loads("9" * 1_000_000)
    assert time.process_time() - begin < 10  # Python itself would take minutes


def test_the_limit_against_long_integers_stays_what_it_was() -> None:
    before = sys.get_int_max_str_digits()
    encoded({"n": loads("9" * 5000)})
    assert sys.get_int_max_str_digits() == before


@settings(max_examples=5, deadline=None)
@given(VALUES)
def test_what_is_nested_deeply_is_read_like_anything_else(value: Any) -> None:
    depth = 5000
    text = json.dumps({"a": value, ":": '}\\"', "b": [value, {}, []]})
    found = loads('[{"k": ' * depth + text + "}, -1.5]" * depth)
    for _ in range(depth):
        assert found[1] == -1.5
        found = found[0]["k"]
    assert found == json.loads(text)


@settings(max_examples=10, deadline=None)
@given(VALUES)
def test_what_is_nested_deeply_is_written_like_anything_else(value: Any) -> None:
    same, nested, depth = [1], {"a": value}, 2000
    for _ in range(depth):
        nested = {"k": [nested, (), {}, same, same, "é"]}
    try:
        text = encoded(nested)
    except InvalidRequest:
        with pytest.raises(UnicodeEncodeError):
            json.dumps(value, ensure_ascii=False).encode()
        return
    assert text == '{"k":[' * depth + encoded({"a": value}) + ',[],{},[1],[1],"é"]}' * depth


def test_what_python_says_without_a_word_is_said_the_same() -> None:
    class Text(str):
        pass

    odd = {1: True, None: (1, 2.5), False: "x", 1.5: Text("t"), "é": "\x00\u2028"}
    assert json.loads(encoded({**odd, "n": 10**5000 // 10**4990})) == json.loads(
        json.dumps({**odd, "n": 10**5000 // 10**4990})
    )
    assert isinstance(encoded(NOTHING), Json)
    assert dumps({"token": "t"}) == '{"token":"t"}'
    assert dumps([]) == "[]"
