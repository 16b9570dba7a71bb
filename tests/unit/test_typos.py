"""A variable that begins like ours and is none of ours is named, with what may be meant."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from insforge_realtime.config import Config, variable
from insforge_realtime.typos import OF_CLIENTS, Unknown, unknown_variables


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of ours, and no `.env`."""
    for name in os.environ:
        if name.upper().startswith("REALTIME_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("REALTIME_JWT_SECERT", "REALTIME_JWT_SECRET"),
        ("REALTIME_SECRET", "REALTIME_JWT_SECRET"),
        ("REALTIME_DATABASE_URL", "DATABASE_URL"),
        ("REALTIME_MAX_CONECTIONS", "REALTIME_MAX_CONNECTIONS"),
        ("REALTIME_TOKENS", "REALTIME_TOKEN"),
        ("realtime_prot", "REALTIME_PORT"),
        ("REALTIME_QUUX", None),
    ],
)
@pytest.mark.parametrize("place", ["environment", ".env"])
def test_a_typo_is_named_with_the_nearest_name_wherever_it_stands(
    typo: str, meant: str | None, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == ".env":
        Path(".env").write_text(f"{typo}=1\n")
    else:
        monkeypatch.setenv(typo, "1")
    assert unknown_variables() == [Unknown(typo.upper(), meant)]


def test_what_is_known_or_belongs_to_others_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        *map(variable, Config.model_fields),
        *OF_CLIENTS,
        "realtime_port",
        "PORT",
        "DATABASE_URI",
        "MY_REALTIME_X",
    ):
        monkeypatch.setenv(name, "1")
    Path(".env").write_text("JWT_SECERT=1\nREALTIME_HOST=::\nREALTIMEX=1\n")
    assert unknown_variables() == []


@pytest.mark.parametrize("command", ["serve", "dev", "migrate", "webhooks list", "token"])
def test_a_command_warns_on_standard_error_at_its_start(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "insforge_realtime", *command.split()],
        env={
            **os.environ,
            "DATABASE_URL": "postgresql://127.0.0.1:1/none?connect_timeout=1",
            "REALTIME_LOG_FORMAT": "json",
            "REALTIME_JWT_SECERT": "hunter2",
            "REALTIME_SSL_KEYFILE": "none.pem",
        },
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    [line] = [line for line in lines if line["event"] == "there is no such setting"]
    assert (line["level"], line["variable"], line["nearest"]) == (
        "warning",
        "REALTIME_JWT_SECERT",
        "REALTIME_JWT_SECRET",
    )
    assert "hunter2" not in done.stderr
