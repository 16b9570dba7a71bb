"""`python -m fuzz.libfuzzer TARGET [libFuzzer's arguments]`: one target, in a process that libFuzzer ends."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["insforge_realtime", "uvicorn"]):
    from fuzz.targets import TARGETS

atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]])
atheris.Fuzz()
