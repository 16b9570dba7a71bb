"""No name that our SQL uses means what somebody else has made of it, whatever search_path it is called under; and what an
application has written (policies, triggers on realtime.messages, auth.uid()) goes on running under the path that it needs.

The schema `hostile` has a twin of every function, operator and type of PostgreSQL's own, which raises when it is called.
Under `search_path = hostile, pg_catalog`, whoever forgets to qualify a name calls the twin.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

from insforge_realtime import pg
from insforge_realtime.pg.database import Database
from insforge_realtime.pg.demo import ALICE, BOBS_ORDER, ROOM
from insforge_realtime.pg.queries import queries, query, sql_file
from support.databases import Cluster

SQL = Path(pg.__file__).parent / "sql"

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

CLAIMS = json.dumps({"sub": ALICE, "role": "authenticated", "email": "alice@example.com"})
SAFE = {"search_path=pg_catalog, pg_temp"}

WITHOUT_A_PATH = {
    "realtime.become(text,text,jsonb,text)": "is taken in by its callers' plans",
    "realtime.channel_name()": "is taken in by the plans of policies",
    "realtime.check_subscribe(text[],text[],text[])": "policies run in it",
    "realtime.count_literals(text)": "is taken in by its callers' plans",
    "realtime.compose_event(text,text,text,uuid,text,uuid,timestamp with time zone)": "is taken in by its callers' plans",
    "realtime.event_payload(jsonb)": "is taken in by its callers' plans",
    "realtime.insert_as(text,text,text,text,text,jsonb)": "policies and triggers run in it",
    "realtime.is_name(text)": "is taken in by its callers' plans",
    "realtime.is_small(jsonb)": "is taken in by its callers' plans",
    "realtime.is_two_phase()": "is taken in by its callers' plans",
    "realtime.is_well_formed(text,jsonb)": "is taken in by its callers' plans",
    "realtime.judge_subscribe(text,text,text,uuid)": "policies run in it",
    "realtime.literal_prefix(text)": "an index calls it",
    "realtime.match_channel(text)": "does nothing but call a function that has one",
    "realtime.new_id()": "is taken in by its callers' plans",
    "realtime.publish(text,text,json)": "is taken in by its callers' plans",
    "realtime.publish(text,text,jsonb)": "triggers run in it",
    "realtime.publish(text,text,text)": "is taken in by its callers' plans",
    "realtime.publish_as(text[],text[],text[],text[],text[])": "policies and triggers run in it",
    "realtime.publish_lists(integer[],text[],text[],text[])": "triggers run in it",
    "realtime.ring()": "is called for every statement that inserts",
    "realtime.stamp_message()": "is called for every message of a client",
    "realtime.stamp_sender()": "auth.uid() runs in it",
}
"""Functions that run under their caller's search_path, each with the reason; all their names are qualified."""

SOW = """
CREATE SCHEMA hostile;
DO $sow$
DECLARE
    v_ddl text;
BEGIN
    FOR v_ddl IN
        SELECT format('CREATE FUNCTION hostile.%I(%s) RETURNS %s%s LANGUAGE internal AS ''any_in''', proname,
            (SELECT string_agg(concat(CASE WHEN n = pronargs AND provariadic <> 0 THEN 'VARIADIC ' END, t::regtype),
                               ', ' ORDER BY n) FROM unnest(proargtypes) WITH ORDINALITY AS a (t, n)),
            CASE WHEN proretset THEN 'SETOF ' END, format_type(prorettype, NULL))
        FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND prorettype <> ALL ('{internal, trigger}'::regtype[])
          AND NOT proargtypes::oid[]::regtype[] && '{internal, cstring}' AND proname <> 'anytextcat'
        UNION ALL
        SELECT format('CREATE FUNCTION hostile.operator_%1$s(%2$s%3$s) RETURNS %4$s LANGUAGE internal AS ''any_in'';
                       CREATE OPERATOR hostile.%5$s (%6$sRIGHTARG = %3$s, FUNCTION = hostile.operator_%1$s)', o.oid,
            CASE WHEN oprleft <> 0 THEN format_type(oprleft, NULL) || ', ' END, format_type(oprright, NULL),
            format_type(oprresult, NULL), oprname,
            CASE WHEN oprleft <> 0 THEN format('LEFTARG = %s, ', format_type(oprleft, NULL)) END)
        FROM pg_operator o WHERE oprnamespace = 'pg_catalog'::regnamespace
    LOOP
        EXECUTE v_ddl;
    END LOOP;
    FOR v_ddl IN
        SELECT format('CREATE DOMAIN hostile.%1$I AS pg_catalog.%1$I CHECK (false)', typname) FROM pg_type
        WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype = 'b' AND typname !~ '^(_|pg_)'
    LOOP
        EXECUTE v_ddl;
    END LOOP;
END
$sow$;
GRANT USAGE ON SCHEMA hostile TO PUBLIC;
"""
"""`any_in` raises for any argument."""

UID = """
CREATE OR REPLACE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE SET search_path = pg_catalog AS
    $$ SELECT (current_setting('request.jwt.claims')::jsonb ->> 'sub')::uuid $$;
"""
"""An auth.uid() as it should be written: the one thing here that is not ours, and would call twins as the client."""


@pytest.fixture
async def url(cluster: Cluster) -> AsyncIterator[str]:
    """A demo database of the test's own."""
    url = await cluster.database("demo")
    yield url
    await cluster.drop(url)


@pytest.fixture
async def hostile(url: str) -> AsyncIterator[Connection]:
    """A connection of the owner's for which every unqualified name leads to a twin."""
    connection = await asyncpg.connect(url)
    await connection.execute("DELETE FROM realtime.messages")
    await connection.execute(SOW + UID)
    twins = await connection.fetchval("SELECT count(*) FROM pg_proc WHERE pronamespace = 'hostile'::regnamespace")
    assert twins > 3000
    await connection.execute("SET search_path = hostile, pg_catalog")
    yield connection
    await connection.close()


async def without_a_path(connection: Connection) -> dict[str, str]:
    """The functions of the schema that have no safe search_path of their own, and their bodies."""
    rows = await connection.fetch(
        "SELECT oid::regprocedure::text AS name, coalesce(proconfig, '{}') AS settings, prosrc AS body"
        " FROM pg_proc WHERE pronamespace = 'realtime'::regnamespace"
    )
    return {row["name"]: row["body"] for row in rows if not SAFE & set(row["settings"])}


async def test_every_function_has_a_path_of_its_own_or_a_reason_to_have_none(url: str) -> None:
    connection = await asyncpg.connect(url)
    assert set(await without_a_path(connection)) == set(WITHOUT_A_PATH)
    await connection.close()


# ---- what is unqualified -----------------------------------------------------------------------------------

QUALIFIED = r"OPERATOR\(pg_catalog\.[^)]+\)|pg_catalog\.\w+|realtime\.\w+|auth\.\w+|\w+\.\w+"
SYNTAX = {
    "coalesce", "least", "greatest", "array", "exists", "values", "any", "all", "in", "and", "or", "not", "case", "when",
    "if", "then", "else", "into", "insert", "messages", "select", "return",
    "perform", "where",
}  # fmt: skip
"""What may stand before a parenthesis without being a function."""


def unqualified(body: str) -> list[str]:
    """Whatever in a body is looked up by the search_path: calls, operators, types, and the syntax that hides operators."""
    text = re.sub(r"--[^\n]*", "", body)
    text = re.sub(r"\$q\$.*?\$q\$|'(?:[^']|'')*'", "?", text)
    found = re.findall(r"\b(?:NULLIF|LIKE|ILIKE|BETWEEN|SIMILAR|DISTINCT)\b|\bCASE\b(?!\s+WHEN)|(?<!\w)NOT IN\b", text)
    found += re.findall(r"\bIN\b(?! (?:ARRAY p_sizes|1 \.\.|v_next \.\.))", text)
    text = re.sub(r"(?:FOREACH?|FOR) \w+ IN", "", text)
    found += re.findall(r"::(?!pg_catalog\.|bigint|integer|int\b)\S+", text)
    found += [
        kind
        for kind in re.findall(r"^\s+v_\w+ ([\w.]+)", text, re.MULTILINE)
        if "." not in kind and kind not in {"integer", "bigint", "boolean"}
    ]
    text = re.sub(QUALIFIED, "", text)
    found += [
        call for call in re.findall(r"(?<![\w.])([a-z_]\w*)\s*\(", text, re.IGNORECASE) if call.lower() not in SYNTAX
    ]
    text = re.sub(r":=|::|\.\.|, -1\b|(?:ERRCODE|CONSTRAINT|HINT|v_mark) =", "", text)
    found += re.findall(r"[-+*/<>=~!@#%^&|]+", text)
    return found


def test_the_search_for_unqualified_names_finds_them() -> None:
    assert unqualified("SELECT length(x) FROM t WHERE a = b AND c LIKE 'x' AND d::text IN (1)") == [
        "LIKE", "IN", "::text", "length", "=",
    ]  # fmt: skip
    assert unqualified("SELECT CASE x WHEN 1 THEN nullif(a, b) END || c") == ["CASE", "nullif", "||"]
    assert unqualified("DECLARE\n    v_x text;\n") == ["text"]


async def test_bodies_that_run_under_the_callers_path_are_qualified_to_the_last_name(url: str) -> None:
    connection = await asyncpg.connect(url)
    bodies = await without_a_path(connection)
    assert {name: found for name, body in bodies.items() if (found := unqualified(body))} == {}
    await connection.close()


# ---- under a hostile path ----------------------------------------------------------------------------------


async def test_the_twins_are_what_an_unqualified_name_leads_to(hostile: Connection) -> None:
    for expression in ("cardinality('{}'::pg_catalog.int4[])", "1 = 1", "'x'::text", "pg_catalog.lower('x') || 'y'"):
        with pytest.raises((asyncpg.FeatureNotSupportedError, asyncpg.CheckViolationError)):
            await hostile.fetchval(f"SELECT {expression}")


async def test_requests_of_all_roles_are_judged_under_a_hostile_path(hostile: Connection) -> None:
    roles = ["authenticated", "anon", "project_admin", "authenticated", "authenticated", "authenticated"]
    names = ["orders", "orders", "orders", f"order:{BOBS_ORDER}", "nowhere", "order:no-uuid"]
    asked = [CLAIMS, "{}", "{}", CLAIMS, CLAIMS, CLAIMS]
    verdicts = await hostile.fetchval(query("check_subscribe"), roles, asked, names)
    assert [verdict.partition("\n")[0][:8] for verdict in verdicts] == ["yes", "no", "yes", "no", "no", "no 22P02"]
    reasons = [json.loads(verdict.partition("\n")[2] or '{"reason": ""}')["reason"] for verdict in verdicts]
    assert [reason.partition(" ")[0] for reason in reasons] == ["", "no", "", "the", "no", "a"]


async def test_clients_publish_under_a_hostile_path(hostile: Connection) -> None:
    room = f"chat:{ROOM}"
    await hostile.execute(
        "CREATE POLICY guests ON realtime.messages FOR INSERT TO anon WITH CHECK (true);"
        "UPDATE realtime.channels SET webhook_urls = '{http://127.0.0.1:1/a, http://127.0.0.1:1/b}' WHERE true"
    )
    asked = [
        ("authenticated", CLAIMS, room, "e", '{"n":1}'),
        ("anon", "{}", room, "e", "{}"),
        ("project_admin", "{}", room, "e", "{}"),
        ("authenticated", CLAIMS, "nowhere", "e", "{}"),
        ("authenticated", CLAIMS, room, "connect", "{}"),
        ("authenticated", CLAIMS, room, "e", "[]"),
        ("authenticated", CLAIMS, room, "e", "not json"),
        ("authenticated", CLAIMS, "x" * 300, "e", "{}"),
        ("authenticated", CLAIMS, "chat:no-uuid", "e", "{}"),
    ]
    verdicts = await hostile.fetchval(query("publish_as"), *([item[i] for item in asked] for i in range(5)))
    words = ["ok", "ok", "ok", "no", "invalid", "invalid", "invalid", "invalid", "no"]
    assert [verdict.split()[0] for verdict in verdicts] == words, verdicts
    rows = await hostile.fetch("SELECT sender_id, wh_audience_count FROM realtime.messages ORDER BY seq")
    assert [(str(row["sender_id"]), row["wh_audience_count"]) for row in rows] == [(ALICE, 2), ("None", 2), ("None", 2)]


@pytest.mark.parametrize("payload", ['{"a": 1}', '{"a": 1}::json', '{"a": 1}::jsonb', '{"a": 1}::text'])
async def test_triggers_publish_under_a_hostile_path(hostile: Connection, payload: str) -> None:
    literal, _, kind = payload.partition("::")
    cast = f"::pg_catalog.{kind}" if kind else ""
    made = await hostile.fetchval(f"SELECT realtime.publish('orders', 'e', '{literal}'{cast})")
    text = await hostile.fetchval("SELECT realtime.event_text(m) FROM realtime.messages m")
    event, data = json.loads(text)
    assert (event, data["a"], data["meta"]["messageId"]) == ("e", 1, str(made))


async def test_what_publish_refuses_is_refused_for_its_reason_under_a_hostile_path(hostile: Connection) -> None:
    for arguments, why in {
        "'orders', 'connect', '{}'": "reserved",
        "'orders', '', '{}'": "empty",
        "pg_catalog.repeat('x', 300), 'e', '{}'": "300 bytes",
        "'orders', pg_catalog.repeat('x', 300), '{}'": "300 bytes",
        "'orders', 'e', '[]'": "JSON object",
        "'orders', 'e', '[]'::pg_catalog.jsonb": "JSON object",
    }.items():
        with pytest.raises(asyncpg.InvalidParameterValueError, match=why):
            await hostile.fetchval(f"SELECT realtime.publish({arguments})")
    assert await hostile.fetchval("SELECT realtime.publish(NULL, 'e', '{}') IS NULL")
    big = "pg_catalog.jsonb_build_object('a', pg_catalog.repeat('x', 5000000))"
    with pytest.raises(asyncpg.ProgramLimitExceededError, match="larger than 4194304 bytes"):
        await hostile.fetchval(f"SELECT realtime.publish('orders', 'e', {big})")


async def test_names_are_matched_among_thousands_under_a_hostile_path(hostile: Connection) -> None:
    many = "SELECT pg_catalog.concat('other:', n, ':%') FROM pg_catalog.generate_series(1, 300) n"
    await hostile.execute(f"INSERT INTO realtime.channels (pattern) {many}")
    found = await hostile.fetchval("SELECT realtime.match_channel('other:77:x')")
    wanted = "SELECT id FROM realtime.channels WHERE pattern OPERATOR(pg_catalog.=) 'other:77:%'"
    assert found == await hostile.fetchval(wanted)


async def test_lists_are_published_under_a_hostile_path(hostile: Connection) -> None:
    # Sizes as a literal: for int[] asyncpg asks the catalog, with unqualified names of its own.
    statement = (
        query("publish_lists").replace("$1", "'{2, 1}'").replace("$2", "$1").replace("$3", "$2").replace("$4", "$3")
    )
    names, events = ["orders", "nowhere", "orders"], ["e", "e", "connect"]
    verdicts = await hostile.fetchval(statement, names, events, ["{}", "{}", "{}"])
    good, bad = (json.loads(verdict) for verdict in verdicts)
    assert [made is None for made in good["ids"]] == [False, True]
    assert (bad["state"], bad["mark"]) == ("22023", "realtime_invalid")


async def test_a_ring_is_heard_under_a_hostile_path(hostile: Connection, url: str) -> None:
    other = await asyncpg.connect(url)
    rings: list[object] = []
    await other.add_listener("realtime", lambda *message: rings.append(message[-1]))
    await hostile.fetchrow(query("take_ticket"))
    await hostile.fetchval("SELECT realtime.publish('orders', 'e', '{}')")
    await hostile.fetchval(query("is_rung"), 1)
    await other.fetchval("SELECT 1")
    await other.close()
    assert rings


ON_A_FIXED_PATH = {
    "database_encoding", "migrate_limits", "lock_shortly", "may_lock", "lock_obstacles", "auth_uid_exists",
    "is_two_phase", "path_of_our_own", "arrays_that_we_send", "look", "mark_undeliverable", "find_witnesses",
    "server_life", "wal_position", "flush_wal", "limit_statements", "limit_statements_here", "migrations_applied",
    "create_schema_migrations", "record_migration", "tables_without_rls", "migrator", "change_some_order", "begin",
    "begin_writing", "is_adoption", "demo_objects", "migrate_lacks", "lock_migrations", "lock_table", "was_migrated",
    "is_needed", "try_out",
}  # fmt: skip
"""Statements of connections whose search_path the server sets, since nobody else's code runs there."""


def statements() -> dict[str, str]:
    """The named statements that run under the session's search_path, which triggers and policies need."""
    return {
        name: text
        for name, text in queries().items()
        if name not in ON_A_FIXED_PATH and not name.startswith(("examine_", "plan_", "probe_", "settle_"))
    }


SOW_BETTER_FITTING = """
DO $sow$
DECLARE
    v_ddl text;
BEGIN
    FOR v_ddl IN
        SELECT format('CREATE FUNCTION public.twin_%1$s(%2$s, %3$s) RETURNS boolean LANGUAGE internal AS ''any_in'';
                       CREATE OPERATOR public.%4$s (LEFTARG = %2$s, RIGHTARG = %3$s, FUNCTION = public.twin_%1$s)',
                      row_number() OVER (), l, r, op)
        FROM unnest('{+,-,*,/,||,=,<>,<,>,<=,>=,->,->>}'::text[]) op,
             unnest('{$types$}'::regtype[]) l, unnest('{$types$}'::regtype[]) r
        WHERE NOT EXISTS (SELECT FROM pg_operator WHERE oprname = op AND oprleft = l AND oprright = r)
    LOOP
        EXECUTE v_ddl;
    END LOOP;
END
$sow$;
"""
TYPES = (
    "int2 int4 int8 float4 float8 numeric text varchar name json jsonb uuid timestamptz date interval xid8 oid boolean"
)
"""In `public`: an operator for each pair of types for which PostgreSQL has none of its own, but may convert one of them."""

LEASE = [1], [7]
STATEMENTS: dict[str, tuple[object, ...]] = {
    "session_standing": (),
    "set_one": ("realtime.anything", "x", True),
    "now_snapshot": (),
    "heal_future_xids": (),
    "take_ticket": (),
    "barrier": (),
    "is_rung": (1,),
    "call": (1,),
    "answer_ring": (1,),
    "check_subscribe": (["authenticated"], [CLAIMS], ["orders"]),
    "publish_as": (["authenticated"], [CLAIMS], [f"chat:{ROOM}"], ["e"], ["{}"]),
    "publish_lists": ([1], ["orders"], ["e"], ["{}"]),
    "count_audience": ([1], [1]),
    "claim_deliveries": (10, 7, 30.0, 5, [], [], 0.0, 0.0),
    "mend_times": (10,),
    "say_which_networks": (1, 2),
    "decline_deliveries": (*LEASE, ["pending"], [0.0], ["refused"], 2, 1, ["h"], [3]),
    "finish_deliveries": (*LEASE, ["delivered"], [0.0], [200], [None], ["ok"], [0.1], [0.1]),
    "release_deliveries": LEASE,
    "list_deliveries": (None, None, None, 10),
    "retry_deliveries": (None, "http", "failed"),
    "cancel_deliveries": (None, "http", "pending"),
}


async def test_every_statement_beside_others_code_runs_where_public_has_better_fitting_operators(url: str) -> None:
    """Under the path that databases have, PostgreSQL's own come first, and only what fits better is preferred to them."""
    assert set(STATEMENTS) == set(statements())
    owner = await asyncpg.connect(url)
    await owner.execute(SOW_BETTER_FITTING.replace("$types$", ",".join(TYPES.split())) + UID)
    await owner.close()
    connection = await Database(url).connect("test")
    await connection.execute("UPDATE realtime.channels SET webhook_urls = '{http://127.0.0.1:1}'")
    with pytest.raises(asyncpg.FeatureNotSupportedError):
        await connection.fetchval("SELECT 1.5::float8 * 1000")
    order = [name for name in STATEMENTS if name != "claim_deliveries"]
    for name in (*order[:12], "claim_deliveries", *order[12:]):
        await connection.fetch(query(name), *STATEMENTS[name])
    assert await connection.fetchval("SELECT count(*) FROM realtime.messages WHERE wh_audience_count = 1") == 2
    await connection.close()


def test_no_statement_beside_others_code_calls_an_unqualified_function() -> None:
    words = SYNTAX | {"extract", "over", "as", "from", "order", "materialized", "lateral", "operator"}
    words.add("unnest")  # of several arrays: syntax, and PostgreSQL's own

    for name, text in statements().items():
        bare = re.sub(r"--[^\n]*|'(?:[^']|'')*'| AS \w+ \([\w, ]*\)", "", text)
        calls = re.findall(r"(?<![\w.\"])([a-z_]\w*) ?\(", bare, re.IGNORECASE)
        assert [call for call in calls if call.lower() not in words] == [], name


# ---- what must go on working -------------------------------------------------------------------------------

THEIRS = """
CREATE TABLE public.told (event text, who text);
GRANT INSERT, SELECT ON told TO PUBLIC;
CREATE FUNCTION public.tell() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO told VALUES (NEW.event_name, current_user); RETURN NULL; END $$;
CREATE TRIGGER tell AFTER INSERT ON realtime.messages FOR EACH ROW EXECUTE FUNCTION tell();
CREATE FUNCTION public.subject() RETURNS uuid LANGUAGE sql STABLE AS
    $$ SELECT (current_setting('request.jwt.claims', true)::jsonb ->> 'sub')::uuid $$;
CREATE OR REPLACE FUNCTION auth.uid() RETURNS uuid LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN subject(); END $$;
CREATE FUNCTION public.may() RETURNS boolean LANGUAGE plpgsql STABLE AS
    $$ BEGIN RETURN EXISTS (SELECT FROM chat_members WHERE user_id = auth.uid()); END $$;
CREATE POLICY may ON realtime.channels FOR SELECT TO authenticated USING (pattern = 'chat:%' AND may());
CREATE POLICY may ON realtime.messages FOR INSERT TO authenticated WITH CHECK (channel_name LIKE 'chat:%' AND may());
"""
"""What applications write: none of it says which schema it means."""


async def test_triggers_policies_and_auth_uid_may_use_unqualified_names_of_public(url: str) -> None:
    connection = await asyncpg.connect(url)
    room = f"chat:{ROOM}"
    await connection.execute(THEIRS)
    assert await connection.fetchval("SELECT realtime.publish('orders', 'system', '{}')")
    subscribed = await connection.fetchval(query("check_subscribe"), ["authenticated"], [CLAIMS], [room])
    assert subscribed == ["yes"]
    [said] = await connection.fetchval(query("publish_as"), ["authenticated"], [CLAIMS], [room], ["user"], ["{}"])
    assert said.startswith("ok ")
    assert str(await connection.fetchval("SELECT sender_id FROM realtime.messages WHERE event_name = 'user'")) == ALICE
    told = [tuple(row) for row in await connection.fetch("SELECT event, who FROM told ORDER BY event")]
    assert told == [("system", "postgres"), ("user", "authenticated")]
    await connection.close()


async def test_a_better_fitting_function_in_public_never_runs_as_the_server(url: str, cluster: Cluster) -> None:
    connection = await asyncpg.connect(url)
    mallory = f"mallory_{url.rsplit('/', 1)[1]}"
    await connection.execute(f"CREATE ROLE {mallory}; GRANT CREATE ON SCHEMA public TO {mallory}; SET ROLE {mallory}")
    for call, returns in (
        ("cardinality(text[])", "int"), ("left(text, int)", "text"), ("concat(text, text)", "text"), ("lower(text)", "text"),
        ("jsonb_typeof(jsonb)", "text"), ("btrim(text, text)", "text"), ("array_append(text[], text)", "text[]"),
        ("to_json(text)", "json"), ("unnest(text[])", "text"),
    ):  # fmt: skip
        await connection.execute(
            f"CREATE FUNCTION public.{call} RETURNS {returns} LANGUAGE plpgsql AS"
            f" $$ BEGIN RAISE 'pwned as %', current_user; END $$"
        )
    await connection.execute("RESET ROLE")
    room = f"chat:{ROOM}"
    assert await connection.fetchval(query("check_subscribe"), ["authenticated"], [CLAIMS], ["orders"]) == ["yes"]
    [said] = await connection.fetchval(query("publish_as"), ["authenticated"], [CLAIMS], [room], ["e"], ["{}"])
    assert said.startswith("ok ")
    assert await connection.fetchval("SELECT realtime.publish('orders', 'e', '{}')")
    [listed] = await connection.fetchval(query("publish_lists"), [1], ["orders"], ["e"], ["{}"])
    assert "ids" in json.loads(listed)
    assert await connection.fetchval("SELECT count(realtime.event_text(m)) FROM realtime.messages m") >= 3
    await connection.close()
    await cluster.drop(url)
    await cluster.execute(f"DROP ROLE {mallory}")


async def test_auth_uid_is_asked_as_the_client_and_never_as_the_server(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(
        "CREATE OR REPLACE FUNCTION auth.uid() RETURNS uuid LANGUAGE plpgsql STABLE AS"
        f" $$ BEGIN RETURN CASE current_user WHEN 'project_admin' THEN '{ALICE}'::uuid END; END $$"
    )
    [said] = await connection.fetchval(query("publish_as"), ["project_admin"], ["{}"], ["orders"], ["asked"], ["{}"])
    assert said.startswith("ok ")
    sender = await connection.fetchval("SELECT sender_id FROM realtime.messages WHERE event_name = 'asked'")
    assert str(sender) == ALICE
    await connection.close()


# ---- the files ---------------------------------------------------------------------------------------------

FILES = sorted(str(file.relative_to(SQL)) for file in SQL.rglob("*.sql"))


@pytest.mark.parametrize("name", FILES)
def test_what_is_sent_to_the_database_is_plain_ascii(name: str) -> None:
    """A database in another encoding than UTF-8 could not store, or not even read, anything else."""
    assert [line for line in sql_file(name).splitlines() if not line.isascii()] == []


def test_no_literal_of_a_function_has_a_backslash_in_quotes() -> None:
    """There it is an escape, or none, as the session's standard_conforming_strings will have it."""
    for name in ("functions.sql", "judges.sql"):
        text = re.sub(r"--[^\n]*", "", sql_file(name))
        text = re.sub(r"\$q\$.*?\$q\$", "", text)
        assert "\\" not in text, name
