"""The errors and the ends of connections, and what clients branch on."""

from __future__ import annotations

import ast
import itertools
import re
from pathlib import Path

import pytest

from insforge_realtime import errors
from insforge_realtime.errors import Close, RealtimeError, RequestError

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


# The ends of connections.

ENDS = {name: end for name, end in vars(errors).items() if isinstance(end, Close)}
SRC = Path(errors.__file__).parent
PROTOCOL = Path(__file__).parents[2] / "PROTOCOL.md"
NEVER_SENT = {"NOT_RUNNING"}
"""Before a WebSocket is accepted there is no close frame."""


def test_every_end_says_whether_the_client_comes_back() -> None:
    body = ast.parse(Path(errors.__file__).read_text()).body
    told = {
        before.target.id: " ".join(str(doc.value.value).split())
        for before, doc in itertools.pairwise(body)
        if isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name)
        if isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant)
    }
    assert {
        name for name, text in told.items() if re.search(r"\b(comes? back|stays away|session goes on)\b", text)
    } == set(ENDS)


def table_of_ends() -> list[list[str]]:
    _, _, table = PROTOCOL.read_text().partition("| close code |")
    rows = table.partition("\n\n")[0].splitlines()[2:]
    return [re.split(r" *\| *", row)[1:-1] for row in rows]


def test_the_wire_contract_has_every_end_and_no_other() -> None:
    told = {
        (int(code) if code.isdigit() else 1002, reason)
        for code, reasons, *_ in table_of_ends()
        for reason in re.findall("`(.*?)`", reasons)
    }
    assert told == {(end.code, end.reason) for name, end in ENDS.items() if name not in NEVER_SENT}
    assert {code for code, *_ in table_of_ends()} == {"", "none", *(str(end.code) for end in ENDS.values())}


def test_the_wire_contract_names_settings_where_it_speaks_of_them() -> None:
    """A default that is told as if it were the wire's is wrong on every server that has another."""
    told = PROTOCOL.read_text()
    assert not re.findall(r"\b(45 s|20 000 bytes|three times|4 MiB|1 MB|100 messages|1 000 requests|255 bytes)\b", told)


def test_no_code_of_an_end_is_written_anywhere_else() -> None:
    """protocol/frames.py has all codes that the RFC gives out: what clients may send is not ours to name."""
    literal = re.compile(r"\b(1000|1002|1007|1008|1009|1012|1013), *[\"f]|\"code\": 10\d\d")
    assert [file.name for file in SRC.rglob("*.py") if literal.search(file.read_text())] == ["errors.py"]
