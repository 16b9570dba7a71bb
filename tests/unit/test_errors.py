"""The errors, and the codes that clients branch on."""

from __future__ import annotations

import re

import pytest

from insforge_realtime import errors
from insforge_realtime.errors import RealtimeError, RequestError

CODES = {
    "Unauthorized": "UNAUTHORIZED",
    "NotSubscribed": "NOT_SUBSCRIBED",
    "InvalidRequest": "INVALID_REQUEST",
    "PayloadTooLarge": "PAYLOAD_TOO_LARGE",
    "RateLimited": "RATE_LIMITED",
    "TokenExpired": "TOKEN_EXPIRED",
    "Unavailable": "UNAVAILABLE",
    "InternalError": "INTERNAL_ERROR",
}
OTHERS = {"ProtocolError", "ConfigError", "DatabaseError", "MigrationError", "EmbeddedPostgresError"}
KINDS_OF_THESE = {"NotMigratedError"}


def subclasses(root: type[RealtimeError]) -> set[str]:
    return {kind.__name__ for kind in root.__subclasses__() if kind.__module__ == errors.__name__}


def test_every_error_is_in_the_one_tree() -> None:
    assert subclasses(RequestError) == set(CODES)
    assert subclasses(RealtimeError) == {*OTHERS, "RequestError"}
    assert set().union(*(subclasses(getattr(errors, name)) for name in OTHERS)) == KINDS_OF_THESE


def test_the_drawing_of_the_tree_shows_every_error_and_its_code() -> None:
    drawn = re.findall(r"[├└]── (\w+) +([A-Z_]{4,})?", errors.__doc__ or "")
    assert {name: code for name, code in drawn if code} == CODES
    assert {name for name, code in drawn if not code} == {*OTHERS, *KINDS_OF_THESE, "RequestError"}


@pytest.mark.parametrize(("name", "code"), CODES.items())
def test_a_request_error_has_a_code_and_words_for_people(name: str, code: str) -> None:
    kind: type[RequestError] = getattr(errors, name)
    assert kind().as_dict() == {"code": code, "message": kind.default}
    assert kind("Why").as_dict() == {"code": code, "message": "Why"}
    assert str(kind("Why")) == "Why"
    assert name == "InternalError" or kind.default != RequestError.default
