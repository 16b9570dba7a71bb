"""How every hot statement finds its rows: which plan it runs by, and how many rows it reads, with 50 000 messages and 2 000
channels. The plans of webhooks' statements are tested with the queue (test_deliveries.py).

The statements are the server's own, prepared and run as the server runs them, in sessions with the server's settings; what
functions and foreign keys run inside is seen through auto_explain. Each runs by a plan that was made while the tables were
empty, by one made after they were filled and before anything analysed them, and by one made from statistics.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import asyncpg

from insforge_realtime.pg.database import Database
from insforge_realtime.pg.queries import query
from support.databases import Cluster

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

MESSAGES, CHANNELS = 50_000, 2_000

FILL = f"""
INSERT INTO realtime.channels (pattern)
SELECT CASE WHEN n % 2 = 0 THEN 'exact:' || n ELSE 'many:' || n || ':%' END FROM generate_series(1, {CHANNELS} - 1) n;
INSERT INTO realtime.messages (event_name, channel_name, channel_id, payload)
SELECT 'e', 'exact:' || c.n, c.id, jsonb_build_object('n', m)
FROM generate_series(1, {MESSAGES}) m
JOIN (SELECT *, row_number() OVER () AS n FROM realtime.channels) c ON c.n = m % {CHANNELS} + 1;
"""

TABLES = {"messages", "channels"}
SIZES = 1_000_000, 4_000_000
"""Of a page, and of the largest event."""


@dataclass
class Witness:
    """A session of the server's, and what it read of our tables."""

    connection: Connection
    plans: list[dict[str, Any]] = field(default_factory=list)

    async def run(self, statement: str, *arguments: object) -> list[asyncpg.Record]:
        """Run it, undone afterwards, with `plans` those of all that ran."""
        self.plans.clear()
        transaction = self.connection.transaction()
        await transaction.start()
        rows = await self.connection.fetch(statement, *arguments)
        await transaction.rollback()
        await self.connection.fetchval("SELECT 1")  # what was logged before has been heard by then
        return rows

    def hear(self, _connection: object, message: Any) -> None:
        _, brace, rest = str(message.message).partition("{")
        if brace:
            self.plans += nodes(json.loads(brace + rest)["Plan"])

    @property
    def scans(self) -> list[dict[str, Any]]:
        return [node for node in self.plans if node.get("Relation Name") in TABLES and "Scan" in node["Node Type"]]

    @property
    def rows_read(self) -> int:
        kinds = "Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck"
        rows: float = sum(node.get(kind, 0) * node["Actual Loops"] for node in self.scans for kind in kinds)
        return round(rows)


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for child in plan.get("Plans", ()) for node in nodes(child))]


@asynccontextmanager
async def session(url: str, settings: str | None) -> AsyncIterator[Witness]:
    """A connection of the server's (`settings` names the statement that it begins with), and all plans that run on it."""
    connection = await Database(url).connect("plans")
    witness = Witness(connection)
    if settings:
        await connection.execute(query(settings))
    await connection.execute(
        "LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_format = json"
    )
    await connection.execute("SET auto_explain.log_nested_statements = on; SET auto_explain.log_analyze = on")
    await connection.execute("SET client_min_messages = log")
    connection.add_log_listener(witness.hear)
    yield witness
    await connection.close()


@dataclass
class Case:
    """A statement: how many rows of our tables it may read at most, and which index it has to use, if any."""

    name: str
    arguments: tuple[object, ...]
    rows: int
    index: str | None = None


def looks(before: str, after: str, empty: str, first: int) -> list[Case]:
    """`before` and `after` are the snapshots around the newest 300 rows, from `first` on; after `empty` is nothing."""
    return [
        Case("look", (empty, None, None, 4000, *SIZES), 0, "messages_xid_idx"),
        Case("look", (before, None, None, 4000, *SIZES), 300, "messages_xid_idx"),
        Case("look", (before, None, None, 50, *SIZES), 300, "messages_xid_idx"),
        Case("look", (before, after, first + 100, 4000, *SIZES), 200, "messages_seq_idx"),
        Case("look", (before, after, first, 50, *SIZES), 50, "messages_seq_idx"),
        Case("heal_future_xids", (), 0, "messages_xid_idx"),
    ]


def counts(first: int) -> list[Case]:
    """Each row is read once, and is once the row of the update's own node."""
    return [Case("count_audience", (list(range(first, first + 200)), [1] * 200), 200, "messages_seq_idx")]


def judged() -> list[Case]:
    """The channel is found by name, and looked at by the policy; a publish looks at it for the foreign key as well."""
    names = ["exact:2", "many:3:x", "nobody's"]
    roles, claims = ["authenticated"] * 3, ["{}"] * 3
    return [
        Case("check_subscribe", (roles, claims, names), 6, "channels_prefix_idx"),
        Case("publish_as", (roles, claims, names, ["e"] * 3, ["{}"] * 3), 12, "channels_prefix_idx"),
        Case("publish_lists", ([3], names, ["e"] * 3, ["{}"] * 3), 6, "channels_prefix_idx"),
    ]


async def check(witness: Witness, cases: list[Case], when: str) -> None:
    for case in cases:
        await witness.run(query(case.name), *case.arguments)
        told = f"{case.name}{case.arguments} {when}: {json.dumps(witness.scans)}"
        assert [node for node in witness.scans if node["Node Type"] == "Seq Scan"] == [], told
        assert witness.rows_read <= case.rows, told
        assert not case.index or case.index in {node.get("Index Name") for node in witness.plans}, told


async def test_no_hot_statement_reads_more_than_the_rows_that_it_is_about(cluster: Cluster) -> None:
    url = await cluster.database()
    owner = await asyncpg.connect(url)
    await owner.execute("ALTER TABLE realtime.messages SET (autovacuum_enabled = off)")
    await owner.execute("ALTER TABLE realtime.channels SET (autovacuum_enabled = off)")
    for table, command in (("channels", "SELECT"), ("messages", "INSERT")):
        clause = "USING" if command == "SELECT" else "WITH CHECK"
        await owner.execute(f"CREATE POLICY p ON realtime.{table} FOR {command} TO authenticated {clause} (true)")
    async with (
        session(url, "plan_looks_by_index") as feed,
        session(url, "plan_counts_by_index") as counters,
        session(url, None) as judge,
    ):
        sessions = feed, counters, judge
        empty = await owner.fetchval(query("now_snapshot"))
        for witness, cases in zip(sessions, (looks(empty, empty, empty, 1), counts(1), judged()), strict=True):
            for case in cases:
                for _ in range(7):  # PL/pgSQL settles for a plan at the sixth
                    await witness.run(query(case.name), *case.arguments)
        await owner.execute(FILL)
        before = await owner.fetchval(query("now_snapshot"))
        newest = "SELECT realtime.publish('exact:2', 'e', '{}') FROM generate_series(1, 300)"
        await owner.execute(newest)
        after = await owner.fetchval(query("now_snapshot"))
        first = await owner.fetchval("SELECT max(seq) - 299 FROM realtime.messages")
        hot = looks(before, after, after, first), counts(first), judged()
        for witness, cases in zip(sessions, hot, strict=True):
            await check(witness, cases, "planned on empty tables")
        for when, prepare in (("planned without statistics", "SELECT 1"), ("analysed", "ANALYZE")):
            await owner.execute(prepare)
            for settings, cases in zip(("plan_looks_by_index", "plan_counts_by_index", None), hot, strict=True):
                async with session(url, settings) as witness:
                    await check(witness, cases, when)
    await owner.close()
    await cluster.drop(url)


async def test_a_channel_that_is_deleted_finds_its_messages_by_index(cluster: Cluster) -> None:
    url = await cluster.database()
    owner = await asyncpg.connect(url)
    await owner.execute(FILL)
    await owner.close()
    async with session(url, None) as witness:
        await witness.run("DELETE FROM realtime.channels WHERE pattern = 'exact:2'")
    assert "messages_channel_id_seq_idx" in {node.get("Index Name") for node in witness.plans}
    assert witness.rows_read <= 1 + MESSAGES / CHANNELS
    await cluster.drop(url)
