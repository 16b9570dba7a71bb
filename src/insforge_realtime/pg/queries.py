"""The statements of the files `FILES` below `sql/`, by name. No SQL stands in Python: it is written, read and reviewed in
.sql files."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

FILES = ("queries.sql", "migrate.sql", "deliveries.sql", "check.sql", "check_rights.sql", "check_server.sql")
_NAMED = re.compile(r"^-- name: (\w+)\n(.*?)(?=^-- name: |\Z)", re.MULTILINE | re.DOTALL)


def sql_file(name: str) -> str:
    """The text of a file below `sql/`."""
    return files(__package__).joinpath("sql", name).read_text(encoding="utf-8")


@cache
def queries() -> dict[str, str]:
    """Every named statement."""
    text = "".join(map(sql_file, FILES))
    return {name: body.strip().rstrip(";") for name, body in _NAMED.findall(text)}


def query(name: str) -> str:
    """The statement of that name.

    Raises:
        KeyError: there is none, which is a bug.
    """
    return queries()[name]
