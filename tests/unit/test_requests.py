"""What a request must look like; the attacks on it over the wire are in tests/e2e/test_hostile.py."""

from __future__ import annotations

from typing import Any

import pytest

from insforge_realtime.config import Config
from insforge_realtime.errors import InvalidRequest
from insforge_realtime.requests import Command, Form

FORM = Form(Config(database_url="postgresql://x", _env_file=None))  # type: ignore[call-arg]


def publication(payload: Any) -> str:
    data = {"channel": "orders", "event": "x", "payload": payload}
    return FORM.publication(Command("realtime:publish", [data], None))[2]


def test_a_payload_goes_on_as_the_json_that_it_was() -> None:
    assert publication({"a": [1, "ž", None, {"b": 0.5}]}) == '{"a":[1,"ž",null,{"b":0.5}]}'


@pytest.mark.parametrize("payload", [{"a": b"x"}, {"a": [{"b": b""}]}, {"a": 1, "b": [b"x", b"y"]}], ids=range(3))
def test_binary_data_in_a_payload_is_named_as_the_reason(payload: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="binary data"):
        publication(payload)


def test_a_payload_that_is_binary_data_itself_is_no_object() -> None:
    with pytest.raises(InvalidRequest, match="must be an object"):
        publication(b"x")


def test_a_name_that_is_binary_data_is_no_string() -> None:
    with pytest.raises(InvalidRequest, match="non-empty string"):
        FORM.channel(Command("realtime:subscribe", [{"channel": b"orders"}], None))


def test_a_payload_that_nests_too_deeply_is_named_as_such() -> None:
    payload: dict[str, Any] = {}
    for _ in range(400):
        payload = {"a": payload}
    with pytest.raises(InvalidRequest, match="nested too deeply"):
        publication(payload)
