"""Fixtures for all tests. Each pytest-xdist worker has PostgreSQL servers of its own, started when first needed."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from insforge_realtime.pg.embedded.accounts import STATE_DIR
from support.databases import MAJORS, Cluster, installed, running_cluster
from support.servers import Server

# Hypothesis' deadline of 200 ms for each example would measure what else the machine is doing.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

LONGEST = ("test_soak.py", "test_benchmarks.py")
"""Modules that take minutes: with `--dist worksteal`, what is first begins first, and nobody waits for it at the end."""
_SLOW = """
    check_messages check_server crash database deliveries embedded failover feed feed_fuzz links matching
    migrate migrate_locks pgbouncer replication terminal two_phase undeliverable
"""
SLOW = {f"test_{name}.py" for name in _SLOW.split()}
"""Modules in which servers are started, fail and are waited for, many rows written, or a command run for each case."""
assert {path.name for path in Path(__file__).parent.rglob("test_*.py")} >= SLOW

_state_was_there = STATE_DIR.exists()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest first, and mark what `make quick` leaves out: slow modules, and all majors but the newest."""
    items.sort(key=lambda item: item.path.name not in LONGEST)
    older = {f"pg{major}" for major in MAJORS[:-1]}
    for item in items:
        case = item.name.partition("[")[2].rstrip("]").split("-")
        if item.path.name in SLOW or older & set(case):
            item.add_marker(pytest.mark.slow)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """As root, in a checkout that PostgreSQL's account cannot enter, the launcher keeps a copy of its binaries elsewhere."""
    if not _state_was_there and not hasattr(session.config, "workerinput"):
        shutil.rmtree(STATE_DIR, ignore_errors=True)


@pytest.fixture(scope="session")
def newest() -> Iterator[Cluster]:
    """The newest supported PostgreSQL."""
    with running_cluster(MAJORS[-1]) as postgres:
        yield Cluster(postgres, MAJORS[-1])


@pytest.fixture(scope="session", params=MAJORS, ids=[f"pg{major}" for major in MAJORS])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Each supported PostgreSQL that this machine has, in turn."""
    major: int = request.param
    if major == MAJORS[-1]:
        yield request.getfixturevalue("newest")
        return
    if installed(major) is None:
        pytest.skip(f"PostgreSQL {major} is not installed")
    with running_cluster(major) as postgres:
        yield Cluster(postgres, major)


@pytest.fixture
async def database(cluster: Cluster) -> AsyncIterator[str]:
    """A fresh, migrated database, on each PostgreSQL in turn."""
    url = await cluster.database()
    yield url
    await cluster.drop(url)


@pytest.fixture
async def demo(newest: Cluster) -> AsyncIterator[str]:
    """A fresh database with the demo's tables, policies and rows (SPEC's example), on the newest PostgreSQL."""
    url = await newest.database("demo")
    yield url
    await newest.drop(url)


@pytest.fixture
def start(request: pytest.FixtureRequest) -> Iterator[Callable[..., Server]]:
    """`start(database_url, **settings)`: a server process that is stopped at the end, and must end well."""
    servers: list[Server] = []

    def start_server(database_url: str, **settings: object) -> Server:
        servers.append(Server(database_url, **settings).start())
        return servers[-1]

    yield start_server
    for server in servers:
        assert server.stop() == 0, "\n".join(server.raw[-40:])
