"""Why a request is refused: PostgreSQL says it with the verdict, for the operator's log; the client learns nothing of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from insforge_realtime.errors import Unauthorized
from insforge_realtime.pg.authorizer import denied
from insforge_realtime.pg.demo import ALICE, BOBS_ORDER, ROOM
from insforge_realtime.pg.queries import query
from support.databases import Cluster

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

CLAIMS = json.dumps({"sub": ALICE, "role": "authenticated"})
NO_CHANNEL = {"reason": "no such channel"}
READERS = "members_subscribe_chat, public_subscribe_orders, users_subscribe_own_orders"
WRITERS = "admins_publish_orders, members_publish_chat"
SEVERAL = """
INSERT INTO realtime.channels (pattern, enabled) VALUES
    ('closed', false), ('closed:%', false), ('closed:door:%', false), ('c_osed', false), ('order:gone:%', false);
"""
MANY = "INSERT INTO realtime.channels (pattern) SELECT 'other:' || n || ':%' FROM generate_series(1, 500) n"


@pytest.fixture
async def db(cluster: Cluster) -> AsyncIterator[Connection]:
    """A connection to a demo database of the test's own, with channels that are disabled."""
    url = await cluster.database("demo")
    connection = await asyncpg.connect(url)
    await connection.execute(SEVERAL)
    yield connection
    await connection.close()
    await cluster.drop(url)


def told(verdict: str, act: str = "subscribe") -> dict[str, str]:
    """What the operator is told, once it is shown that the client is told the same as ever."""
    error = denied(act, verdict)
    assert isinstance(error, Unauthorized)
    assert error.as_dict() == {"code": "UNAUTHORIZED", "message": f"Not allowed to {act} to this channel"}
    return error.known


async def subscribed(db: Connection, channel: str, role: str = "authenticated", claims: str = CLAIMS) -> dict[str, str]:
    [verdict] = await db.fetchval(query("check_subscribe"), [role], [claims], [channel])
    return told(verdict)


async def published(db: Connection, channel: str, role: str = "authenticated") -> dict[str, str]:
    [verdict] = await db.fetchval(query("publish_as"), [role], [CLAIMS], [channel], ["e"], ["{}"])
    return told(verdict, "publish")


def disabled(pattern: str) -> dict[str, str]:
    return {"reason": "the channel is disabled", "pattern": pattern}


SUBSCRIPTIONS: dict[str, tuple[str, dict[str, str]]] = {
    "no such channel": ("nowhere", NO_CHANNEL),
    "no name": ("x" * 300, NO_CHANNEL),
    "a channel that is disabled": ("closed", disabled("closed")),
    "a pattern that is disabled": ("closed:1", disabled("closed:%")),
    "the longest of those that are": ("closed:door:1", disabled("closed:door:%")),
    "the policies say no": (
        f"order:{BOBS_ORDER}", {"reason": "the policies say no", "pattern": "order:%", "policies": READERS}
    ),
    "a policy that cannot read": (
        "order:abc",
        {
            "reason": "a policy could not read a value", "pattern": "order:%", "policies": READERS,
            "error": '22P02 invalid input syntax for type uuid: "abc"',
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("many", [False, True], ids=["few channels", "many channels"])
@pytest.mark.parametrize("why", SUBSCRIPTIONS)
async def test_each_reason_of_a_refused_subscribe_is_told_apart(db: Connection, why: str, many: bool) -> None:
    if many:
        await db.execute(MANY)
    channel, known = SUBSCRIPTIONS[why]
    assert await subscribed(db, channel) == known


async def test_a_role_without_a_policy_is_told_from_one_whose_policies_say_no(db: Connection) -> None:
    assert await subscribed(db, "orders", "anon") == {"reason": "no policy for the role anon", "pattern": "orders"}
    await db.execute("CREATE POLICY for_all ON realtime.channels FOR SELECT USING (pattern = 'lobby')")
    known = {"reason": "the policies say no", "pattern": "orders", "policies": "for_all"}
    assert await subscribed(db, "orders", "anon") == known


async def test_a_policy_for_a_role_that_the_client_is_a_member_of_counts(db: Connection) -> None:
    await db.execute(
        "DO $$ BEGIN CREATE ROLE guests; EXCEPTION WHEN duplicate_object THEN NULL; END $$; GRANT guests TO anon;"
        "CREATE POLICY guests ON realtime.channels FOR SELECT TO guests USING (false)"
    )
    assert (await subscribed(db, "orders", "anon"))["policies"] == "guests"
    await db.execute("DROP POLICY guests ON realtime.channels; DROP ROLE guests")


PUBLICATIONS: dict[str, tuple[str, dict[str, str]]] = {
    "no such channel": ("nowhere", NO_CHANNEL),
    "a channel that is disabled": ("closed:1", disabled("closed:%")),
    "the policies say no": ("orders", {"reason": "the policies say no", "pattern": "orders", "policies": WRITERS}),
    "a policy that cannot read": (
        "chat:abc",
        {
            "reason": "a policy could not read a value", "pattern": "chat:%", "policies": WRITERS,
            "error": '22P02 invalid input syntax for type uuid: "abc"',
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("why", PUBLICATIONS)
async def test_each_reason_of_a_refused_publish_is_told_apart(db: Connection, why: str) -> None:
    channel, known = PUBLICATIONS[why]
    assert await published(db, channel) == known


async def test_a_role_without_an_insert_policy_is_told_from_one_whose_policies_say_no(db: Connection) -> None:
    known = {"reason": "no policy for the role anon", "pattern": "chat:%"}
    assert await published(db, f"chat:{ROOM}", "anon") == known


async def test_a_restrictive_policy_and_a_trigger_say_by_themselves_what_they_are(db: Connection) -> None:
    await db.execute("CREATE POLICY quiet ON realtime.messages AS RESTRICTIVE FOR INSERT WITH CHECK (false)")
    assert 'policy "quiet" for table "messages"' in (await published(db, f"chat:{ROOM}"))["error"]
    await db.execute(
        "CREATE FUNCTION banned() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE 'banned' USING ERRCODE = 'insufficient_privilege'; END $$;"
        "CREATE TRIGGER banned BEFORE INSERT ON realtime.messages FOR EACH ROW EXECUTE FUNCTION banned()"
    )
    assert (await published(db, f"chat:{ROOM}"))["error"] == "42501 banned"


async def test_a_pattern_that_cannot_be_read_costs_the_reason_and_not_the_answer(db: Connection) -> None:
    await db.execute(
        "ALTER TABLE realtime.channels DROP CONSTRAINT channels_pattern_check;"
        "INSERT INTO realtime.channels (pattern, enabled) VALUES ('odd\\', false)"
    )
    assert await subscribed(db, "oddity") == {}


async def test_the_functions_of_an_earlier_migration_are_understood(db: Connection) -> None:
    assert told("no") == {}
    assert told("no 22P02 invalid input:\nof two lines") == {"error": "22P02 invalid input:\nof two lines"}


@pytest.mark.parametrize("role", ["anon", "authenticated"])
async def test_clients_may_not_ask_for_reasons(db: Connection, role: str) -> None:
    await db.execute(f"SET ROLE {role}")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await db.execute("""SELECT realtime.explain_no('no', 'realtime.channels', '{r,*}', 'anon', 'closed')""")


async def test_a_reason_is_found_quickly_among_thousands_of_disabled_patterns(db: Connection) -> None:
    await db.execute(
        "INSERT INTO realtime.channels (pattern, enabled) SELECT 'off:' || n || ':%', false"
        " FROM generate_series(1, 20000) n; ANALYZE realtime.channels"
    )
    assert await subscribed(db, "off:17:x") == disabled("off:17:%")
    plan: Any = await db.fetchval(
        "EXPLAIN (FORMAT JSON) SELECT pattern FROM realtime.channels WHERE NOT enabled AND pattern = ANY ('{a,b,c}'::text[])"
    )
    assert "Index" in json.loads(plan)[0]["Plan"]["Node Type"] or "Bitmap" in json.loads(plan)[0]["Plan"]["Node Type"]
