"""Fixtures for the tests of whole servers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from support.databases import Cluster
from support.receivers import Hooked, hooked


@pytest.fixture
async def db(newest: Cluster) -> AsyncIterator[Hooked]:
    """A fresh database whose webhooks are looked at."""
    url = await newest.database()
    async with hooked(url) as found:
        yield found
    await newest.drop(url)
