"""The payload's own text, out of whatever a client writes around it."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from insforge_realtime.protocol.jsontext import read

SPACE = st.text(" \t\n\r", max_size=2)
DIGITS = st.text("0123456789", min_size=1, max_size=30)
NUMBERS = st.builds(
    lambda sign, whole, fraction, exponent: f"{sign}{int(whole)}{fraction}{exponent}",
    st.sampled_from(["", "-"]),
    DIGITS,
    st.just("") | DIGITS.map(lambda digits: "." + digits),
    st.just("")
    | st.builds("{}{}{}".format, st.sampled_from("eE"), st.sampled_from(["", "+", "-"]), st.integers(0, 99)),
)
CHARACTERS = st.sampled_from(
    [
        "a",
        "é",
        "\U0001f600",
        "\x7f",
        "\u2028",
        " ",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        r"\"",
        r"\\",
        r"\/",
        r"\n",
        r"\u0000",
        r"\u00e9",
        r"\ud83d\ude00",
        r"\u0022",
        "payload",
        '\\"payload\\":',
        "null}]",
    ]
)
STRINGS = st.lists(CHARACTERS, max_size=4).map(lambda parts: f'"{"".join(parts)}"')
NAMES = STRINGS | st.sampled_from(['"payload"', r'"\u0070ayload"', '"a"', '"channel"'])


def listed(opening: str, items: list[str], closing: str, space: str) -> str:
    return f"{opening}{space}{f'{space},'.join(items)}{space}{closing}"


def objects(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Objects as text, with names that come twice, too."""
    member = st.builds("{}{}:{}{}".format, NAMES, SPACE, SPACE, values)
    return st.builds(listed, st.just("{"), st.lists(member, max_size=4), st.just("}"), SPACE)


VALUES = st.recursive(
    NUMBERS | STRINGS | st.sampled_from(["true", "false", "null", "{}", "[]"]),
    lambda inner: objects(inner) | st.builds(listed, st.just("["), st.lists(inner, max_size=4), st.just("]"), SPACE),
    max_leaves=8,
)
OBJECTS = objects(VALUES)


def exactly(text: str) -> Any:
    """Return what JSON means, every digit of it."""
    return json.loads(text, parse_int=Decimal, parse_float=Decimal)


def integer(digits: str) -> float:
    """What orjson makes of an integer: of one that 64 bits do not hold, a float."""
    return int(digits) if -(2**63) <= int(digits) < 2**64 else float(digits)


@given(OBJECTS, st.lists(st.tuples(STRINGS, VALUES), max_size=3), SPACE, st.sampled_from(["", ",1", ',{"payload":2}']))
@example("{}", [('"payload"', '{"a":1}')], "", "")
@example('{"":1000000000000000001}', [], "", "")
@example('{"":18446744073709551616}', [], "", "")
@example('{"a":1}', [('"x"', '{"payload":{}}')], "", "")
def test_the_payload_is_the_text_that_was_sent(
    payload: str, others: list[tuple[str, str]], space: str, more: str
) -> None:
    """Last, as clients write it."""
    members = "".join([f"{name}:{value}{space}," for name, value in others])
    data, found = read(f'["realtime:publish",{space}{{{members}"payload":{space}{payload}{space}}}{more}]')
    assert found is not None
    assert found.strip(" \t\n\r") == payload
    assert data[0] == "realtime:publish"
    assert data[1]["payload"] == json.loads(payload, parse_int=integer)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=5), SPACE, st.sampled_from(["", ",1", ',{"payload":2}', ',"}]"']))
def test_of_several_payloads_it_is_the_one_that_every_parser_takes(
    members: list[tuple[str, str]], space: str, more: str
) -> None:
    """Anywhere, any number of them, under names with escapes, too."""
    written = f"{space},{space}".join([f"{name}{space}:{space}{value}" for name, value in members])
    text = f'{space}[{space}"a"{space},{space}{{{space}{written}{space}}}{space}{more}]{space}'
    data, found = read(text)
    meant = exactly(text)[1]
    assert (found is not None) == ("payload" in meant) == ("payload" in data[1])
    if found is not None:
        assert exactly(found) == meant["payload"]


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '["a"]',
        "{}",
        '{"payload":{}}',
        '["a",[{"payload":{}}]]',
        '["a",{},{"payload":{}}]',
        '["a",{"x":{"payload":{}}}]',
        '"payload"',
        '["payload",1]',
        '[{"payload":{}}]',
        '[{"payload":{}},1]',
        '["a",1,"\\"payload\\":"]',
    ],
)
def test_a_payload_anywhere_else_is_none(text: str) -> None:
    assert read(text) == (json.loads(text), None)


@pytest.mark.parametrize(
    "text",
    [
        '["a",{"payload":}]',
        '["a",{"payload":1,}]',
        '["a",{"payload":1}}]',
        '["a",{"payload":{"x":1}]',
        '["a","payload":1}]',
        '["a",{"x":"payload":1}]',
        '["a",{"payload":null}]}]',
        '{"payload":1}]',
        '["a",{"payload":1}]]',
    ],
)
def test_what_is_not_json_is_not_read(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        read(text)
