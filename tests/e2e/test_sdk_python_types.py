"""Type checkers read sdk_typed_use.py, a program that uses the Python SDK in every way, and find nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.node import FOLDER

USE = FOLDER.parent / "sdk_typed_use.py"
SOURCES = Path(__file__).parents[2] / "src"
MISTAKES = """
from insforge_realtime.client import RealtimeClient, create_client, sync

def wrong(client: RealtimeClient) -> None:
    client.on("error", lambda error: error.nonsense)
    client.on("presence:join", lambda event: event["nobody"])
    client.once("disconnect", lambda reason: reason.code)
    client.on("said", 1)
    client.publish("c", "e", {}, ack=1)
    create_client("http://127.0.0.1", access_tokens="t")
    create_client("http://127.0.0.1", timeout="long")
    sync.create_client(anon_key="anon_1")
"""


def pyright(program: Path, folder: Path) -> list[str]:
    """What it says of a program in strict mode, with the program's line."""
    copy = folder / program.name
    copy.write_bytes(program.read_bytes())
    (folder / "pyrightconfig.json").write_text(
        json.dumps({"include": [copy.name], "strict": ["**"], "extraPaths": [str(SOURCES)]})
    )
    done = subprocess.run(
        [str(FOLDER / "node_modules/.bin/pyright"), "-p", str(folder), "--pythonpath", sys.executable, "--outputjson"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == 1, done.stdout
    return [f"{it['range']['start']['line']}: {it['message']}" for it in report["generalDiagnostics"]]


def mypy(program: Path, folder: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(folder / "cache"), str(program)],
        capture_output=True,
        text=True,
        env={"MYPYPATH": str(SOURCES)},
        cwd=folder,
        timeout=110,
        check=False,
    )
    return [line for line in done.stdout.splitlines() if ": error:" in line] if done.returncode else []


@pytest.mark.parametrize("checker", [pyright, mypy], ids=lambda checker: checker.__name__)
def test_a_strict_checker_finds_nothing_in_a_program_that_uses_the_sdk(checker: object, tmp_path: Path) -> None:
    assert callable(checker)
    assert checker(USE, tmp_path) == []


def test_pyright_knows_what_a_handler_gets_and_what_a_client_takes(tmp_path: Path) -> None:
    program = tmp_path / "given" / "mistakes.py"
    program.parent.mkdir()
    program.write_text(MISTAKES)
    found = pyright(program, tmp_path)
    # Each of the eight calls, lines counted from nought.
    assert {line.partition(":")[0] for line in found} == {"4", "5", "6", "7", "8", "9", "10", "11"}, found
