"""The queue of webhooks: rows made with their message, claims that nobody else has, results that are written once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from insforge_realtime.pg.database import Database
from insforge_realtime.pg.deliveries import (
    Claim,
    DeliveryQueue,
    Result,
    Selection,
    State,
    cancel_deliveries,
    list_deliveries,
    retry_deliveries,
)
from insforge_realtime.pg.feed import Feed
from insforge_realtime.pg.queries import query
from support.databases import wait_until

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

A, B, C = "http://a.example/1", "http://b.example/2", "http://c.example/3"


@contextlib.asynccontextmanager
async def connection_to(url: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
async def db(database: str) -> AsyncIterator[Connection]:
    async with connection_to(database) as connection:
        await channel(connection, "two:%", A, B)
        await channel(connection, "plain:%")
        yield connection


@pytest.fixture
async def queue(database: str) -> DeliveryQueue:
    return DeliveryQueue(Database(database), lease=30)


async def channel(db: Connection, pattern: str, *urls: str | None) -> None:
    await db.execute(
        "INSERT INTO realtime.channels (pattern, webhook_urls) VALUES ($1, $2)", pattern, list(urls) or None
    )


async def publish(db: Connection, name: str, times: int = 1) -> Any:
    return await db.fetchval(
        "SELECT min(realtime.publish($1, 'e', '{}')::text) FROM generate_series(1, $2::int)", name, times
    )


async def urls(db: Connection) -> list[str]:
    return [row[0] for row in await db.fetch("SELECT url FROM realtime.webhook_deliveries ORDER BY id")]


async def counts(db: Connection) -> list[tuple[int, int]]:
    rows = await db.fetch("SELECT wh_audience_count, wh_delivered_count FROM realtime.messages ORDER BY seq")
    return [(row[0], row[1]) for row in rows]


async def state(db: Connection, claim: Claim) -> tuple[str, int]:
    row = await db.fetchrow("SELECT state, attempts FROM realtime.webhook_deliveries WHERE id = $1", claim.id)
    assert row is not None
    return row["state"], row["attempts"]


def result(claim: Claim, state: State, *, status: int | None = 200, pause: float = 0.0) -> Result:
    return Result(claim.id, claim.lease, state, pause, status, None, None, 0.0, 0.1)


async def lapse(db: Connection) -> None:
    """Let every lease end: it was given for no time at all, a second ago."""
    await db.execute(
        "UPDATE realtime.webhook_deliveries SET next_attempt_at = now() - interval '1 s',"
        " updated_at = now() - interval '1 s' WHERE lease IS NOT NULL"
    )


# ---- how rows come about -----------------------------------------------------------------------------------


async def test_a_message_has_one_delivery_for_each_url_and_says_how_many(db: Connection) -> None:
    message = await publish(db, "two:1")
    await publish(db, "plain:1")
    rows = await db.fetch(
        "SELECT message_id::text, url, host, state, attempts FROM realtime.webhook_deliveries ORDER BY id"
    )
    assert [tuple(row) for row in rows] == [
        (message, A, "a.example", "pending", 0),
        (message, B, "b.example", "pending", 0),
    ]
    assert await counts(db) == [(2, 0), (0, 0)]


async def test_the_rows_stand_and_fall_with_their_messages_transaction(db: Connection) -> None:
    transaction = db.transaction()
    await transaction.start()
    await publish(db, "two:1")
    assert await urls(db) == [A, B]
    await transaction.rollback()
    assert await urls(db) == []


async def test_the_urls_are_those_of_the_moment(db: Connection) -> None:
    await publish(db, "two:1")
    await db.execute("UPDATE realtime.channels SET webhook_urls = ARRAY[$1] WHERE pattern = 'two:%'", C)
    await publish(db, "two:1")
    await db.execute("UPDATE realtime.channels SET webhook_urls = NULL WHERE pattern = 'two:%'")
    await publish(db, "two:1")
    assert await urls(db) == [A, B, C]
    assert await counts(db) == [(2, 0), (1, 0), (0, 0)]


async def test_only_the_channel_that_the_name_belongs_to_counts(db: Connection) -> None:
    await channel(db, "two:special:%", C)
    await publish(db, "two:special:1")
    assert await urls(db) == [C]


@pytest.mark.parametrize(
    ("given", "queued"),
    [
        ([], []),
        ([None, "", "  ", "\t\r\n"], []),
        ([B, A, B, f" {A} ", A], [B, A]),
        (["no url", "http://", "x" * 5000], ["no url", "http://", "x" * 5000]),
        (
            [f"http://{'h' * 5000}/", "http://U:p@H.example:80?x@y"],
            [f"http://{'h' * 5000}/", "http://U:p@H.example:80?x@y"],
        ),
    ],
    ids=["empty", "blank", "twice", "malformed", "long"],
)
async def test_whatever_stands_in_webhook_urls_breaks_no_write(
    db: Connection, given: list[str | None], queued: list[str]
) -> None:
    await db.execute("UPDATE realtime.channels SET webhook_urls = $1 WHERE pattern = 'two:%'", given)
    assert await publish(db, "two:1") is not None
    assert await urls(db) == queued
    assert await counts(db) == [(len(queued), 0)]


async def test_the_host_is_what_stands_between_the_slashes_without_credentials(db: Connection) -> None:
    given = ["https://u:p@ss@H.example:8443/x", "http://[::1]:80?y", "HTTP://h#f", "http://a/b@c", "nothing", "://x"]
    await db.execute("UPDATE realtime.channels SET webhook_urls = $1 WHERE pattern = 'two:%'", given)
    await publish(db, "two:1")
    hosts = [row[0] for row in await db.fetch("SELECT host FROM realtime.webhook_deliveries ORDER BY id")]
    assert hosts == ["h.example:8443", "[::1]:80", "h", "a", "", ""]


async def test_what_clients_publish_has_webhooks_too_and_a_forged_count_has_no_say(db: Connection) -> None:
    await db.execute(
        "CREATE POLICY p ON realtime.messages FOR INSERT TO authenticated WITH CHECK (channel_name <> 'two:no')"
    )
    claims = json.dumps({"sub": str(uuid.uuid4())})
    verdicts = await db.fetchval(
        query("publish_as"),
        ["authenticated"] * 3, [claims] * 3, ["two:1", "two:no", "plain:1"], ["e"] * 3, ["{}"] * 3,
    )  # fmt: skip
    assert [verdict[:2] for verdict in verdicts] == ["ok", "no", "ok"]
    async with db.transaction():
        await db.execute("SET LOCAL ROLE authenticated")
        await db.execute(
            "INSERT INTO realtime.messages (event_name, channel_name, payload, wh_audience_count, wh_delivered_count)"
            " SELECT 'e', name, '{}', 77, 88 FROM unnest(ARRAY['two:2', 'plain:2', 'two:3']) name"
        )
    assert await urls(db) == [A, B] * 3
    assert await counts(db) == [(2, 0), (0, 0), (2, 0), (0, 0), (2, 0)]


async def test_a_row_that_the_owner_inserts_directly_is_sent_only_if_it_asks_for_it(db: Connection) -> None:
    insert = "INSERT INTO realtime.messages (event_name, channel_name, wh_audience_count) VALUES ('e', $1, $2)"
    await db.execute(insert, "two:1", 0)
    assert await urls(db) == []
    await db.execute(insert, "two:1", 1)
    await db.execute(insert, "plain:1", 1)
    assert await urls(db) == [A, B]
    assert await counts(db) == [(0, 0), (2, 0), (0, 0)]


async def test_messages_of_a_restore_are_not_sent_again(db: Connection) -> None:
    await db.execute(
        "INSERT INTO realtime.messages (event_name, channel_name, wh_audience_count, wh_delivered_count, seq, xid)"
        " OVERRIDING SYSTEM VALUE VALUES ('e', 'two:1', 2, 2, 1000, '3')"
    )
    assert await urls(db) == []
    assert await counts(db) == [(2, 2)]


async def test_deliveries_go_with_their_messages(db: Connection) -> None:
    await publish(db, "two:1")
    await db.execute("DELETE FROM realtime.messages")
    assert await urls(db) == []


async def test_clients_see_and_change_nothing_and_the_admin_may_look(db: Connection) -> None:
    await publish(db, "two:1")
    for role in ("anon", "authenticated", "project_admin"):
        for statement in (
            "SELECT count(*) FROM",
            "DELETE FROM",
            "UPDATE {} SET url = ''",
            "INSERT INTO {} (url) VALUES ('')",
        ):
            table = "realtime.webhook_deliveries"
            sql = statement.format(table) if "{}" in statement else f"{statement} {table}"
            async with db.transaction():
                await db.execute(f"SET LOCAL ROLE {role}")
                if role == "project_admin" and sql.startswith("SELECT"):
                    assert await db.fetchval(sql) == 2
                    continue
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    async with db.transaction():
                        await db.execute(sql)


async def test_the_feed_tells_of_messages_with_webhooks_and_of_no_others(db: Connection, database: str) -> None:
    pages: list[int] = []
    told: list[int] = []

    async def deliver(messages: list[Any]) -> None:
        pages.append(len(messages))

    feed = Feed(Database(database), deliver, webhooks=lambda: told.append(len(pages)))
    task = asyncio.create_task(feed.run())
    try:
        await asyncio.wait_for(feed.ready.wait(), 20)
        await publish(db, "plain:1", 5)
        await wait_until(lambda: sum(pages) == 5)
        assert told == []
        await publish(db, "two:1", 5)
        await wait_until(lambda: sum(pages) == 10)
        assert len(told) >= 1
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# ---- claims ------------------------------------------------------------------------------------------------


async def test_a_claim_has_all_that_is_to_be_sent(db: Connection, queue: DeliveryQueue) -> None:
    message = await db.fetchval("SELECT realtime.publish('two:1', 'ev', '{\"a\": \"é\"}')::text")
    async with queue.connection() as worker:
        claims, due = await queue.claim(worker, 10, 10, {})
    assert due is None
    first = next(claim for claim in claims if claim.url == A)
    assert len(claims) == 2
    assert (first.message_id, first.event, first.channel, first.host) == (message, "ev", "two:1", "a.example")
    assert first.payload is not None
    assert (json.loads(first.payload), first.attempts) == ({"a": "é"}, 0)


async def test_what_is_claimed_is_nobody_elses_until_the_lease_ends(db: Connection, queue: DeliveryQueue) -> None:
    await publish(db, "two:1")
    async with queue.connection() as one, queue.connection() as other:
        first, _ = await queue.claim(one, 10, 10, {})
        none, due = await queue.claim(other, 10, 10, {})
        assert (len(first), none) == (2, [])
        assert due is not None
        assert 25 < due <= 30
        await lapse(db)
        second, _ = await queue.claim(other, 10, 10, {})
        assert {claim.id for claim in second} == {claim.id for claim in first}
        # The first one comes too late: its results are not written.
        assert await queue.finish(one, [result(claim, "failed") for claim in first], 1.0) == 0
        assert await state(db, first[0]) == ("pending", 0)
        assert await queue.finish(other, [result(claim, "delivered") for claim in second], 1.0) == 2
        assert await state(db, first[0]) == ("delivered", 1)
        [history] = await db.fetch("SELECT history FROM realtime.webhook_deliveries WHERE id = $1", first[0].id)
        lapsed, done = json.loads(history["history"])
        assert "the lease ended" in lapsed["error"]
        assert (done["status"], done["ms"]) == (200, 100)


async def test_two_that_claim_at_the_same_time_share(db: Connection, queue: DeliveryQueue) -> None:
    await publish(db, "two:1", 200)
    async with contextlib.AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(queue.connection()) for _ in range(4)]

        async def work(worker: Any) -> list[Claim]:
            mine: list[Claim] = []
            while True:
                claims, _ = await queue.claim(worker, 10, 10, {})
                if not claims and await db_empty(worker):
                    return mine
                mine += claims

        async def db_empty(worker: Any) -> bool:
            left = await worker.fetchval("SELECT count(*) FROM realtime.webhook_deliveries WHERE lease IS NULL")
            return bool(left == 0)

        everything = [claim for claims in await asyncio.gather(*map(work, workers)) for claim in claims]
    assert len(everything) == len({claim.id for claim in everything}) == 400


async def test_no_host_gets_more_than_its_share_and_a_full_one_gets_nothing(
    db: Connection, queue: DeliveryQueue
) -> None:
    await publish(db, "two:1", 50)
    async with queue.connection() as worker:
        claims, _ = await queue.claim(worker, 100, 3, {})
        assert Counter(claim.host for claim in claims) == {"a.example": 3, "b.example": 3}
        claims, _ = await queue.claim(worker, 100, 3, {"a.example": 0, "b.example": 5})
        assert Counter(claim.host for claim in claims) == {"b.example": 5}
        claims, _ = await queue.claim(worker, 4, 100, {})
        assert Counter(claim.host for claim in claims) == {"a.example": 2, "b.example": 2}
        claims, due = await queue.claim(worker, 4, 100, {"a.example": 0, "b.example": 0})
        assert (claims, due) == ([], None)


async def test_the_oldest_go_first_and_the_next_ones_time_is_told(db: Connection, queue: DeliveryQueue) -> None:
    await publish(db, "two:1", 3)
    await db.execute(
        "UPDATE realtime.webhook_deliveries SET next_attempt_at = now() + interval '100 s' WHERE host LIKE 'b%'"
    )
    await db.execute(
        "UPDATE realtime.webhook_deliveries SET next_attempt_at = now() - id * interval '1 s' WHERE host LIKE 'a%'"
    )
    async with queue.connection() as worker:
        ids = [
            row[0]
            for row in await db.fetch("SELECT id FROM realtime.webhook_deliveries WHERE host LIKE 'a%' ORDER BY id")
        ]
        claims, due = await queue.claim(worker, 2, 10, {})
        assert {claim.id for claim in claims} == {ids[2], ids[1]}
        assert due is not None
        assert 90 < due <= 100


@pytest.mark.parametrize("planned", ["before", "after"])
async def test_ten_thousand_rows_of_a_full_host_and_a_long_history_are_not_read(
    db: Connection, queue: DeliveryQueue, planned: str
) -> None:
    """The plans of the worker's session, made on full tables or while they were empty, and the rows that they read."""
    async with queue.connection() as worker:
        await db.execute("VACUUM ANALYZE realtime.messages, realtime.webhook_deliveries")
        if planned == "before":
            await prepare(worker)
        await fill(db)
        if planned == "after":
            await db.execute("ANALYZE realtime.messages, realtime.webhook_deliveries")
            await prepare(worker)
        ids = [row[0] for row in await db.fetch("SELECT id FROM realtime.webhook_deliveries WHERE host = 'a.example'")]
        await db.execute("UPDATE realtime.webhook_deliveries SET lease = 1 WHERE host = 'a.example'")
        some = f"'{{{','.join(map(str, ids[:5]))}}}'"
        ones = "'{1,1,1,1,1}'"
        for execute in (
            "claim (100, 1, 30, 16, '{full.example}', '{0}', NULL, 0)",
            f"finish ({some}, {ones}, '{{delivered,delivered,failed,failed,pending}}', {', '.join([ones] * 6)})",
            f"release ({some}, {ones})",
        ):
            text = await worker.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE {execute}")
            plan = nodes(json.loads(text)[0]["Plan"])
            assert [node for node in plan if node["Node Type"] == "Seq Scan"] == [], text
            read = sum(
                (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
                for node in plan
                if "Index" in node["Node Type"]
            )
            assert read < 200, text


async def prepare(worker: Any) -> None:
    for name in ("claim", "finish", "release"):
        await worker.execute(f"PREPARE {name} AS {query(f'{name}_deliveries')}")
        arguments = {
            "claim": "1, 1, 30, 16, '{}', '{}', NULL, 0", "finish": ", ".join(["'{}'"] * 9), "release": "'{}', '{}'"
        }[name]  # fmt: skip
        await worker.execute(f"EXECUTE {name} ({arguments})")


async def fill(db: Connection) -> None:
    await channel(db, "full:%", "http://full.example/")
    await publish(db, "full:1", 10_000)
    await publish(db, "two:1", 5)
    await db.execute(
        "INSERT INTO realtime.webhook_deliveries (message_id, url, host, state)"
        " SELECT m.id, 'x', 'a.example', 'delivered' FROM realtime.messages m, generate_series(1, 3)"
    )


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for child in plan.get("Plans", []) for node in nodes(child))]


# ---- results -----------------------------------------------------------------------------------------------


async def claimed(db: Connection, queue: DeliveryQueue, worker: Any, times: int = 1) -> list[Claim]:
    await publish(db, "two:1", times)
    claims, _ = await queue.claim(worker, 100, 100, {})
    return claims


async def test_results_are_written_together_and_each_delivery_is_counted_once(
    db: Connection, queue: DeliveryQueue
) -> None:
    async with queue.connection() as worker:
        claims = await claimed(db, queue, worker, 2)
        results = [result(claim, "delivered") for claim in claims[:3]] + [result(claims[3], "failed", status=404)]
        assert await queue.finish(worker, results, 1.0) == 4
        assert await queue.finish(worker, results, 1.0) == 0, "a second time, as after a connection that broke"
    assert sorted(await counts(db)) == [(2, 1), (2, 2)]
    row = await db.fetchrow("SELECT * FROM realtime.webhook_deliveries WHERE id = $1", claims[3].id)
    assert row is not None
    assert (row["state"], row["attempts"], row["last_status_code"], row["lease"]) == ("failed", 1, 404, None)


async def test_what_is_to_be_tried_again_is_due_after_its_pause(db: Connection, queue: DeliveryQueue) -> None:
    async with queue.connection() as worker:
        claims = await claimed(db, queue, worker)
        await queue.finish(worker, [result(claim, "pending", status=500, pause=7) for claim in claims], 1.0)
        again, due = await queue.claim(worker, 10, 10, {})
        assert again == []
        assert due is not None
        assert 6 < due <= 7


async def test_what_is_given_back_can_be_claimed_at_once(db: Connection, queue: DeliveryQueue) -> None:
    async with queue.connection() as worker:
        claims = await claimed(db, queue, worker)
        await queue.release(worker, claims)
        again, _ = await queue.claim(worker, 10, 10, {})
        assert {claim.id for claim in again} == {claim.id for claim in claims}
        await queue.release(worker, claims)  # the old lease has no say
        assert (await queue.claim(worker, 10, 10, {}))[0] == []
    rows = await db.fetch("SELECT attempts, history FROM realtime.webhook_deliveries")
    assert {(row["attempts"], row["history"]) for row in rows} == {(0, "[]")}


async def test_results_and_audience_counters_of_the_same_messages_do_not_deadlock(
    db: Connection, database: str, queue: DeliveryQueue
) -> None:
    await publish(db, "two:1", 2000)
    seqs = [row[0] for row in await db.fetch("SELECT seq FROM realtime.messages ORDER BY seq")]
    async with queue.connection() as one, queue.connection() as other, queue.connection() as counters:
        mine, _ = await queue.claim(one, 2000, 1000, {})
        theirs, _ = await queue.claim(other, 2000, 1000, {})

        async def finish(worker: Any, claims: list[Claim], seed: int) -> None:
            random.Random(seed).shuffle(claims)
            for start in range(0, 2000, 500):
                batch = [result(claim, "delivered") for claim in claims[start : start + 500]]
                assert await queue.finish(worker, batch, 1.0) == 500

        async def count() -> None:
            for _ in range(8):
                await counters.execute(query("count_audience"), seqs, [1] * len(seqs))

        await asyncio.gather(finish(one, mine, 1), finish(other, theirs, 2), count())
    assert await db.fetchval("SELECT sum(wh_delivered_count) FROM realtime.messages") == 4000


# ---- operators ---------------------------------------------------------------------------------------------


async def test_deliveries_are_selected_by_message_url_and_state(db: Connection, database: str) -> None:
    first = await publish(db, "two:1")
    await publish(db, "two:2")
    await db.execute("UPDATE realtime.webhook_deliveries SET state = 'failed' WHERE id = 1")
    for which, number in (
        (Selection(), 4), (Selection(message=first), 2), (Selection(url="b.example"), 2), (Selection(state="failed"), 1),
        (Selection(message=first, url="a.ex", state="failed"), 1), (Selection(url="%"), 0),
        (Selection(message=str(uuid.uuid4())), 0),
    ):  # fmt: skip
        assert len(await list_deliveries(Database(database), which, 10)) == number
    ids = [row["id"] for row in await list_deliveries(Database(database), Selection(), 2)]
    assert ids == sorted(ids, reverse=True)


async def test_a_retry_begins_again_with_what_is_over_and_hurries_what_waits(
    db: Connection, database: str, queue: DeliveryQueue
) -> None:
    async with queue.connection() as worker:
        one, two, three, four = sorted(await claimed(db, queue, worker, 2), key=lambda claim: claim.id)
        results = [
            result(one, "delivered"), result(two, "failed", status=404), result(three, "pending", status=500, pause=99),
        ]  # fmt: skip
        await queue.finish(worker, results, 1.0)
        assert await retry_deliveries(Database(database), Selection()) == 2
        claims, _ = await queue.claim(worker, 10, 10, {})
        assert {claim.id for claim in claims} == {two.id, three.id}, "not what was delivered, nor what is under way"
        assert {claim.attempts for claim in claims} == {0}
        assert await state(db, four) == ("pending", 0)


async def test_a_cancelled_delivery_is_not_sent_again_but_one_that_arrives_all_the_same_is_counted(
    db: Connection, database: str, queue: DeliveryQueue
) -> None:
    async with queue.connection() as worker:
        claims = sorted(await claimed(db, queue, worker, 2), key=lambda claim: claim.id)
        one, two, three, four = claims
        assert await cancel_deliveries(Database(database), Selection()) == 4
        results = [result(one, "delivered"), result(two, "pending", status=500), result(three, "failed", status=404)]
        await queue.finish(worker, results, 1.0)
        assert [await state(db, claim) for claim in claims] == [
            ("delivered", 1), ("cancelled", 1), ("cancelled", 1), ("cancelled", 0),
        ]  # fmt: skip
        await lapse(db)
        assert (await queue.claim(worker, 10, 10, {}))[0] == []
        assert sum(delivered for _, delivered in await counts(db)) == 1
        # Begun again while the last attempt may still be under way: that one has the lease, nobody sends beside it.
        await db.execute(
            "UPDATE realtime.webhook_deliveries SET next_attempt_at = now() + interval '9 s' WHERE id = $1", four.id
        )
        assert await retry_deliveries(Database(database), Selection(message=four.message_id, url=four.url)) == 1
        assert (await queue.claim(worker, 10, 10, {}))[0] == []
        [listed] = await list_deliveries(Database(database), Selection(message=four.message_id, url=four.url), 1)
        assert listed["state"] == "sending"
