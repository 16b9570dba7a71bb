"""The table of cases in sdk_cases.py, played on each SDK against a real server and a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from e2e.sdk_cases import CASES, Case, Stage
from support.node import FOLDER, Sdk
from support.servers import Server

Start = Callable[..., Server]

PUPPETS = {"official": "sdk.mjs", "typescript": "ours.mjs", "python": "python_puppet.py"}
OURS_IN_TYPESCRIPT = (FOLDER / "ours.mjs", FOLDER.parents[2] / "clients/js/dist/index.js")


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("sdk", PUPPETS)
async def test_an_sdk_does_what_the_specification_says(sdk: str, case: Case, demo: str, start: Start) -> None:
    # To be removed with the branch that brings the TypeScript SDK: from then on its puppet and its build are always there.
    if sdk == "typescript" and not all(file.exists() for file in OURS_IN_TYPESCRIPT):
        pytest.skip("the TypeScript SDK is not built")
    if sdk == "official" and case.ours_only:
        pytest.skip("the official SDK does not have it")
    server = start(demo)
    async with Sdk(PUPPETS[sdk]) as puppet:
        await case.steps(Stage(puppet, server, demo, official=sdk == "official"))
    assert not server.errors()
