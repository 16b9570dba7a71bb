"""What may not be published, whoever publishes: events larger as text than their limit, names that are too long or cannot be
read; the ways in which a payload may be given; and whom the stamp names as the sender."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from insforge_realtime.errors import InvalidRequest, PayloadTooLarge, RequestError, Unauthorized
from insforge_realtime.model import Identity, Publication, Role
from insforge_realtime.pg.authorizer import Authorizer
from insforge_realtime.pg.database import Database
from insforge_realtime.pg.demo import ALICE, ROOM
from insforge_realtime.pg.migrate import migrate
from insforge_realtime.pg.publishers import ClientPublisher, SystemPublisher
from insforge_realtime.pg.queries import query
from support.databases import Cluster, wait_until

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

MEBIBYTE = 1048576
LIMIT = 4 * MEBIBYTE
ADMIN = Identity(Role.PROJECT_ADMIN, '{"role": "project_admin"}')
ALICE_HERSELF = Identity(Role.AUTHENTICATED, json.dumps({"sub": ALICE, "role": "authenticated"}), ALICE)


@pytest.fixture
async def url(cluster: Cluster) -> AsyncIterator[str]:
    """A demo database of the test's own."""
    url = await cluster.database("demo")
    yield url
    await cluster.drop(url)


@pytest.fixture
async def db(url: str) -> AsyncIterator[Connection]:
    """The owner's connection to it."""
    connection = await asyncpg.connect(url)
    await connection.execute("DELETE FROM realtime.messages")
    yield connection
    await connection.close()


async def publish(db: Connection, payload: str, channel: str = "'orders'", event: str = "'e'") -> Any:
    """Publish what SQL expressions say."""
    return await db.fetchval(f"SELECT realtime.publish({channel}, {event}, {payload})")


# ---- large payloads ----------------------------------------------------------------------------------------


async def test_a_gigabyte_of_digits_in_a_few_bytes_of_jsonb_is_refused_with_an_error_that_says_what_to_do(
    db: Connection,
) -> None:
    numbers = "(SELECT jsonb_agg('1e131000'::numeric) FROM generate_series(1, 9000))"
    with pytest.raises(asyncpg.ProgramLimitExceededError) as refused:
        await publish(db, f"jsonb_build_object('n', {numbers})")
    assert refused.value.message == "realtime: the payload is larger than 4194304 bytes as text"
    assert "max_event_bytes in realtime.limits" in (refused.value.hint or "")
    assert refused.value.constraint_name == "realtime_too_large"


@pytest.mark.parametrize(
    ("element", "fits", "too_many"),
    [
        ("'1e131000'::numeric", 31, 33),
        ("'-1e131071'::numeric", 31, 33),
        ("round(1, 16000)", 260, 265),
        ("repeat(chr(1), 100)", 6900, 7000),
        ("repeat('x', 100000)", 41, 42),
        ("to_jsonb(true)", 690_000, 720_000),
    ],
)
async def test_what_is_too_large_as_text_is_refused_and_what_is_a_little_smaller_is_not(
    db: Connection, element: str, fits: int, too_many: int
) -> None:
    payload = "jsonb_build_object('n', (SELECT jsonb_agg({}) FROM generate_series(1, {})))"
    assert await publish(db, payload.format(element, fits)) is not None
    with pytest.raises(asyncpg.ProgramLimitExceededError):
        await publish(db, payload.format(element, too_many))
    assert await db.fetchval("SELECT max(octet_length(realtime.event_text(m))) FROM realtime.messages m") < LIMIT + 1000


async def test_a_payload_from_a_table_is_measured_as_it_is_and_not_as_it_is_stored(db: Connection) -> None:
    await db.execute(
        "CREATE TABLE stored (p jsonb); INSERT INTO stored VALUES (jsonb_build_object('n', repeat('x', 5000000)))"
    )
    assert await db.fetchval("SELECT pg_column_size(p) FROM stored") < 100_000
    with pytest.raises(asyncpg.ProgramLimitExceededError):
        await db.fetchval("SELECT realtime.publish('orders', 'e', p) FROM stored")
    await db.execute("UPDATE stored SET p = jsonb_build_object('n', repeat('x', 3000000))")
    assert await db.fetchval("SELECT realtime.publish('orders', 'e', p) FROM stored")


async def test_the_limits_are_rows_of_the_owners_and_nobody_elses(db: Connection) -> None:
    payload = "jsonb_build_object('n', repeat('x', 5000000))"
    await db.execute(f"UPDATE realtime.limits SET max_event_bytes = {8 * MEBIBYTE}, max_name_bytes = 300")
    assert await publish(db, payload)
    await db.execute("INSERT INTO realtime.channels (pattern) VALUES ('long:%')")
    assert await publish(db, "'{}'", "repeat('long:', 60)", "repeat('e', 300)")
    with pytest.raises(asyncpg.InvalidParameterValueError, match="301 bytes long, and may be 300"):
        await publish(db, "'{}'", event="repeat('e', 301)")
    for change in (
        "max_event_bytes = 1000",
        "max_event_bytes = 1000000000",
        "max_name_bytes = 10",
        "max_name_bytes = 9999",
    ):
        with pytest.raises(asyncpg.CheckViolationError):
            await db.execute(f"UPDATE realtime.limits SET {change}")
    for statement in (
        "INSERT INTO realtime.limits DEFAULT VALUES",
        "INSERT INTO realtime.limits (one_row) VALUES (false)",
    ):
        with pytest.raises((asyncpg.UniqueViolationError, asyncpg.CheckViolationError)):
            await db.execute(statement)
    for role in ("anon", "authenticated", "project_admin"):
        for privilege in ("SELECT", "INSERT", "UPDATE", "DELETE"):
            assert not await db.fetchval(f"SELECT has_table_privilege('{role}', 'realtime.limits', '{privilege}')")
    assert await db.fetchval("SELECT relrowsecurity FROM pg_class WHERE oid = 'realtime.limits'::regclass")


LEAVES = st.one_of(
    st.none().map(lambda _: "'null'::jsonb"),
    st.booleans().map(lambda value: f"to_jsonb({value})"),
    st.tuples(st.integers(0, 131_071), st.integers(0, 16_383)).map(
        lambda n: f"to_jsonb(round('1e{n[0]}'::numeric, {n[1]}))"
    ),
    st.tuples(st.sampled_from(["x", "\\u0001", '\\"', "ü", "😀"]), st.integers(0, 400_000)).map(
        lambda s: f"to_jsonb(repeat('\"{s[0]}\"'::jsonb #>> '{{}}', {s[1]}))"
    ),
)
SHAPES = st.recursive(
    st.tuples(LEAVES, st.integers(1, 40)).map(lambda s: f"(SELECT jsonb_agg({s[0]}) FROM generate_series(1, {s[1]}))"),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: f"jsonb_build_array({', '.join(parts)})"),
        st.tuples(st.integers(0, 3000), inner).map(lambda n: f"jsonb_build_object(repeat('k', {n[0]}), {n[1]})"),
    ),
    max_leaves=4,
)


async def test_whatever_is_accepted_makes_an_event_within_the_limit_and_what_is_refused_would_not(
    db: Connection,
) -> None:
    loop = asyncio.get_running_loop()

    def wait(coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    @settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
    @given(shape=SHAPES)
    def check(shape: str) -> None:
        payload = f"jsonb_build_object('p', {shape})"
        size = wait(db.fetchval(f"SELECT octet_length(({payload})::text)"))
        try:
            made = wait(publish(db, payload))
        except asyncpg.ProgramLimitExceededError:
            assert size > LIMIT
            return
        assert size <= LIMIT
        event = "SELECT octet_length(realtime.event_text(m)) FROM realtime.messages m WHERE id = $1"
        assert wait(db.fetchval(event, made)) <= size + 500

    await asyncio.to_thread(check)


@pytest.fixture
async def store(url: str) -> AsyncIterator[ClientPublisher]:
    """How clients publish."""
    store = ClientPublisher(Database(url, connections=1))
    task = asyncio.create_task(store.coalescer.run())
    await wait_until(lambda: store.coalescer.live)
    yield store
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    ("change", "error", "why"),
    [
        (
            {"payload": json.dumps({"n": ["1e131000"]}).replace('"1e131000"', ",".join(["1e131000"] * 40))},
            PayloadTooLarge,
            "4194304",
        ),
        ({"payload": '{"nul": "\\u0000"}'}, InvalidRequest, "cannot store"),
        ({"payload": "[]"}, InvalidRequest, "JSON object"),
        ({"event": "connect"}, InvalidRequest, "reserved"),
        ({"event": "e" * 256}, InvalidRequest, "256 bytes long"),
        ({"event": "a\x07b"}, InvalidRequest, r"U\+0007"),
        ({"channel": "orders\x85"}, InvalidRequest, r"U\+0085"),
        ({"channel": "x" * 256}, InvalidRequest, "256 bytes long"),
        ({"channel": ""}, InvalidRequest, "empty"),
        ({"channel": "nowhere"}, Unauthorized, "Not allowed"),
        ({"channel": "chat:no-uuid", "identity": ALICE_HERSELF}, Unauthorized, "Not allowed"),
    ],
)
async def test_a_clients_mistake_is_told_as_what_it_is(
    store: ClientPublisher, change: dict[str, Any], error: type[RequestError], why: str
) -> None:
    asked = {"identity": ADMIN, "channel": "orders", "event": "e", "payload": "{}"}
    with pytest.raises(error, match=why) as refused:
        await store.publish(Publication(**{**asked, **change}))
    assert "realtime." not in str(refused.value)
    assert await store.publish(Publication(**asked))  # type: ignore[arg-type]


async def test_a_publish_policy_that_cannot_read_the_name_is_a_no_that_the_operator_can_see(
    store: ClientPublisher,
) -> None:
    with pytest.raises(Unauthorized, match=r"^Not allowed to publish to this channel$") as refused:
        await store.publish(Publication(ALICE_HERSELF, "chat:no-uuid", "e", "{}"))
    assert refused.value.known["reason"] == "a policy could not read a value"
    assert refused.value.known["error"].startswith("22P02 invalid input syntax for type uuid")


async def test_a_subscribe_policy_that_cannot_read_the_name_is_a_no_that_the_operator_can_see(url: str) -> None:
    authorizer = Authorizer(Database(url, connections=1))
    task = asyncio.create_task(authorizer.coalescer.run())
    await wait_until(lambda: authorizer.coalescer.live)
    with pytest.raises(Unauthorized, match=r"^Not allowed to subscribe to this channel$") as refused:
        await authorizer.check_subscribe(ALICE_HERSELF, "order:abc")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert refused.value.known["reason"] == "a policy could not read a value"
    assert refused.value.known["error"].startswith("22P02 invalid input syntax for type uuid")


async def test_the_system_publisher_tells_a_payload_that_is_too_large_from_one_that_is_malformed(url: str) -> None:
    publisher = SystemPublisher(Database(url))
    task = asyncio.create_task(publisher.coalescer.run())
    await wait_until(lambda: publisher.coalescer.live)
    with pytest.raises(PayloadTooLarge, match="4194304 bytes"):
        await publisher.publish([("orders", "e", {"text": "x" * LIMIT})])
    for channel, event in (("x" * 256, "e"), ("orders", "connect"), ("orders", "e\n")):
        with pytest.raises(InvalidRequest):
            await publisher.publish([(channel, event, {})])
    assert await publisher.publish([("orders", "e", {"text": "x" * 1000})])
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_our_refusal_of_what_a_trigger_publishes_is_no_answer_to_the_client(db: Connection) -> None:
    await db.execute(
        "CREATE FUNCTION echo() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS"
        " $$ BEGIN PERFORM realtime.publish('orders', '', '{}'); RETURN NULL; END $$;"
        "CREATE TRIGGER echo AFTER INSERT ON realtime.messages FOR EACH ROW EXECUTE FUNCTION echo()"
    )
    [said] = await db.fetchval(query("publish_as"), ["project_admin"], ["{}"], ["orders"], ["e"], ["{}"])
    assert said == "22023 realtime: the event name is empty"


# ---- names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channel", "event", "why"),
    [
        ("repeat('x', 256)", "'e'", "the channel name is 256 bytes long, and may be 255"),
        ("'a' || chr(10)", "'e'", r"the channel name contains the control character U\+000A"),
        ("'a' || chr(128)", "'e'", r"the channel name contains the control character U\+0080"),
        ("'orders'", "repeat(chr(252), 128)", "the event name is 256 bytes long, and may be 255"),
        ("'orders'", "chr(127)", r"the event name contains the control character U\+007F"),
        ("'orders'", "chr(159)", r"the event name contains the control character U\+009F"),
    ],
)
async def test_a_name_that_the_wire_would_refuse_is_refused_in_sql_with_what_is_wrong(
    db: Connection, channel: str, event: str, why: str
) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError, match=why) as refused:
        await publish(db, "'{}'", channel, event)
    assert "max_name_bytes in realtime.limits" in (refused.value.hint or "")
    await db.execute("GRANT EXECUTE ON FUNCTION repeat(text, int) TO project_admin; SET ROLE project_admin")
    with pytest.raises(asyncpg.InvalidParameterValueError, match=why):
        await db.execute(f"INSERT INTO realtime.messages (channel_name, event_name) VALUES ({channel}, {event})")
    await db.execute("RESET ROLE")


@pytest.mark.parametrize(("channel", "word"), [("NULL", "NULL"), ("''", "empty")])
async def test_a_channel_that_has_no_name_is_warned_of_and_does_not_break_the_write(
    db: Connection, channel: str, word: str
) -> None:
    warnings: list[str] = []
    db.add_log_listener(lambda _, message: warnings.append(f"{message.severity_en} {message.message}"))
    assert await publish(db, "'{}'", channel) is None
    await wait_until(lambda: warnings)
    assert warnings == [f"WARNING realtime.publish: the channel name is {word}, so nothing was published"]


async def test_a_name_of_megabytes_costs_neither_memory_nor_time(db: Connection) -> None:
    await db.execute(
        "INSERT INTO realtime.channels (pattern) SELECT 'other:' || n || ':%' FROM generate_series(1, 300) n"
    )
    backend = await db.fetchval("SELECT pg_backend_pid()")
    await db.execute("SET statement_timeout = '5s'")
    before = peak_of(backend)
    assert await db.fetchval("SELECT realtime.match_channel(repeat('x', 40000)) IS NULL")
    name = "other:1:" + "x" * 4_000_000
    assert await db.fetchval(query("check_subscribe"), ["project_admin"], ["{}"], [name]) == [
        'no\n{"reason":"no such channel"}'
    ]
    [said] = await db.fetchval(query("publish_as"), ["project_admin"], ["{}"], [name], ["e"], ["{}"])
    assert said.startswith("invalid the channel name is 4000008 bytes long")
    assert peak_of(backend) - before < 150_000


def peak_of(process: int) -> int:
    """The most memory that a process has used so far, in kB."""
    status = Path(f"/proc/{process}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


# ---- the ways in which a payload may be given --------------------------------------------------------------


@pytest.mark.parametrize(
    "payload",
    [
        """'{"a": 1}'""",
        """'{"a": 1}'::jsonb""",
        """'{"a": 1}'::json""",
        """'{"a": 1}'::text""",
        """' {"a": 1}'::varchar(20)""",
        "json_build_object('a', 1)",
        "jsonb_build_object('a', 1)",
        "row_to_json(t)",
        "to_jsonb(t)",
        "p_payload => '{\"a\": 1}'",
    ],
)
async def test_an_object_is_published_whatever_type_it_comes_in(db: Connection, payload: str) -> None:
    made = await db.fetchval(f"SELECT realtime.publish('orders', 'e'::varchar, {payload}) FROM (SELECT 1 AS a) t")
    assert json.loads(await db.fetchval("SELECT payload FROM realtime.messages WHERE id = $1", made)) == {"a": 1}


@pytest.mark.parametrize(
    "payload", ["'hello'", "'hello'::text", "''", "'[1]'", "NULL", "NULL::text", "NULL::json", "'1'::json"]
)
async def test_what_is_no_object_is_refused_with_what_to_do(db: Connection, payload: str) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError, match="the payload must be a JSON object") as refused:
        await publish(db, payload)
    assert "jsonb_build_object()" in (refused.value.hint or "")


async def test_a_parameter_without_a_type_may_hold_the_text_of_an_object(db: Connection) -> None:
    assert await db.fetchval("SELECT realtime.publish($1, $2, $3)", "orders", "e", '{"a": 1}')


async def test_a_trigger_may_publish_json_of_its_row(db: Connection) -> None:
    await db.execute(
        "CREATE TABLE things (id int, name varchar(20));"
        "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " PERFORM realtime.publish('orders', NEW.name, row_to_json(NEW)); RETURN NULL; END $$;"
        "CREATE TRIGGER tell AFTER INSERT ON things FOR EACH ROW EXECUTE FUNCTION tell();"
        "INSERT INTO things VALUES (7, 'thing')"
    )
    payload = await db.fetchval("SELECT payload FROM realtime.messages WHERE event_name = 'thing'")
    assert json.loads(payload) == {"id": 7, "name": "thing"}


@pytest.mark.parametrize("kind", ["jsonb", "json", "text"])
async def test_whoever_may_publish_jsonb_may_publish_the_others_and_nobody_else_may(db: Connection, kind: str) -> None:
    call = f"SELECT realtime.publish('orders', 'e', '{{}}'::{kind})"
    await db.execute("SET ROLE authenticated")
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied for function publish"):
        await db.fetchval(call)
    await db.execute("RESET ROLE; GRANT EXECUTE ON FUNCTION realtime.publish(text, text, jsonb) TO authenticated")
    await db.execute("SET ROLE authenticated")
    made = await db.fetchval(call)
    await db.execute("RESET ROLE; REVOKE EXECUTE ON FUNCTION realtime.publish(text, text, jsonb) FROM authenticated")
    assert await db.fetchval("SELECT sender_type FROM realtime.messages WHERE id = $1", made) == "system"


# ---- whatever the session's settings -----------------------------------------------------------------------


async def test_everything_works_where_a_backslash_is_an_escape(cluster: Cluster) -> None:
    url = await cluster.database("empty")
    name = url.rsplit("/", 1)[1]
    await cluster.execute(f"ALTER DATABASE {name} SET standard_conforming_strings = off")
    await migrate(Database(url))
    assert len(await migrate(Database(url))) == 1
    db = await asyncpg.connect(url)
    assert await db.fetchval("SHOW standard_conforming_strings") == "off"
    await db.execute(
        "INSERT INTO realtime.channels (pattern) SELECT 'other:' || n || ':%' FROM generate_series(1, 300) n"
    )
    for pattern, matching in ((r"100\%:%", "100%:x"), ("plain:_", "plain:x"), (r"back\\%", r"back\slash")):
        await db.execute(
            "INSERT INTO realtime.channels (pattern, webhook_urls) VALUES ($1, '{http://a.example/x}')", pattern
        )
        found = await db.fetchval(
            "SELECT pattern FROM realtime.channels WHERE id = realtime.match_channel($1)", matching
        )
        assert found == pattern
        assert await db.fetchval("SELECT realtime.publish($1, 'e', $2::jsonb)", matching, json.dumps({"a": "\\"}))
        [said] = await db.fetchval(query("publish_as"), ["project_admin"], ["{}"], [matching], ["e"], ['{"b": "\\\\"}'])
        assert said.startswith("ok ")
        assert await db.fetchval(query("check_subscribe"), ["project_admin"], ["{}"], [matching]) == ["yes"]
    with pytest.raises(asyncpg.CheckViolationError):
        await db.execute("INSERT INTO realtime.channels (pattern) VALUES ($1)", "odd\\")
    events = await db.fetch("SELECT realtime.event_text(m) AS text FROM realtime.messages m ORDER BY seq")
    assert [json.loads(row["text"])[1].get("a") for row in events] == ["\\", None] * 3
    assert {row["host"] for row in await db.fetch("SELECT host FROM realtime.webhook_deliveries")} == {"a.example"}
    with pytest.raises(asyncpg.InvalidParameterValueError, match="control character"):
        await db.fetchval("SELECT realtime.publish('plain:x', chr(7), '{}')")
    await db.close()
    await cluster.drop(url)


# ---- who sends ---------------------------------------------------------------------------------------------

PLAIN_CAST = """
CREATE OR REPLACE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS
    $$ SELECT (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid $$
"""
OLD_CLAIM = """
CREATE OR REPLACE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS
    $$ SELECT nullif(current_setting('request.jwt.claim.sub', true), '')::uuid $$
"""
CUSTOM = """
CREATE TABLE people (subject text, id uuid); GRANT SELECT ON people TO PUBLIC;
INSERT INTO people VALUES ('auth0|123', 'a11ce000-0000-4000-8000-000000000001');
CREATE OR REPLACE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS $$
    SELECT id FROM people WHERE subject = current_setting('request.jwt.claims', true)::jsonb ->> 'sub' $$
"""
OPEN = "CREATE POLICY open ON realtime.messages FOR INSERT TO authenticated, anon WITH CHECK (channel_name = 'orders')"
TELLS = """
CREATE TABLE told (sub text, role text, email text);
GRANT INSERT ON told TO PUBLIC;
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO told VALUES (
    current_setting('request.jwt.claim.sub'), current_setting('request.jwt.claim.role'),
    current_setting('request.jwt.claim.email'));
    RETURN NULL; END $$;
CREATE TRIGGER tell AFTER INSERT ON realtime.messages FOR EACH ROW EXECUTE FUNCTION tell()
"""


async def senders(db: Connection, *subjects: str | None) -> list[str | None]:
    """Whom the stamp names for clients of these subjects, one after the other in one call."""
    claims = [json.dumps({"sub": subject} if subject else {}) for subject in subjects]
    each = len(subjects)
    said = await db.fetchval(
        query("publish_as"), ["authenticated"] * each, claims, ["orders"] * each, ["e"] * each, ["{}"] * each
    )
    assert [verdict.split()[0] for verdict in said] == ["ok"] * each, said
    rows = await db.fetch("SELECT sender_id::text FROM realtime.messages ORDER BY seq DESC LIMIT $1", each)
    return [row["sender_id"] for row in reversed(rows)]


@pytest.mark.parametrize("definition", [PLAIN_CAST, OLD_CLAIM, "SELECT"], ids=["plain cast", "old claim", "ours"])
async def test_a_subject_that_is_no_uuid_publishes_without_a_sender(db: Connection, definition: str) -> None:
    await db.execute(definition + ";" + OPEN)
    named = await senders(db, "user_2abc", ALICE, "auth0|123", None, ALICE.upper())
    assert named == [None, ALICE, None, None, ALICE]


async def test_the_answer_of_an_auth_uid_that_knows_better_is_what_counts(db: Connection) -> None:
    await db.execute(CUSTOM + ";" + OPEN)
    assert await senders(db, "auth0|123", "auth0|456", ALICE) == [ALICE, None, None]


async def test_a_role_that_may_not_use_the_schema_auth_sends_as_its_claims_say(db: Connection) -> None:
    await db.execute(f"REVOKE USAGE ON SCHEMA auth FROM authenticated, PUBLIC; {OPEN}")
    assert await senders(db, ALICE, "user_2abc", None) == [ALICE, None, None]


async def test_an_auth_uid_that_forbids_is_obeyed(db: Connection) -> None:
    await db.execute(
        "CREATE OR REPLACE FUNCTION auth.uid() RETURNS uuid LANGUAGE plpgsql STABLE AS"
        " $$ BEGIN RAISE 'banned' USING ERRCODE = 'insufficient_privilege'; END $$;" + OPEN
    )
    [said] = await db.fetchval(query("publish_as"), ["authenticated"], ["{}"], ["orders"], ["e"], ["{}"])
    assert said.startswith("no 42501 banned\n")
    assert await db.fetchval("SELECT count(*) FROM realtime.messages") == 0


async def test_the_claims_of_one_client_are_gone_when_the_next_is_judged(db: Connection) -> None:
    await db.execute(TELLS + ";" + OPEN)
    claims = [
        {"sub": "a", "role": "authenticated", "email": "a@example.com"},
        {},
        {"sub": "b"},
        {"email": "c@example.com"},
    ]
    roles = ["authenticated", "anon", "authenticated", "authenticated"]
    texts = [json.dumps(claim) for claim in claims]
    await db.fetchval(query("publish_as"), roles, texts, ["orders"] * 4, ["e"] * 4, ["{}"] * 4)
    assert [tuple(row) for row in await db.fetch("SELECT * FROM told")] == [
        ("a", "authenticated", "a@example.com"),
        ("", "", ""),
        ("b", "", ""),
        ("", "", "c@example.com"),
    ]
    left = "current_setting('request.jwt.claim.sub', true) || current_setting('request.jwt.claim.email', true)"
    assert not await db.fetchval(f"SELECT {left}")


async def test_subscribe_policies_read_the_old_claims_too(db: Connection) -> None:
    await db.execute(
        "CREATE POLICY old ON realtime.channels FOR SELECT TO authenticated"
        " USING (pattern = 'chat:%' AND current_setting('request.jwt.claim.sub') = 'user_2abc')"
    )
    texts = [json.dumps({"sub": subject}) for subject in ("user_2abc", "user_3def")]
    verdicts = await db.fetchval(query("check_subscribe"), ["authenticated"] * 2, texts, [f"chat:{ROOM}"] * 2)
    assert [verdict.split()[0] for verdict in verdicts] == ["yes", "no"]
