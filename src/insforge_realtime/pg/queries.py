"""The statements of `sql/queries/*.sql`, by name. No SQL stands in Python: it is written, read and reviewed in .sql files.

A statement begins with a line `-- name: …`, and a sentence on what it does. Its parameters are PostgreSQL's own, $1 and so
on; where PostgreSQL takes none (SET, LOCK, a condition of a migration's step), `written_out` puts texts in their places.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_NAMED = re.compile(r"^-- name: (\w+)\n(.*?)(?=^-- name: |\Z)", re.MULTILINE | re.DOTALL)
_SQL = files(__package__).joinpath("sql")


def sql_file(name: str) -> str:
    """Return the text of a file below `sql/`."""
    return _SQL.joinpath(name).read_text(encoding="utf-8")


@cache
def queries() -> dict[str, str]:
    """Return every named statement."""
    names = sorted(file.name for file in _SQL.joinpath("queries").iterdir() if file.name.endswith(".sql"))
    texts = [sql_file(f"queries/{name}") for name in names]
    return {name: body.strip().rstrip(";") for text in texts for name, body in _NAMED.findall(text)}


def query(name: str) -> str:
    """Return the statement of that name.

    Raises:
        KeyError: there is none, which is a bug.
    """
    return queries()[name]


def written_out(name: str, *texts: str) -> str:
    """Return the statement of that name with SQL in the places of its parameters.

    Args:
        texts: trusted; for $1, $2 and so on.
    """
    return re.sub(r"\$(\d)", lambda place: texts[int(place[1]) - 1], query(name))
