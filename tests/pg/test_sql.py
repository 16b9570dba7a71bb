"""The functions of the schema realtime, asked directly: matching, publish, the stamp, the event's text, the two judges."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from insforge_realtime.pg.demo import ALICE, ALICES_ORDER, BOB, BOBS_ORDER, ROOM
from insforge_realtime.pg.queries import query
from support.databases import Cluster, wait_until

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

MALLORY = "bad00000-0000-4000-8000-00000000000d"
FORGED_ID = "f0f0f0f0-0000-4000-8000-000000000001"


_shared: dict[int, str] = {}


async def _shared_url(cluster: Cluster) -> str:
    """One demo database for all tests that roll back what they do; it ends with its server."""
    if cluster.major not in _shared:
        _shared[cluster.major] = await cluster.database("demo")
        connection = await asyncpg.connect(_shared[cluster.major])
        await connection.execute("DELETE FROM realtime.messages")
        await connection.close()
    return _shared[cluster.major]


@pytest.fixture
async def db(cluster: Cluster) -> AsyncIterator[Connection]:
    """The owner's connection to a demo database, in a transaction that is rolled back."""
    connection = await asyncpg.connect(await _shared_url(cluster))
    transaction = connection.transaction()
    await transaction.start()
    yield connection
    await transaction.rollback()
    await connection.close()


@pytest.fixture
async def own_url(cluster: Cluster) -> AsyncIterator[str]:
    """A demo database of the test's own, on each PostgreSQL in turn."""
    url = await cluster.database("demo")
    yield url
    await cluster.drop(url)


@pytest.fixture
async def own(own_url: str) -> AsyncIterator[Connection]:
    """The owner's connection to it, before anything was said; for what must be a transaction of its own."""
    connection = await asyncpg.connect(own_url)
    await connection.execute("DELETE FROM realtime.messages")
    yield connection
    await connection.close()


def claims(subject: str | None, **more: object) -> str:
    return json.dumps({"sub": subject, "role": "authenticated", **more})


async def channels(db: Connection, *patterns: str, enabled: bool = True) -> None:
    await db.execute("DELETE FROM realtime.channels")
    await db.executemany(
        "INSERT INTO realtime.channels (pattern, enabled) VALUES ($1, $2)", [(pattern, enabled) for pattern in patterns]
    )


async def matched(db: Connection, name: str) -> str | None:
    found: str | None = await db.fetchval(
        "SELECT pattern FROM realtime.channels WHERE id = realtime.match_channel($1)", name
    )
    return found


async def publish(db: Connection, channel: str, event: str, payload: object) -> Any:
    return await db.fetchval("SELECT realtime.publish($1, $2, $3)", channel, event, json.dumps(payload))


async def row(db: Connection, **where: object) -> asyncpg.Record:
    (name, value), *_ = where.items()
    found = await db.fetchrow(f"SELECT * FROM realtime.messages WHERE {name} = $1", value)
    assert found is not None
    return found


async def event_of(db: Connection, message_id: object) -> tuple[str, dict[str, Any]]:
    text = await db.fetchval("SELECT realtime.event_text(m) FROM realtime.messages m WHERE id = $1", message_id)
    name, data = json.loads(text)
    return name, data


async def subscribe(db: Connection, *asked: tuple[str, str, str]) -> list[str]:
    roles, all_claims, names = ([item[i] for item in asked] for i in range(3))
    verdicts: list[str] = await db.fetchval(query("check_subscribe"), roles, all_claims, names)
    return [verdict.partition("\n")[0] for verdict in verdicts]  # what follows is told in test_refusals.py


async def may_subscribe(db: Connection, subject: str | None, channel: str, role: str = "authenticated") -> str:
    return (await subscribe(db, (role, claims(subject), channel)))[0]


async def publish_as(db: Connection, *asked: tuple[str, str, str, str, str]) -> list[str]:
    columns = ([item[i] for item in asked] for i in range(5))
    verdicts: list[str] = await db.fetchval(query("publish_as"), *columns)
    return verdicts


@asynccontextmanager
async def acting_as(db: Connection, role: str, subject: str | None = None) -> AsyncIterator[None]:
    """Within the test's transaction; an error in it is kept to a savepoint."""
    async with db.transaction():
        await db.execute("SELECT set_config('request.jwt.claims', $1, true)", claims(subject))
        await db.execute(f"SET LOCAL ROLE {role}")
        yield
        await db.execute("RESET ROLE")


# ---- matching ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patterns", "name", "winner"),
    [
        (["order:%", "order:123"], "order:123", "order:123"),
        (["chat:%", "chat:vip:%", "%"], "chat:vip:1", "chat:vip:%"),
        (["chat:%", "chat:vip:%", "%"], "chat:1", "chat:%"),
        (["chat:%", "%"], "other", "%"),
        (["a%b", "ab%"], "abab", "a%b"),
        (["a%%%%%%%%", "ab%"], "abc", "ab%"),
        (["room_", "room%"], "room1", "room%"),
        (["room_"], "room12", None),
        ([r"a\_b", "a_b%"], "a_b", r"a\_b"),
        ([r"a\_b"], "axb", None),
        ([r"100\%"], "100%", r"100\%"),
        ([r"100\%"], "1000", None),
        ([r"a\\%"], "a\\b", r"a\\%"),
        (["chat:%"], "Chat:1", None),
        (["chat:%"], "chat:", "chat:%"),
        (["%"], "", None),
        (["%"], "chat:a\nb", None),
        (["%"], "chat:a\u0085b", None),
        (["%"], "chat:\u007f", None),
        (["%"], "chat:\u00a0b", "%"),
        (["%"], "x" * 255, "%"),
        (["%"], "x" * 256, None),
        (["%"], "ü" * 127, "%"),
        (["%"], "ü" * 128, None),
        (["grüße:%"], "grüße:ü", "grüße:%"),
    ],
)
async def test_a_name_belongs_to_its_exact_pattern_else_to_the_most_literal_one(
    db: Connection, patterns: list[str], name: str, winner: str | None
) -> None:
    await channels(db, *patterns)
    assert await matched(db, name) == winner


async def test_a_tie_goes_to_the_pattern_that_sorts_first(db: Connection) -> None:
    await channels(db, "a:%", "%:b")
    assert await matched(db, "a:b") == "%:b"


async def test_a_disabled_channel_matches_nothing_and_hides_nothing(db: Connection) -> None:
    await channels(db, "chat:vip:%", enabled=False)
    assert await matched(db, "chat:vip:1") is None
    await db.execute("INSERT INTO realtime.channels (pattern) VALUES ('chat:%')")
    assert await matched(db, "chat:vip:1") == "chat:%"


@pytest.mark.parametrize("pattern", ["", "chat:\\", "\\", "a\\\\\\"])
async def test_a_pattern_that_like_cannot_read_is_refused(db: Connection, pattern: str) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await db.execute("INSERT INTO realtime.channels (pattern) VALUES ($1)", pattern)


# ---- publish -----------------------------------------------------------------------------------------------


async def test_publish_returns_the_id_of_a_system_message(db: Connection) -> None:
    message = await row(db, id=await publish(db, "order:1", "INSERT_order", {"a": 1}))
    assert (message["event_name"], message["channel_name"]) == ("INSERT_order", "order:1")
    assert (message["sender_type"], message["sender_id"]) == ("system", None)
    assert json.loads(message["payload"]) == {"a": 1}
    assert message["channel_id"] == await db.fetchval("SELECT id FROM realtime.channels WHERE pattern = 'order:%'")


async def test_ids_grow_where_postgresql_can_make_them_grow(db: Connection, cluster: Cluster) -> None:
    published = [await db.fetchval("SELECT realtime.publish('orders', 'e', '{}')") for _ in range(3)]
    assert {message_id.version for message_id in published} == {7 if cluster.major >= 18 else 4}
    if cluster.major >= 18:
        assert published == sorted(published)


@pytest.mark.parametrize("name", ["nowhere:1", "off:1"])
async def test_publish_to_no_enabled_channel_warns_and_returns_null(db: Connection, name: str | None) -> None:
    await db.execute("INSERT INTO realtime.channels (pattern, enabled) VALUES ('off:%', false)")
    warnings: list[str] = []
    db.add_log_listener(lambda _, message: warnings.append(f"{message.severity_en} {message.message}"))
    before = await db.fetchval("SELECT count(*) FROM realtime.messages")
    assert await db.fetchval("SELECT realtime.publish($1, 'e', '{}')", name) is None
    await wait_until(lambda: warnings)
    assert len(warnings) == 1
    assert warnings[0].startswith("WARNING realtime.publish: no enabled channel matches")
    assert await db.fetchval("SELECT count(*) FROM realtime.messages") == before


@pytest.mark.parametrize(
    ("event", "payload", "why"),
    [
        ("", "{}", "empty"),
        (None, "{}", "empty"),
        ("connect", "{}", "reserved"),
        ("connect_error", "{}", "reserved"),
        ("disconnect", "{}", "reserved"),
        ("disconnecting", "{}", "reserved"),
        ("error", "{}", "reserved"),
        ("newListener", "{}", "reserved"),
        ("removeListener", "{}", "reserved"),
        ("realtime:error", "{}", "reserved"),
        ("presence:join", "{}", "reserved"),
        ("e", "[]", "JSON object"),
        ("e", '"text"', "JSON object"),
        ("e", "null", "JSON object"),
        ("e", None, "JSON object"),
    ],
)
async def test_publish_refuses_what_may_not_be_an_event_and_says_why(
    db: Connection, event: str | None, payload: str | None, why: str
) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError, match=why):
        await db.fetchval("SELECT realtime.publish('orders', $1, $2)", event, payload)


@pytest.mark.parametrize("role", ["anon", "authenticated", "project_admin"])
@pytest.mark.parametrize(
    "call",
    [
        "realtime.publish('orders', 'e', '{}')",
        "realtime.match_channel('orders')",
        "realtime.check_subscribe('{}', '{}', '{}')",
        "realtime.publish_as('{}', '{}', '{}', '{}', '{}')",
        "realtime.insert_as('project_admin', '{}', 'orders', 'orders', 'e', '{}')",
        "realtime.judge_subscribe('project_admin', '{}', 'orders', NULL)",
    ],
)
async def test_clients_roles_may_call_none_of_the_servers_functions(db: Connection, role: str, call: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied for function"):
        async with acting_as(db, role):
            await db.fetchval(f"SELECT {call}")


async def test_a_trigger_of_the_owner_publishes_as_the_system_whoever_changes_the_row(db: Connection) -> None:
    await db.execute("GRANT UPDATE ON orders TO authenticated")
    async with acting_as(db, "authenticated", BOB):
        await db.execute("UPDATE orders SET status = 'gone' WHERE id = $1", BOBS_ORDER)
    message = await row(db, event_name="UPDATE_order")
    assert (message["sender_type"], message["sender_id"]) == ("system", None)
    assert message["channel_name"] == f"order:{BOBS_ORDER}"


async def test_a_temporary_table_does_not_divert_a_publish(db: Connection) -> None:
    await db.execute("CREATE TEMPORARY TABLE messages (id int); CREATE TEMPORARY TABLE channels (id int)")
    assert await publish(db, "orders", "e", {}) is not None


@pytest.mark.parametrize("name", ["order:'; DROP TABLE realtime.messages; --", 'order:"$$', "order:%s", "order:\\"])
async def test_names_are_data_and_never_sql(db: Connection, name: str) -> None:
    event = name.replace("order:", "e ")
    message_id = await publish(db, name, event, {"x": name})
    assert (await row(db, id=message_id))["channel_name"] == name
    got, data = await event_of(db, message_id)
    assert (got, data["x"], data["meta"]["channel"]) == (event, name, name)
    await db.execute(
        "CREATE POLICY all_read ON realtime.channels FOR SELECT TO authenticated USING (pattern = 'order:%');"
        "CREATE POLICY all_write ON realtime.messages FOR INSERT TO authenticated WITH CHECK (true);"
        # The demo's policies cast the name to a uuid, which is not what this is about.
        "DROP POLICY users_subscribe_own_orders ON realtime.channels"
    )
    assert await may_subscribe(db, ALICE, name) == "yes"
    assert (await publish_as(db, ("authenticated", claims(ALICE), name, event, "{}")))[0].startswith("ok ")


# ---- the stamp ---------------------------------------------------------------------------------------------


FORGERY = """
    INSERT INTO realtime.messages (id, event_name, channel_id, channel_name, payload, sender_type, sender_id,
        ws_audience_count, wh_audience_count, wh_delivered_count, created_at, seq, xid)
    OVERRIDING SYSTEM VALUE
    SELECT $1, 'forged', (SELECT id FROM realtime.channels WHERE pattern = 'orders'), 'chat:room-1', '{}', 'system', $2,
        7, 8, 9, '2001-01-01', 1, '3'
"""


@pytest.mark.parametrize("role", ["authenticated", "project_admin", "passer_by"])
async def test_nobody_but_the_owner_can_forge_a_column(db: Connection, role: str) -> None:
    await db.execute(
        "CREATE POLICY anything ON realtime.messages FOR INSERT TO PUBLIC WITH CHECK (true);"
        "CREATE POLICY everything ON realtime.channels FOR SELECT TO PUBLIC USING (true)"
    )
    if role == "passer_by":
        await db.execute(
            "CREATE ROLE passer_by;"
            "GRANT USAGE ON SCHEMA realtime, auth TO passer_by; GRANT SELECT ON realtime.channels TO passer_by;"
            "GRANT INSERT ON realtime.messages TO passer_by"
        )
    async with acting_as(db, role, ALICE):
        await db.execute(FORGERY, FORGED_ID, MALLORY)
    message = await row(db, event_name="forged")
    now, xid, chat = await db.fetchrow(  # type: ignore[misc]
        "SELECT now(), pg_current_xact_id()::text, (SELECT id FROM realtime.channels WHERE pattern = 'chat:%')"
    )
    assert str(message["id"]) != FORGED_ID
    assert (message["sender_type"], str(message["sender_id"])) == ("user", ALICE)
    assert (message["channel_id"], message["created_at"], str(message["xid"])) == (chat, now, xid)
    assert message["seq"] == await db.fetchval("SELECT pg_sequence_last_value('realtime.messages_seq_seq')")
    assert message["seq"] > 1
    assert [message[f"{name}_count"] for name in ("ws_audience", "wh_audience", "wh_delivered")] == [0, 0, 0]


@pytest.mark.parametrize(
    ("event", "payload", "error"),
    [("realtime:error", "{}", "reserved"), ("", "{}", "empty"), ("e", "[1]", "JSON object")],
)
async def test_direct_inserts_of_clients_are_checked_like_publishes(
    db: Connection, event: str, payload: str, error: str
) -> None:
    await db.execute("CREATE POLICY anything ON realtime.messages FOR INSERT TO authenticated WITH CHECK (true)")
    with pytest.raises(asyncpg.InvalidParameterValueError, match=error):
        async with acting_as(db, "authenticated", ALICE):
            await db.execute(
                "INSERT INTO realtime.messages (event_name, channel_name, payload) VALUES ($1, 'orders', $2)",
                event,
                payload,
            )


async def test_a_client_cannot_change_or_delete_what_was_said(db: Connection) -> None:
    await publish(db, "orders", "e", {})
    for statement in ("UPDATE realtime.messages SET payload = '{}'", "DELETE FROM realtime.messages"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with acting_as(db, "authenticated", ALICE):
                await db.execute(statement)


# ---- the event's text --------------------------------------------------------------------------------------


async def test_the_meta_of_an_event_is_the_servers(db: Connection) -> None:
    message_id = await publish(db, "order:1", "e", {"meta": {"senderType": "user"}, "a": 1})
    await db.execute("UPDATE realtime.messages SET created_at = '2025-03-04 05:06:07.89+02'")
    name, data = await event_of(db, message_id)
    assert name == "e"
    assert data == {
        "a": 1,
        "meta": {
            "channel": "order:1",
            "messageId": str(message_id),
            "senderType": "system",
            "timestamp": "2025-03-04T03:06:07.890Z",
        },
    }


async def test_the_timestamp_is_utc_whatever_the_sessions_time_zone(db: Connection) -> None:
    await db.execute("SET TimeZone = 'Asia/Kathmandu'; SET DateStyle = 'German'")
    message_id = await publish(db, "orders", "e", {})
    created = (await row(db, id=message_id))["created_at"]
    timestamp = (await event_of(db, message_id))[1]["meta"]["timestamp"]
    assert timestamp[:19] == created.isoformat()[:19]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", timestamp)


async def test_only_users_messages_have_a_sender_id(db: Connection) -> None:
    [verdict] = await publish_as(db, ("authenticated", claims(ALICE), f"chat:{ROOM}", "hi", '{"text":"x"}'))
    _, data = await event_of(db, verdict.removeprefix("ok "))
    assert (data["meta"]["senderType"], data["meta"]["senderId"]) == ("user", ALICE)


@pytest.mark.parametrize(
    "payload", [{}, {"ü😀": 'quote " back \\ line \n tab \t'}, {"deep": [{"meta": 1}, None, True, 1.50, "}"]}]
)
async def test_any_payload_and_name_survives(db: Connection, payload: dict[str, Any]) -> None:
    name, data = await event_of(db, await publish(db, 'order:"\\😀', 'e "ü\\', payload))
    assert name == 'e "ü\\'
    assert data.pop("meta")["channel"] == 'order:"\\😀'
    assert data == payload


@pytest.mark.parametrize("payload", ["[1,2]", '"text"', "17", "null", "false"])
async def test_a_payload_of_the_owners_that_is_no_object_is_wrapped(db: Connection, payload: str) -> None:
    message_id = await db.fetchval(
        "INSERT INTO realtime.messages (event_name, channel_name, payload) VALUES ('e', 'x', $1) RETURNING id", payload
    )
    _, data = await event_of(db, message_id)
    assert data["payload"] == json.loads(payload)
    assert data["meta"]["messageId"] == str(message_id)


# ---- subscribe ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subject", "channel", "verdict"),
    [
        (ALICE, "orders", "yes"),
        (ALICE, f"order:{ALICES_ORDER}", "yes"),
        (BOB, f"order:{ALICES_ORDER}", "no"),
        (BOB, f"order:{BOBS_ORDER}", "yes"),
        (BOB, f"chat:{ROOM}", "yes"),
        (MALLORY, f"chat:{ROOM}", "no"),
        (ALICE, "order:", "no"),
        (ALICE, "nowhere", "no"),
        (ALICE, "", "no"),
        (None, f"order:{ALICES_ORDER}", "no"),
    ],
)
async def test_the_policies_decide_who_subscribes(
    own: Connection, subject: str | None, channel: str, verdict: str
) -> None:
    assert await may_subscribe(own, subject, channel) == verdict


async def test_each_role_is_judged_by_its_own_policies(own: Connection) -> None:
    for _ in range(2):  # and the roles of one call do not get into each other's way
        assert await subscribe(
            own,
            ("anon", "{}", "orders"),
            ("authenticated", claims(ALICE), "orders"),
            ("project_admin", "{}", "orders"),
            ("anon", "{}", "orders"),
            ("project_admin", "{}", f"order:{ALICES_ORDER}"),
        ) == ["no", "yes", "yes", "no", "yes"]
    await own.execute("CREATE POLICY for_all ON realtime.channels FOR SELECT TO anon USING (pattern = 'orders')")
    assert await may_subscribe(own, None, "orders", "anon") == "yes"


CHAT_WITHOUT_CAST = """
    DROP POLICY members_subscribe_chat ON realtime.channels;
    CREATE POLICY chat_for_all ON realtime.channels FOR SELECT TO authenticated
    USING (pattern = 'chat:%' AND split_part(realtime.channel_name(), ':', 2) LIKE 'room-%')
"""


async def test_a_policy_that_casts_does_not_break_the_channels_of_others(own: Connection, own_url: str) -> None:
    await own.execute(CHAT_WITHOUT_CAST)
    assert await may_subscribe(own, ALICE, "chat:room-1") == "yes"
    for disturbance in ("DISCARD PLANS", "ANALYZE", "ANALYZE realtime.channels", "SELECT 1"):
        await own.execute(disturbance)
        assert await may_subscribe(own, ALICE, "chat:room-1") == "yes"
        assert await may_subscribe(own, ALICE, f"order:{ALICES_ORDER}") == "yes"
        assert await may_subscribe(own, ALICE, "chat:kitchen") == "no"
    fresh = await asyncpg.connect(own_url)
    assert await subscribe(
        fresh, ("authenticated", claims(ALICE), "chat:room-1"), ("authenticated", claims(BOB), "chat:room-2")
    ) == ["yes", "yes"]
    await fresh.close()


async def test_a_policy_that_raises_is_reported_and_costs_its_neighbours_nothing(own: Connection) -> None:
    who = claims(ALICE)
    verdicts = await subscribe(
        own,
        ("authenticated", who, "orders"),
        ("authenticated", who, "order:no-uuid"),
        ("authenticated", who, f"order:{ALICES_ORDER}"),
        ("authenticated", who, "order:no-uuid-either"),
        ("project_admin", "{}", "order:no-uuid"),
        ("anon", "{}", "orders"),
    )
    assert [verdict[:5] for verdict in verdicts] == ["yes", "no 22", "yes", "no 22", "yes", "no"]


async def test_claims_that_are_no_json_are_an_error_of_that_request_only(own: Connection) -> None:
    await own.execute(
        "CREATE POLICY mine ON realtime.channels FOR SELECT TO authenticated USING (auth.uid() IS NOT NULL)"
    )
    verdicts = await subscribe(
        own, ("authenticated", "{", f"order:{BOBS_ORDER}"), ("authenticated", claims("no uuid"), "orders")
    )
    assert [verdict[:8] for verdict in verdicts] == ["no 22P02", "yes"]


async def test_a_public_pattern_does_not_open_a_private_one_within_it(own: Connection) -> None:
    await own.execute(
        "INSERT INTO realtime.channels (pattern) VALUES ('chat:vip:%');"
        "DROP POLICY members_subscribe_chat ON realtime.channels;"
        "CREATE POLICY public_chat ON realtime.channels FOR SELECT TO authenticated USING (pattern = 'chat:%')"
    )
    assert await may_subscribe(own, ALICE, "chat:1") == "yes"
    assert await may_subscribe(own, ALICE, "chat:vip:1") == "no"


async def test_a_missing_grant_is_reported_and_not_a_no(own: Connection) -> None:
    await own.execute("REVOKE SELECT ON realtime.channels FROM authenticated")
    assert (await may_subscribe(own, ALICE, "orders")).startswith("42501 permission denied")


async def test_no_setting_outlives_the_call(own: Connection) -> None:
    await subscribe(own, ("authenticated", claims(ALICE), "order:no-uuid"), ("anon", claims(ALICE), "orders"))
    await publish_as(own, ("authenticated", claims(ALICE), f"chat:{ROOM}", "e", "{}"))
    await publish_as(own, ("authenticated", claims(ALICE), "orders", "e", "{}"))
    names = ("role", "request.jwt.claims", "realtime.channel_name", "realtime.message_id", "plan_cache_mode")
    settings = [await own.fetchval("SELECT current_setting($1, true)", name) for name in names]
    assert [setting or "" for setting in settings] == ["none", "", "", "", "auto"]
    assert await own.fetchval("SELECT current_user = session_user AND realtime.channel_name() IS NULL")


# ---- publish_as --------------------------------------------------------------------------------------------


async def test_clients_publish_as_far_as_the_insert_policies_let_them(own: Connection) -> None:
    verdicts = await publish_as(
        own,
        ("authenticated", claims(BOB), f"chat:{ROOM}", "a", '{"n":1}'),
        ("authenticated", claims(MALLORY), f"chat:{ROOM}", "b", "{}"),
        ("authenticated", claims(ALICE), f"order:{BOBS_ORDER}", "c", "{}"),
        ("authenticated", claims(BOB), f"order:{BOBS_ORDER}", "d", "{}"),
        ("anon", "{}", f"chat:{ROOM}", "e", "{}"),
        ("project_admin", "{}", f"chat:{ROOM}", "f", "{}"),
        ("authenticated", claims(ALICE), "nowhere", "g", "{}"),
        ("authenticated", claims(ALICE), f"chat:{ROOM}", "h", "not json"),
        ("authenticated", claims(ALICE), f"chat:{ROOM}", "i", '{"nul":"\\u0000"}'),
    )
    assert [verdict.split()[0] for verdict in verdicts] == [
        "ok", "no", "ok", "no", "no", "ok", "no", "invalid", "invalid",
    ]  # fmt: skip
    rows = await own.fetch("SELECT id, event_name, sender_type, sender_id FROM realtime.messages ORDER BY seq")
    assert [(r["event_name"], str(r["sender_id"])) for r in rows] == [("a", BOB), ("c", ALICE), ("f", "None")]
    assert [f"ok {r['id']}" for r in rows] == [verdicts[0], verdicts[2], verdicts[5]]
    assert {r["sender_type"] for r in rows} == {"user"}


async def test_a_policy_or_trigger_that_raises_costs_the_neighbours_nothing_and_order_is_kept(own: Connection) -> None:
    await own.execute(
        "CREATE FUNCTION grumble() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF NEW.event_name = 'bad' THEN RAISE 'no' USING ERRCODE = 'ZZ001'; END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER grumble AFTER INSERT ON realtime.messages FOR EACH ROW EXECUTE FUNCTION grumble()"
    )
    events = [f"e{i}" if i % 5 else "bad" for i in range(40)]
    room = f"chat:{ROOM}"
    asked = [("authenticated", claims(ALICE if i % 2 else BOB), room, event, "{}") for i, event in enumerate(events)]
    asked[7] = ("authenticated", claims(ALICE), "chat:no-uuid", "e7", "{}")
    verdicts = await publish_as(own, *asked)
    assert verdicts[7].startswith("no 22P02")
    assert all(verdict.startswith("ZZ001 no") for verdict in verdicts[::5])
    good = [(event, verdict) for event, verdict in zip(events, verdicts, strict=True) if verdict.startswith("ok ")]
    rows = await own.fetch("SELECT event_name, id FROM realtime.messages ORDER BY seq")
    assert [(r["event_name"], f"ok {r['id']}") for r in rows] == good
    assert len(good) == 31


async def test_a_casting_policy_beside_it_does_not_refuse_a_publish(own: Connection, own_url: str) -> None:
    await own.execute(
        "DROP POLICY members_publish_chat ON realtime.messages;"
        "CREATE POLICY chat_open ON realtime.messages FOR INSERT TO authenticated WITH CHECK (channel_name LIKE 'chat:%');"
        "CREATE POLICY order_owner ON realtime.messages FOR INSERT TO authenticated WITH CHECK (channel_name LIKE 'order:%'"
        " AND EXISTS (SELECT 1 FROM orders WHERE user_id = auth.uid()"
        " AND id = nullif(split_part(realtime.channel_name(), ':', 2), '')::uuid))"
    )
    one = ("authenticated", claims(ALICE), "chat:room-1", "e", "{}")
    for disturbance in ("SELECT 1", "DISCARD PLANS", "ANALYZE"):
        await own.execute(disturbance)
        assert [verdict[:2] for verdict in await publish_as(own, one, one)] == ["ok", "ok"]
    fresh = await asyncpg.connect(own_url)
    assert [verdict[:2] for verdict in await publish_as(fresh, one)] == ["ok"]
    await fresh.close()
    assert await own.fetchval("SELECT count(*) FROM realtime.messages") == 7


@pytest.mark.parametrize("name", ["channel_name", "realtime.channel_name()"])
async def test_insert_policies_may_ask_the_column_or_the_function(own: Connection, name: str) -> None:
    await own.execute(
        f"CREATE POLICY own ON realtime.messages FOR INSERT TO anon WITH CHECK ({name} = 'chat:lobby' AND payload ? 'text')"
    )
    verdicts = await publish_as(
        own,
        ("anon", "{}", "chat:lobby", "e", '{"text":""}'),
        ("anon", "{}", "chat:lobby", "e", "{}"),
        ("anon", "{}", "chat:other", "e", '{"text":""}'),
    )
    assert [verdict.split()[0] for verdict in verdicts] == ["ok", "no", "no"]


async def test_insert_policies_see_the_true_sender(own: Connection) -> None:
    await own.execute(
        "CREATE POLICY own ON realtime.messages FOR INSERT TO authenticated"
        " WITH CHECK (channel_name = 'orders' AND sender_id = auth.uid() AND sender_type = 'user')"
    )
    [verdict] = await publish_as(own, ("authenticated", claims(BOB), "orders", "e", "{}"))
    assert verdict.startswith("ok ")


async def test_a_missing_insert_grant_is_reported_and_not_a_no(own: Connection) -> None:
    await own.execute("REVOKE INSERT ON realtime.messages FROM authenticated")
    [verdict] = await publish_as(own, ("authenticated", claims(BOB), f"chat:{ROOM}", "e", "{}"))
    assert verdict.startswith("42501 permission denied")


async def test_empty_calls_have_empty_answers(own: Connection) -> None:
    assert await own.fetchval(query("check_subscribe"), [], [], []) == []
    assert await own.fetchval(query("publish_as"), [], [], [], [], []) == []
