"""Which channel row a name belongs to: few rows (read as a whole) and many (by index) obey the same definition."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.databases import Cluster

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

DEFINITION = r"""
SELECT pattern FROM realtime.channels WHERE enabled AND (pattern = $1 OR $1 LIKE pattern)
ORDER BY pattern = $1 DESC, length(translate(regexp_replace(pattern, '\\(.)', '.', 'g'), '%_', '')) DESC, pattern COLLATE "C"
LIMIT 1
"""
"""What docs/database.md says, word for word: the exact pattern, else the most literal one, else the one that sorts first."""

MATCHED = "SELECT pattern FROM realtime.channels WHERE id = realtime.match_channel($1)"

OTHERS = "INSERT INTO realtime.channels (pattern) SELECT 'other:' || n || ':%' FROM generate_series(1, $1::int) n"

PIECES = ["a", "b", "ab", ":", "%", "_", r"\%", r"\_", r"\\", r"\a", "ü", "😀", "."]
PATTERNS = st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map("".join)
NAMES = st.lists(st.sampled_from([*PIECES, "\\"]), min_size=1, max_size=7).map("".join)


@pytest.fixture
async def db(cluster: Cluster) -> AsyncIterator[Connection]:
    """A connection to a database of the test's own: what it rolls back would leave larger tables behind."""
    url = await cluster.database()
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()
    await cluster.drop(url)


async def fill(db: Connection, patterns: dict[str, bool], others: int) -> None:
    await db.execute("TRUNCATE realtime.channels CASCADE")
    await db.execute(OTHERS, others)
    await db.executemany("INSERT INTO realtime.channels (pattern, enabled) VALUES ($1, $2)", list(patterns.items()))


@pytest.mark.parametrize("others", [0, 300], ids=["few", "many"])
async def test_every_name_belongs_to_the_row_that_the_definition_says(db: Connection, others: int) -> None:
    loop = asyncio.get_running_loop()

    def wait(coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    @settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])
    @given(
        patterns=st.dictionaries(PATTERNS, st.booleans(), max_size=12), names=st.lists(NAMES, min_size=1, max_size=12)
    )
    def check(patterns: dict[str, bool], names: list[str]) -> None:
        wait(fill(db, patterns, others))
        for name in {*names, *patterns, *(pattern.replace("%", "x") for pattern in patterns)}:
            assert wait(db.fetchval(MATCHED, name)) == wait(db.fetchval(DEFINITION, name)), name

    await asyncio.to_thread(check)


async def test_a_name_is_not_compared_with_every_pattern_of_thousands(db: Connection) -> None:
    await fill(db, {"order:%": True, "%:vip": True}, 5000)
    await db.execute("LOAD 'auto_explain'")
    await db.execute("SET auto_explain.log_min_duration = 0; SET auto_explain.log_nested_statements = on")
    await db.execute(
        "SET auto_explain.log_analyze = on; SET auto_explain.log_format = json; SET client_min_messages = log"
    )
    said: list[str] = []
    db.add_log_listener(lambda _, message: said.append(str(message.message)))
    for name in ("order:1", "other:77:x", "vip:vip", "nobody's"):
        await db.fetchval("SELECT realtime.match_channel($1)", name)
    plans = [json.loads(text[text.index("{") :]) for text in said if "{" in text]
    scans = [node for plan in plans if "count_literals" in plan["Query Text"] for node in nodes(plan["Plan"])]
    reads = [node for node in scans if node.get("Relation Name") == "channels"]
    assert len(reads) == 4
    assert all(node["Node Type"] != "Seq Scan" and node.get("Rows Removed by Filter", 0) <= 1 for node in reads)


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """A plan's nodes, from the top."""
    return [plan, *(node for child in plan.get("Plans", ()) for node in nodes(child))]
