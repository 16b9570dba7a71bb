"""Subscribe, publish, presence and life, against a real server process and a real database, frame by frame."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import pytest

from insforge_realtime.pg.database import Database
from insforge_realtime.pg.demo import ALICE, ALICES_ORDER, BOB, BOBS_ORDER, ROOM
from insforge_realtime.pg.migrate import migrate
from insforge_realtime.pg.queries import sql_file
from support.databases import free_port, running_cluster, wait_until
from support.raw import RawClient
from support.servers import ANON_KEY, API_KEY, Server, token
from support.wire import WireClient

Start = Callable[..., Server]
OPEN = """
    INSERT INTO realtime.channels (pattern) VALUES ('open:%');
    CREATE POLICY open_subscribe ON realtime.channels FOR SELECT TO anon, authenticated USING (pattern = 'open:%');
    CREATE POLICY open_publish ON realtime.messages FOR INSERT TO authenticated WITH CHECK (channel_name LIKE 'open:%');
"""


def client(server: Server, subject: str | None = ALICE, **claims: Any) -> WireClient:
    return WireClient(server.ws_url, {"token": token(subject, **claims)})


@asynccontextmanager
async def sql(dsn: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        connection.terminate()


def health(server: Server) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"{server.url}/api/health", timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


async def nobody_is_left(server: Server) -> None:
    await wait_until(lambda: health(server)[1]["feed"]["connections"] == 0)
    await wait_until(lambda: health(server)[1]["feed"]["channels"] == 0)


async def test_a_subscribe_and_a_publish_sent_back_to_back_work(demo: str, start: Start) -> None:
    server = start(demo)
    async with client(server) as alice:
        subscribing = asyncio.create_task(alice.subscribe(f"chat:{ROOM}"))
        await asyncio.sleep(0)
        publishing = asyncio.create_task(alice.publish(f"chat:{ROOM}", "hello", {"n": 1}))
        assert (await subscribing)["ok"]
        answer = await publishing
        assert answer["ok"], answer
        [message] = await alice.wait_for("hello")
        assert message["meta"]["messageId"] == answer["messageId"]
        assert message["meta"]["senderId"] == ALICE


@pytest.mark.parametrize("goodbye", ["41", "1", None], ids=["disconnect", "close", "the socket"])
async def test_what_was_published_before_a_client_left_is_published(
    demo: str, start: Start, goodbye: str | None
) -> None:
    server, channel = start(demo), f"chat:{ROOM}"
    async with client(server, BOB) as witness:
        await witness.subscribe(channel)
        leaver = await RawClient.connect(server.ws_url, {"token": token(ALICE)})
        leaver.emit("realtime:subscribe", {"channel": channel})
        for n in range(5):
            leaver.emit("realtime:publish", {"channel": channel, "event": "parting", "payload": {"n": n}})
        leaver.emit("realtime:unsubscribe", {"channel": channel})
        if goodbye is not None:
            leaver.send(goodbye)
        leaver.transport.close()
        assert [message["n"] for message in await witness.wait_for("parting", 5)] == [0, 1, 2, 3, 4]
        await wait_until(lambda: health(server)[1]["feed"]["connections"] == 1)
        assert (await witness.subscribe(channel))["presence"]["members"][0]["presenceId"] == BOB
        assert server.errors() == []


async def test_the_ack_of_a_subscribe_comes_before_any_event_of_its_channel(demo: str, start: Start) -> None:
    server = start(demo)
    async with sql(demo) as database:
        writing = True

        async def write() -> None:
            while writing:
                await database.execute("UPDATE orders SET total = total + 1 WHERE id = $1", ALICES_ORDER)

        writer = asyncio.create_task(write())
        for _ in range(30):
            async with client(server) as alice:
                assert (await alice.subscribe(f"order:{ALICES_ORDER}"))["ok"]
                await alice.wait_for("UPDATE_order")
                kinds = [packet[:2] for packet in alice.packets if packet[0] == "4"]
                assert kinds[0] == "43", kinds[:3]
        writing = False
        await writer


async def test_subscribing_twice_gives_a_fresh_snapshot_and_no_second_join(demo: str, start: Start) -> None:
    server = start(demo)
    async with client(server) as alice, client(server, BOB) as bob:
        await alice.subscribe(f"chat:{ROOM}")
        first = await bob.subscribe(f"chat:{ROOM}")
        again = await bob.subscribe(f"chat:{ROOM}")
        assert [member["presenceId"] for member in first["presence"]["members"]] == [ALICE, BOB]
        assert again["presence"] == first["presence"]
        assert [member["type"] for member in again["presence"]["members"]] == ["user", "user"]
        [join] = await alice.wait_for("presence:join")
        assert join["member"]["presenceId"] == BOB
        assert join["meta"]["channel"] == f"chat:{ROOM}"
        await bob.emit("realtime:unsubscribe", {"channel": f"chat:{ROOM}"})
        await alice.wait_for("presence:leave")
        assert len(alice.named("presence:join")) == 1
        assert bob.named("presence:join") == []


async def test_a_member_with_two_sockets_is_one_member(demo: str, start: Start) -> None:
    server = start(demo)
    async with client(server) as alice:
        await alice.subscribe(f"chat:{ROOM}")
        async with client(server, BOB) as bob:
            async with client(server, BOB) as bobs_phone:
                await bob.subscribe(f"chat:{ROOM}")
                snapshot = await bobs_phone.subscribe(f"chat:{ROOM}")
                assert [member["presenceId"] for member in snapshot["presence"]["members"]] == [ALICE, BOB]
            # The phone is gone, Bob is not: whatever the others hear next must not be his leaving.
            await bob.publish(f"chat:{ROOM}", "still_here", {})
            await alice.wait_for("still_here")
            assert alice.named("presence:leave") == []
        await alice.wait_for("presence:leave")
        assert [name for name, _ in alice.events] == ["presence:join", "still_here", "presence:leave"]


async def test_a_publish_to_a_channel_one_has_not_joined_is_refused(demo: str, start: Start) -> None:
    server = start(demo)
    async with client(server) as alice:
        answer = await alice.publish(f"chat:{ROOM}", "hello", {})
        assert answer["error"]["code"] == "NOT_SUBSCRIBED"
        await alice.emit("realtime:publish", {"channel": f"chat:{ROOM}", "event": "hello", "payload": {}})
        [error] = await alice.wait_for("realtime:error")
        assert (error["channel"], error["code"]) == (f"chat:{ROOM}", "NOT_SUBSCRIBED")


async def test_a_client_is_refused_by_policy_and_told_so(demo: str, start: Start) -> None:
    server = start(demo)
    async with client(server) as alice, WireClient(server.ws_url, {"token": ANON_KEY}) as anon:
        for who, channel in (
            (alice, f"order:{BOBS_ORDER}"),
            (anon, f"order:{ALICES_ORDER}"),
            (alice, "no such channel"),
        ):
            answer = await who.subscribe(channel)
            assert answer == {
                "ok": False,
                "channel": channel,
                "error": {"code": "UNAUTHORIZED", "message": "Not allowed to subscribe to this channel"},
            }


async def test_a_project_admin_may_do_everything_by_policy(demo: str, start: Start) -> None:
    server = start(demo)
    async with WireClient(server.ws_url, {"apiKey": API_KEY}) as admin, client(server, BOB) as bob:
        await bob.subscribe(f"order:{BOBS_ORDER}")
        assert (await admin.subscribe(f"order:{BOBS_ORDER}"))["ok"]
        assert (await admin.publish(f"order:{BOBS_ORDER}", "note", {"text": "on its way"}))["ok"]
        [note] = await bob.wait_for("note")
        assert note["meta"]["senderType"] == "user"
        assert "senderId" not in note["meta"]


async def test_a_policy_that_raises_loops_or_is_gone_fails_that_one_request(demo: str, start: Start) -> None:
    server = start(demo, policy_timeout=1)
    async with sql(demo) as database:
        await database.execute(OPEN)
        await database.execute("""
            INSERT INTO realtime.channels (pattern) VALUES ('raises'), ('loops'), ('gone');
            CREATE FUNCTION loop() RETURNS boolean LANGUAGE plpgsql AS 'BEGIN LOOP END LOOP; END';
            CREATE FUNCTION burst() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'the secret reason'; END $$;
            CREATE POLICY raises ON realtime.channels FOR SELECT TO authenticated
                USING (CASE WHEN pattern = 'raises' THEN burst() ELSE false END);
            CREATE POLICY loops ON realtime.channels FOR SELECT TO authenticated
                USING (CASE WHEN pattern = 'loops' THEN loop() ELSE false END);
            CREATE POLICY gone ON realtime.channels FOR SELECT TO authenticated USING (pattern = 'gone');
        """)
    async with client(server) as alice, client(server, BOB) as bob, client(server) as carol:
        assert (await alice.subscribe("gone"))["ok"]
        looping = asyncio.create_task(carol.subscribe("loops"))
        raised = await alice.subscribe("raises")
        assert raised["error"]["code"] == "INTERNAL_ERROR"
        assert "secret" not in json.dumps(raised)
        began = time.monotonic()
        assert (await bob.subscribe("open:1"))["ok"]
        assert not looping.done(), "the one that loops held up its neighbour to the end"
        print(f"beside a looping policy: {time.monotonic() - began:.3f} s")
        looped = await looping
        assert looped["error"] == {"code": "INTERNAL_ERROR", "message": "The policy took too long to decide"}
        async with sql(demo) as database:
            await database.execute("DROP POLICY gone ON realtime.channels")
        assert (await bob.subscribe("gone"))["error"]["code"] == "UNAUTHORIZED"
    [line] = server.errors()
    assert line["event"] == "a subscribe policy raised"
    assert "the secret reason" in line["error"]


async def test_a_malformed_publish_never_reaches_the_database(demo: str, start: Start) -> None:
    server = start(demo, max_payload_bytes=1000)
    channel = f"chat:{ROOM}"
    async with client(server) as alice:
        await alice.subscribe(channel)
        for event, payload, code in (
            ("connect", {}, "INVALID_REQUEST"),
            ("realtime:x", {}, "INVALID_REQUEST"),
            ("presence:join", {}, "INVALID_REQUEST"),
            ("error", {}, "INVALID_REQUEST"),
            ("", {}, "INVALID_REQUEST"),
            ("x" * 256, {}, "INVALID_REQUEST"),
            ("tab\t", {}, "INVALID_REQUEST"),
            ("ok", [], "INVALID_REQUEST"),
            ("ok", None, "INVALID_REQUEST"),
            ("ok", {"nul": "\0"}, "INVALID_REQUEST"),
            ("ok", {"text": "x" * 1001}, "PAYLOAD_TOO_LARGE"),
        ):
            answer = await alice.publish(channel, event, payload)
            assert answer["error"]["code"] == code, (event, answer)
        assert (await alice.publish(channel, "__proto__", {"__proto__": {"polluted": True}}))["ok"]
        await alice.wait_for("__proto__")
    async with sql(demo) as database:
        assert await database.fetchval("SELECT count(*) FROM realtime.messages WHERE sender_type = 'user'") == 1


async def test_the_counters_equal_what_was_sent(demo: str, start: Start) -> None:
    server = start(demo)
    async with sql(demo) as database:
        await database.execute(OPEN)
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(client(server)) for _ in range(7)]
            for number, each in enumerate(clients):
                await each.subscribe("open:all")
                if number < 3:
                    await each.subscribe("open:some")
            await database.execute(
                "SELECT realtime.publish('open:' || (ARRAY['all', 'some', 'none'])[1 + i % 3], 'e', '{}')"
                " FROM generate_series(1, 3000) i"
            )
            for number, each in enumerate(clients):
                await each.wait_for("e", 2000 if number < 3 else 1000)
            counts: list[asyncpg.Record] = []

            async def counted() -> bool:
                nonlocal counts
                counts = await database.fetch(
                    "SELECT channel_name, min(ws_audience_count), max(ws_audience_count), count(*)"
                    " FROM realtime.messages WHERE channel_name LIKE 'open:%' GROUP BY 1 ORDER BY 1"
                )
                return [tuple(row)[1:3] for row in counts] == [(7, 7), (0, 0), (3, 3)]

            async with asyncio.timeout(20):
                while not await counted():
                    await asyncio.sleep(0.02)


async def test_a_thousand_clients_that_join_one_channel_at_once_are_all_let_in(demo: str, start: Start) -> None:
    server = start(demo)
    async with sql(demo) as database:
        await database.execute(OPEN)
    users = [f"user-{number:04}" for number in range(1000)]
    clients: list[RawClient] = []
    for first in range(0, 1000, 100):
        clients += await asyncio.gather(
            *(RawClient.connect(server.ws_url, {"token": token(user)}) for user in users[first : first + 100])
        )
    began = time.monotonic()
    for each in clients:
        each.emit("realtime:subscribe", {"channel": "open:1"}, 1)
    await asyncio.gather(*(each.until(b'431[{"ok":true') for each in clients))
    print(f"1000 joins: {time.monotonic() - began:.2f} s")
    clients[0].emit("realtime:publish", {"channel": "open:1", "event": "hello", "payload": {}}, 2)
    await asyncio.gather(*(each.until(b'42["hello"') for each in clients))
    # Each knows each: those who were there before by its snapshot, those who came after by their joins.
    for each in clients:
        assert each.received.count(b'"presenceId"') == 1000
    known = [user for user in users if clients[500].received.count(b'"presenceId":"%b"' % user.encode()) == 1]
    assert known == users
    for each in clients:
        each.close()
    await nobody_is_left(server)
    assert server.errors() == []


async def test_sockets_that_subscribe_and_vanish_leave_no_ghost(demo: str, start: Start) -> None:
    server = start(demo)
    async with sql(demo) as database:
        await database.execute(OPEN)

    async def vanish(number: int) -> None:
        each = client(server, f"user-{number}")
        await each.__aenter__()
        for channel in range(3):
            await each.emit("realtime:subscribe", {"channel": f"open:{channel}"})
        if number % 3 == 0:
            await each.emit("realtime:unsubscribe", {"channel": "open:1"})
        if number % 2:
            await asyncio.sleep(number % 7 / 1000)
        each.ws.transport.abort()
        await each.closed.wait()

    async with client(server, "witness") as witness:
        await witness.subscribe("open:0")
        for first in range(0, 300, 50):
            await asyncio.gather(*(vanish(first + number) for number in range(50)))
        await wait_until(lambda: health(server)[1]["feed"]["connections"] == 1)
        snapshot = await witness.subscribe("open:0")
        assert [member["presenceId"] for member in snapshot["presence"]["members"]] == ["witness"]
        await wait_until(lambda: not ghosts(witness))
    await nobody_is_left(server)
    assert server.errors() == []


def ghosts(witness: WireClient) -> set[str]:
    """Who joined and never left, as far as the witness has heard."""
    here: set[str] = set()
    for name, data in witness.events:
        if name == "presence:join":
            here.add(data["member"]["presenceId"])
        elif name == "presence:leave":
            here.discard(data["member"]["presenceId"])
    return here


async def test_an_expired_token_ends_the_socket_with_a_reason(demo: str, start: Start) -> None:
    server = start(demo)
    async with client(server, BOB) as bob, client(server, ttl=2) as alice:
        await bob.subscribe(f"chat:{ROOM}")
        await alice.subscribe(f"chat:{ROOM}")
        await alice.wait_for("realtime:error")
        assert alice.named("realtime:error")[0]["code"] == "TOKEN_EXPIRED"
        await asyncio.wait_for(alice.closed.wait(), 10)
        assert alice.ws.close_code == 1008
        await bob.wait_for("presence:leave")


@pytest.mark.timeout(180)
async def test_while_the_database_is_away_sockets_stay_and_nothing_is_lost(start: Start) -> None:
    with running_cluster(18, port=free_port(), synchronous_commit="on") as cluster:
        await migrate(Database(cluster.dsn))
        async with sql(cluster.dsn) as database:
            await database.execute(sql_file("demo.sql"))
        server = start(cluster.dsn)
        channel = f"order:{ALICES_ORDER}"
        async with client(server) as alice:
            await alice.subscribe(channel)
            assert health(server)[0] == 200
            cluster.stop()
            await wait_until(lambda: health(server)[0] == 503)
            assert health(server)[1]["feed"]["reason"]
            began = time.monotonic()
            assert (await alice.subscribe("orders"))["error"]["code"] == "UNAVAILABLE"
            assert (await alice.publish(channel, "note", {}))["error"]["code"] == "UNAVAILABLE"
            assert time.monotonic() - began < 2
            # The server backs off and will be a moment late: what is committed before that must arrive, too.
            cluster.start()
            async with sql(cluster.dsn) as database:
                for total in range(1, 101):
                    await database.execute("UPDATE orders SET total = $1 WHERE id = $2", total, ALICES_ORDER)
            await alice.wait_for("UPDATE_order", 100)
            assert [event["total"] for event in alice.named("UPDATE_order")] == list(range(1, 101))
            await wait_until(lambda: health(server)[0] == 200)
            # Health speaks of the feed; the connections that judge come back each by itself.
            async with asyncio.timeout(20):
                while not (answer := await alice.subscribe("orders"))["ok"]:
                    assert answer["error"]["code"] == "UNAVAILABLE"
            assert not alice.closed.is_set()


async def test_sigterm_sends_clients_away_to_come_back_and_ends_with_status_0(demo: str, start: Start) -> None:
    server = start(demo)
    async with sql(demo) as database, client(server) as alice:
        await alice.subscribe(f"order:{ALICES_ORDER}")
        await database.execute("UPDATE orders SET total = 1 WHERE id = $1", ALICES_ORDER)
        await alice.wait_for("UPDATE_order")
        began = time.monotonic()
        assert await asyncio.to_thread(server.stop) == 0
        print(f"stopped in {time.monotonic() - began:.2f} s")
        await asyncio.wait_for(alice.closed.wait(), 5)
        assert alice.ws.close_code == 1012
        assert "41" not in alice.packets, "a DISCONNECT packet would make clients stay away"
        assert await database.fetchval("SELECT sum(ws_audience_count) FROM realtime.messages") == 1
    with pytest.raises(OSError):
        health(server)


async def test_pings_come_every_interval_even_where_the_timeout_is_longer(demo: str, start: Start) -> None:
    server = start(demo, ping_interval=0.3, ping_timeout=10)
    async with client(server) as alice, asyncio.timeout(10):
        while alice.packets.count("2") < 3:
            await asyncio.sleep(0.01)
