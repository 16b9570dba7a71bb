"""The statements in .sql files and the names in Python that they are called by: all of them meet."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import insforge_realtime.pg
from insforge_realtime.pg.queries import queries, sql_file, written_out

ROOM = Path(insforge_realtime.pg.__file__).parent
SOURCES = sorted(ROOM.rglob("*.py"))
QUERIES = sorted((ROOM / "sql" / "queries").glob("*.sql"))
CALLS = {"query", "written_out", "by_query"}


def strings() -> Iterator[str]:
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def called() -> Iterator[str]:
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS:
                for name in node.args[:1]:
                    if isinstance(name, ast.Constant):
                        yield str(name.value)


def test_every_statement_that_is_called_exists() -> None:
    names = set(called())
    assert len(names) > 60
    assert names - queries().keys() == set()


def test_every_statement_is_used() -> None:
    """One for PostgreSQL 17 and newer, `…_17`, by the name of the one for all."""
    used = set(strings())
    assert [name for name in queries() if name.removesuffix("_17") not in used] == []


def test_every_statement_has_a_name_of_its_own_and_a_sentence_on_what_it_does() -> None:
    names: list[str] = []
    for file in QUERIES:
        text = sql_file(f"queries/{file.name}")
        assert text.startswith("-- "), file.name
        assert not text.startswith("-- name: "), f"{file.name} begins with what it is for"
        names += re.findall(r"^-- name: (\w+)\n-- \S", text, re.MULTILINE)
    assert sorted(names) == sorted(queries())


def test_no_statement_stands_in_python() -> None:
    """Except those that are shown to people, and what the driver's own transactions send."""
    verbs = r"(SELECT|INSERT|UPDATE|DELETE|LOCK TABLE|SET (SESSION|LOCAL|ROLE)|LISTEN|UNLISTEN|NOTIFY|SHOW)\s"
    shown = ("UPDATE orders SET status = 'shipped'", "UPDATE 0", "LISTEN works: ")
    found = [text for text in strings() if re.match(verbs, text) and not text.startswith(shown)]
    assert found == []


def test_texts_take_the_places_of_parameters() -> None:
    statement = written_out("set_one", "E'name'", "E'$1'", "true")
    assert statement.endswith("SELECT pg_catalog.set_config(E'name', E'$1', true)")
