"""What a request must look like; the attacks on it over the wire are in tests/e2e/test_hostile.py."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insforge_realtime.config import Config
from insforge_realtime.errors import InvalidRequest, PayloadTooLarge
from insforge_realtime.protocol.session import Emit, Session, Timing
from insforge_realtime.validation import Command, Validator, claimed_channel, outgrows

LIMIT = 100_000
FORM = Validator(Config(database_url="postgresql://x", max_payload_bytes=LIMIT, _env_file=None))  # type: ignore[call-arg]


def command(packet: str, *attachments: bytes) -> Command:
    """What a packet asks for."""
    session = Session(Timing(), 0.0)
    session.receive("40", 0.0)
    session.accept("sid")
    session.events()
    parts: list[str | bytes] = [packet, *attachments]
    for part in parts:
        session.receive(part, 0.0)
    (event,) = session.events()
    assert isinstance(event, Emit)
    return event


def publication(payload: str, header: str = "42", *attachments: bytes) -> str:
    """What goes on of a payload's text."""
    data = f'{{"channel":"orders","event":"x","payload":{payload}}}'
    return FORM.publication(command(f'{header}["realtime:publish",{data}]', *attachments))[2]


PAYLOADS = [
    '{"n":12345678901234567890123}',
    '{"n":-12345678901234567890123}',
    '{"n":0.1234567890123456789}',
    '{"n":1.0}',
    '{"n":1}',
    '{"n":-0.0}',
    '{"n":1e5}',
    '{"n":1E+05}',
    '{"n":1.50}',
    '{"n":9007199254740993}',
    '{"n":18446744073709551616}',
    '{"n":1.7976931348623157e308}',
    '{"n":1e-400}',
    '{"b":1,"a":2}',
    '{"a":1,"a":{"b":2}}',
    r'{"a":"\u00e9\/\ud83d\ude00\n\\"}',
    '{ "a" :\t1 ,\r\n"b":[ ] }',
    '{"a":[1,"ž",null,{"b":0.5}]}',
    '{"payload":{"payload":{}}}',
    "{}",
]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_payload_goes_on_as_the_text_that_it_was(payload: str) -> None:
    assert publication(payload) == payload
    assert publication(payload, "450-") == payload
    assert publication(payload + ', "channel" : "orders"') == payload


@given(st.dictionaries(st.text(), st.decimals(allow_nan=False, allow_infinity=False) | st.integers() | st.text()))
def test_every_number_goes_on_to_its_last_digit(payload: dict[str, Any]) -> None:
    members = [f"{json.dumps(k)}:{json.dumps(v) if isinstance(v, str) else v}" for k, v in payload.items()]
    text = f"{{{', '.join(members)}}}"
    if any(abs(value) > Decimal("1.7e308") for value in payload.values() if not isinstance(value, str)):
        return
    assert json.loads(publication(text), parse_int=Decimal, parse_float=Decimal) == payload


PLACE = '{"_placeholder":true,"num":%d}'


@pytest.mark.parametrize("payload", ['{"a":%0}', '{"a":[{"b":%0}]}', '{"a":1,"b":[%0,%1]}'])
def test_binary_data_in_a_payload_is_named_as_the_reason(payload: str) -> None:
    for number in range(2):
        payload = payload.replace(f"%{number}", PLACE % number)
    with pytest.raises(InvalidRequest, match="binary data"):
        publication(payload, "452-", b"", b"y")


@pytest.mark.parametrize("payload", ["1", '"a"', "[]", "null", "[{}]"])
def test_a_payload_must_be_an_object(payload: str) -> None:
    with pytest.raises(InvalidRequest, match="must be an object"):
        publication(payload)


def test_a_payload_that_is_binary_data_itself_is_not_an_object() -> None:
    with pytest.raises(InvalidRequest, match="must be an object"):
        publication(PLACE % 0, "451-", b"x")


def test_a_name_that_is_binary_data_is_not_a_string() -> None:
    with pytest.raises(InvalidRequest, match="non-empty string"):
        FORM.channel(Command("realtime:subscribe", [{"channel": b"orders"}], None))


def test_a_payload_that_nests_too_deeply_is_named_as_such() -> None:
    with pytest.raises(InvalidRequest, match="nested too deeply"):
        publication('{"a":' * 400 + "1" + "}" * 400)


def test_the_channel_of_a_flawed_command_can_be_named_back_unless_it_is_the_flaw() -> None:
    assert claimed_channel(command('42["realtime:publish",{"channel":"c","payload":{"n":1e400}}]')) == "c"
    assert claimed_channel(command(r'42["realtime:subscribe",{"channel":"\ud800"}]')) is None


# How large a payload becomes.


@pytest.mark.parametrize(
    ("number", "more"),
    [
        ("1", 0),
        ("1.5", 0),
        ("1e5", 5),
        ("1E+05", 5),
        ("1e-5", 5),
        ("1.5e300", 300),
        ("1e308", 308),
        ("1e-300", 300),
        ("0e999999", 309),
        ("1e-16383", 16383),
        ("1e-99999999", 16384),
        ("1e-" + "0" * 6000 + "5", 5),
        ("true", 0),
        ('"1e300"', 0),
        (r'"\"1e300"', 0),
        (r'"\\",1e300', 300),
        (r'"\\\"1e300"', 0),
        ("[1e2,1e3]", 5),
    ],
)
def test_what_an_exponent_adds_is_known_and_what_looks_like_one_in_a_string_adds_nothing(
    number: str, more: int
) -> None:
    payload = f'{{"1e300":[{number},"1e300"]}}'
    assert not outgrows(payload, more)
    assert outgrows(payload, more - 1) == (more > 0)


@pytest.mark.parametrize("number", ["1e300", "1e-300", "1e-9999", "1E+300"])
def test_a_payload_that_postgresql_would_write_out_too_large_is_refused(number: str) -> None:
    fits = LIMIT // 10000 if number == "1e-9999" else LIMIT // 310
    publication(f'{{"n":[{",".join([number] * (fits - 1))}]}}')
    with pytest.raises(PayloadTooLarge, match="written out"):
        publication(f'{{"n":[{",".join([number] * (fits + 10))}]}}')


@pytest.mark.parametrize("text", ["1e300," * 10_000, '1e-9999\\"' * 10_000, "\\\\" * 40_000])
def test_text_that_looks_like_numbers_may_be_as_long_as_any(text: str) -> None:
    assert publication(f'{{"a":"{text}","n":1e300}}').endswith('"n":1e300}')


@pytest.mark.parametrize("text", ["x", "é"])
def test_the_limit_is_one_of_bytes(text: str) -> None:
    fits = (LIMIT - len('{"a":""}')) // len(text.encode())
    publication(f'{{"a":"{text * fits}"}}')
    with pytest.raises(PayloadTooLarge, match=f"larger than {LIMIT} bytes"):
        publication(f'{{"a":"{text * (fits + 1)}"}}')
