"""The forms of English that CONTRIBUTING.md bans, in prose, docstrings, comments and strings of what `ROOTS` names."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOTS = ("README.md", "PROTOCOL.md", "docs", "src", "clients/js/src", "clients/js/README.md", "examples")
BANNED = {
    "is not a, never is no": r"(?i)(?<!there )\b(is|are|was|were) no (?!(longer|more|less|fewer|later|further|one|way)\b)",
    "is not one, never is none": r"(?<![Tt]here )\b(is|are|was|were) none\b(?! of\b)",
    "clients that, never who": r"(^|[.:] |\"\"\"|- |\| )Who \w+ [^,.:;?]*?\b(is|has|gets|may|sets|tries|misses|sees) ",
    "no colon after that is all": r"\bThat is all:",
    "at most this many": r"(?i)\bso (many|much|long) (at most|a)\b",
    "return the number of them": r"\bHow many they (are|were)\b",
    "fix, not mend": r"\bmend (the|it|this)\b",
    "not any more, never no more at the end": r"\b(send|sent|begin|said) no more\b",
}
"""What breaks each rule. “There is no …” and “is no longer” are English, and so is a question."""


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z", *ROOTS], cwd=ROOT, capture_output=True, text=True, check=True)
    return sorted({*listed.stdout.split("\0")} - {""})


@pytest.mark.parametrize("rule", BANNED)
def test_no_banned_form_is_in_the_text(rule: str) -> None:
    found = [
        f"{file}:{number}: {line.strip()}"
        for file in tracked()
        for number, line in enumerate((ROOT / file).read_text(encoding="utf-8").splitlines(), 1)
        if re.search(BANNED[rule], line)
    ]
    assert found == []
