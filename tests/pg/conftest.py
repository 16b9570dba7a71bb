"""Databases whose server's role is what it should be: no superuser, and the owner of nothing else."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from itertools import count

import pytest

from insforge_realtime.pg.database import Database
from insforge_realtime.pg.migrate import migrate
from support.databases import SERVER, Cluster
from support.patients import Plain, as_user, name_of

_names = count(1)


@pytest.fixture
async def admin(cluster: Cluster) -> AsyncIterator[str]:
    """The healthy database, for the superuser."""
    url = await cluster.database("served")
    # The test clusters do without; a healthy database does not.
    await cluster.execute(f"ALTER DATABASE {name_of(url)} SET synchronous_commit = on")
    yield url
    await cluster.drop(url)


@pytest.fixture
async def healthy(admin: str) -> str:
    """A database with the demo in it, for its server's role, on each PostgreSQL in turn."""
    return as_user(admin, SERVER)


@pytest.fixture
async def plain(cluster: Cluster) -> AsyncIterator[Plain]:
    """An empty one that was migrated by a role of its own."""
    admin_url = await cluster.database("migrated")  # so that the three roles exist
    await cluster.drop(admin_url)
    role = f"server_{os.getpid()}_{next(_names)}"
    admin_url = await cluster.database("empty")
    await cluster.execute(
        f"CREATE ROLE {role} LOGIN PASSWORD 'secret'; GRANT anon, authenticated, project_admin TO {role};"
        f"GRANT CREATE ON DATABASE {name_of(admin_url)} TO {role};"
        f"ALTER DATABASE {name_of(admin_url)} SET synchronous_commit = on"
    )
    url = as_user(admin_url, role)
    await migrate(Database(url))
    yield Plain(url, admin_url, role)
    await cluster.drop(admin_url)
    await cluster.execute(f"DROP ROLE {role}")
