"""The table of cases in sdk_cases.py, played on each SDK against a real server and a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from e2e.sdk_cases import CASES, Case, Stage
from support.client import until_load
from support.databases import Cluster
from support.node import Sdk
from support.servers import Server, serving

PUPPETS = {"official": "sdk.mjs", "typescript": "ours.mjs", "python": "python_puppet.py"}


@pytest.fixture(scope="module")
def database(newest: Cluster) -> Iterator[str]:
    """One database with the demo for the whole table."""
    url = asyncio.run(newest.database("demo"))
    yield url
    asyncio.run(newest.drop(url))


@pytest.fixture(scope="module")
def server(database: str) -> Iterator[Server]:
    """One server for the whole table, whose public keys cannot be had: a case ends with its clients gone."""
    with serving(database, jwks_url="http://127.0.0.1:1/") as one:
        yield one


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("sdk", PUPPETS)
async def test_an_sdk_does_what_the_specification_says(sdk: str, case: Case, server: Server, database: str) -> None:
    if sdk == "official" and case.ours_only:
        pytest.skip("the official SDK does not have it")
    if server.process.poll() is not None:
        server.start()  # a case that failed has left it stopped
    already = len(server.errors())
    async with Sdk(PUPPETS[sdk]) as puppet:
        await case.steps(Stage(puppet, server, database, official=sdk == "official"))
    await until_load(server, 0, 0)
    assert server.errors()[already:] == []
