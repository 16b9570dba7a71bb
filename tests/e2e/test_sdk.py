"""The official SDK from npm, unchanged, against a real server and a real PostgreSQL: what the documentation promises."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from insforge_realtime.auth import mint
from insforge_realtime.pg.demo import ALICE, ALICES_ORDER, BOB, BOBS_ORDER, ROOM
from support.node import Failed, Script, Sdk, SdkClient
from support.servers import ANON_KEY, Server, token

Start = Callable[..., Server]

MALLORY = "0bad0000-0000-4000-8000-000000000003"
NOT_CONNECTED = {"isConnected": False, "connectionState": "disconnected", "socketId": None, "channels": []}
ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
CHAT = f"chat:{ROOM}"


async def run(url: str, *statements: str) -> list[asyncpg.Record]:
    """The rows of the last statement."""
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            rows: list[asyncpg.Record] = await connection.fetch(statement)
        return rows
    finally:
        await connection.close()


async def message_ids(url: str, event: str) -> list[str]:
    """Of the rows in realtime.messages, in order."""
    rows = await run(url, f"SELECT id FROM realtime.messages WHERE event_name = '{event}' ORDER BY created_at, id")
    return [str(row["id"]) for row in rows]


def codes(events: list[dict[str, Any]]) -> list[str]:
    return [event["code"] for event in events]


async def connected(sdk: Sdk, server: Server, subject: str, channel: str, *events: str) -> SdkClient:
    """A client that is subscribed."""
    client = await sdk.client(server.url, token(subject), "error", *events)
    assert (await client.subscribe(channel))["ok"]
    return client


# ---- the complete example


async def test_an_order_that_changes_arrives_at_its_owner(demo: str, start: Start) -> None:
    server, channel = start(demo), f"order:{BOBS_ORDER}"
    async with Sdk() as sdk:
        bob = await sdk.client(server.url, token(BOB), "error", "connect", "disconnect", "UPDATE_order")
        assert await bob.state() == NOT_CONNECTED
        assert await bob.call("connectWatched") == ["disconnected", "connecting", "connected"]
        state = await bob.state()
        assert state == {**NOT_CONNECTED, "isConnected": True, "connectionState": "connected"} | {
            "socketId": state["socketId"]
        }
        assert state["socketId"]

        answer = await bob.subscribe(channel)
        assert (answer["ok"], answer["channel"]) == (True, channel)
        assert (await bob.state())["channels"] == [channel]

        await run(demo, f"UPDATE orders SET status = 'shipped', total = 43.5 WHERE id = '{BOBS_ORDER}'")
        [order] = await bob.wait_for("UPDATE_order")
        meta = order.pop("meta")
        assert order == {"id": BOBS_ORDER, "status": "shipped", "total": 43.5}
        assert ISO.fullmatch(meta.pop("timestamp"))
        assert meta == {
            "channel": channel,
            "messageId": (await message_ids(demo, "UPDATE_order"))[0],
            "senderType": "system",
        }

        await bob.call("unsubscribe", channel)
        assert (await bob.state())["channels"] == []
        await bob.call("disconnect")
        assert await bob.state() == NOT_CONNECTED
        assert [name for name, _ in bob.events] == ["connect", "UPDATE_order", "disconnect"]


async def test_nothing_arrives_after_off_after_unsubscribe_and_after_disconnect(demo: str, start: Start) -> None:
    server, channel = start(demo), f"order:{BOBS_ORDER}"
    change = f"UPDATE orders SET total = total + 1 WHERE id = '{BOBS_ORDER}'"
    async with Sdk() as sdk:
        witness, deaf, unsubscribed, disconnected = [
            await connected(sdk, server, BOB, channel, "UPDATE_order") for _ in range(4)
        ]
        await run(demo, change)
        for client in (witness, deaf, unsubscribed, disconnected):
            await client.wait_for("UPDATE_order")
        await deaf.call("off", "UPDATE_order")
        await unsubscribed.call("unsubscribe", channel)
        assert (await unsubscribed.subscribe("orders"))["ok"]  # so the server has handled what came before
        await disconnected.call("unsubscribe", channel)
        await disconnected.call("disconnect")
        await run(demo, change)
        await witness.wait_for("UPDATE_order", 2)
        await unsubscribed.call("unsubscribe", "orders")
        for client in (deaf, unsubscribed):
            assert (await client.subscribe("orders"))["ok"]  # what was sent before has arrived before
        for client in (deaf, unsubscribed, disconnected):
            assert len(client.named("UPDATE_order")) == 1
        assert (await deaf.state())["isConnected"]


async def test_a_new_order_arrives_at_an_admin_who_waits_for_it(demo: str, start: Start) -> None:
    await run(
        demo,
        """CREATE POLICY admins_watch_orders ON realtime.channels FOR SELECT TO authenticated
           USING (pattern = 'order:%' AND EXISTS (SELECT 1 FROM admins WHERE user_id = auth.uid()))""",
    )
    server, order = start(demo), str(uuid4())
    async with Sdk() as sdk:
        alice = await connected(sdk, server, ALICE, f"order:{order}", "INSERT_order")
        await run(demo, f"INSERT INTO orders VALUES ('{order}', '{BOB}', 'new', 5)")
        [message] = await alice.wait_for("INSERT_order")
        assert (message["id"], message["total"]) == (order, 5)
        assert message["meta"]["messageId"] == (await message_ids(demo, "INSERT_order"))[-1]


# ---- who may not


async def test_a_subscription_that_no_policy_allows_is_refused(demo: str, start: Start) -> None:
    server = start(demo)
    async with Sdk() as sdk:
        bob = await sdk.client(server.url, token(BOB), "UPDATE_order")
        anon = await sdk.client(server.url, anon_key=ANON_KEY)
        for client in (bob, anon):
            await client.call("connect")
            refused = await client.subscribe(f"order:{ALICES_ORDER}")
            assert (refused["ok"], refused["channel"]) == (False, f"order:{ALICES_ORDER}")
            assert refused["error"]["code"] == "UNAUTHORIZED"
            assert refused["error"]["message"]
            assert (await client.state())["channels"] == []
        assert (await anon.subscribe("orders"))["error"]["code"] == "UNAUTHORIZED"
        assert (await bob.subscribe("no such channel"))["error"]["code"] == "UNAUTHORIZED"
        # What he may not subscribe to does not reach him on a connection that works.
        assert (await bob.subscribe(f"order:{BOBS_ORDER}"))["ok"]
        await run(demo, "UPDATE orders SET status = 'paid'")
        await bob.wait_for("UPDATE_order")
        assert (await bob.subscribe("orders"))["ok"]
        assert [order["id"] for order in bob.named("UPDATE_order")] == [BOBS_ORDER]


async def test_anonymous_clients_may_what_a_policy_for_them_allows(demo: str, start: Start) -> None:
    await run(
        demo,
        "CREATE POLICY everybody ON realtime.channels FOR SELECT TO anon USING (pattern = 'orders')",
    )
    server = start(demo, allow_anonymous=True)
    async with Sdk() as sdk:
        with_key = await sdk.client(server.url, None, "news", anon_key=ANON_KEY)
        with_nothing = await sdk.client(server.url, None, "news")
        for client in (with_key, with_nothing):
            assert (await client.subscribe("orders"))["ok"]
        await run(demo, """SELECT realtime.publish('orders', 'news', '{"a": 1}')""")
        for client in (with_key, with_nothing):
            assert (await client.wait_for("news"))[0]["a"] == 1
        members = await with_nothing.call("getPresenceState", "orders")
        assert {(member["type"], member["presenceId"]) for member in members} == {
            ("anonymous", (await client.state())["socketId"]) for client in (with_key, with_nothing)
        }


async def test_a_credential_that_fails_is_refused_at_connect(demo: str, start: Start) -> None:
    server = start(demo)
    another_secret = "quite another secret, which is also long enough"
    wrongs = (
        None,
        "nonsense",
        mint(another_secret, subject=ALICE, role="authenticated", ttl=60),
        token(ALICE, ttl=-60),
        token(ALICE, role="postgres"),
    )
    async with Sdk() as sdk:
        for wrong in wrongs:
            client = await sdk.client(server.url, wrong, "connect", "connect_error")
            with pytest.raises(Failed) as caught:
                await client.call("connect")
            assert caught.value.error["data"]["code"] == "UNAUTHORIZED", wrong
            assert caught.value.error["message"]
            assert client.events == [("connect_error", caught.value.error)]
            assert await client.state() == NOT_CONNECTED
            assert (await client.subscribe("orders"))["error"]["code"] == "CONNECTION_FAILED"


# ---- publish


async def test_what_a_member_publishes_arrives_at_all_members(demo: str, start: Start) -> None:
    server = start(demo)
    async with Sdk() as sdk:
        alice = await connected(sdk, server, ALICE, CHAT, "said")
        bob = await connected(sdk, server, BOB, CHAT, "said")
        forged = {"senderType": "system", "senderId": ALICE, "channel": "orders"}
        await bob.call("publish", CHAT, "said", {"text": "hello ✓", "meta": forged})
        for client in (alice, bob):
            [message] = await client.wait_for("said")
            meta = message.pop("meta")
            assert message == {"text": "hello ✓"}
            assert ISO.fullmatch(meta.pop("timestamp"))
            assert meta == {
                "channel": CHAT,
                "messageId": (await message_ids(demo, "said"))[0],
                "senderType": "user",
                "senderId": BOB,
            }
            assert not client.named("error")


async def test_a_publish_that_is_not_allowed_says_why_and_leaves_nothing(demo: str, start: Start) -> None:
    await run(
        demo,
        f"""CREATE POLICY eavesdropper ON realtime.channels FOR SELECT TO authenticated
            USING (pattern = 'chat:%' AND auth.uid() = '{MALLORY}')""",
    )
    server = start(demo)
    async with Sdk() as sdk:
        mallory = await connected(sdk, server, MALLORY, CHAT, "said", "orders")
        await mallory.call("publish", CHAT, "said", {"text": "let me in"})
        [error] = await mallory.wait_for("error")
        assert (error["channel"], error["code"]) == (CHAT, "UNAUTHORIZED")
        await mallory.call("publish", "orders", "said", {})
        assert codes(await mallory.wait_for("error", 2)) == ["UNAUTHORIZED", "NOT_SUBSCRIBED"]
        # A member's message shows that the connection still works, and that nothing came before it.
        bob = await connected(sdk, server, BOB, CHAT)
        await bob.call("publish", CHAT, "said", {"text": "hello"})
        [message] = await mallory.wait_for("said")
        assert message["text"] == "hello"
        assert len(await message_ids(demo, "said")) == 1


async def test_only_an_admin_publishes_to_an_order(demo: str, start: Start) -> None:
    server = start(demo)
    async with Sdk() as sdk:
        alice = await connected(sdk, server, ALICE, f"order:{ALICES_ORDER}", "note")
        bob = await connected(sdk, server, BOB, f"order:{BOBS_ORDER}", "note")
        await bob.call("publish", f"order:{BOBS_ORDER}", "note", {"free": True})
        assert codes(await bob.wait_for("error")) == ["UNAUTHORIZED"]
        await alice.call("publish", f"order:{ALICES_ORDER}", "note", {"free": True})
        [note] = await alice.wait_for("note")
        assert (note["free"], note["meta"]["senderId"]) == (True, ALICE)
        assert not bob.named("note")


async def test_members_see_each_other_come_and_go(demo: str, start: Start) -> None:
    server = start(demo)
    async with Sdk() as sdk:
        alice = await connected(sdk, server, ALICE, CHAT, "presence:join", "presence:leave")
        first = await connected(sdk, server, BOB, CHAT, "presence:join", "presence:leave")
        [joined] = await alice.wait_for("presence:join")
        assert ISO.fullmatch(joined["member"].pop("joinedAt"))
        assert joined["member"] == {"type": "user", "presenceId": BOB}
        assert joined["meta"]["channel"] == CHAT
        second = await connected(sdk, server, BOB, CHAT)
        for client in (alice, first, second):
            members = await client.call("getPresenceState", CHAT)
            assert sorted(member["presenceId"] for member in members) == [ALICE, BOB]
        await first.call("disconnect")
        await second.call("unsubscribe", CHAT)  # only now has Bob left
        await alice.wait_for("presence:leave")
        assert [member["presenceId"] for member in await alice.call("getPresenceState", CHAT)] == [ALICE]
        assert [name for name, _ in alice.events] == ["presence:join", "presence:leave"]
        assert first.events == []


# ---- restarts


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)])
async def test_clients_come_back_by_themselves_after_a_restart(
    demo: str, start: Start, number: int, status: int
) -> None:
    server = start(demo)
    async with Sdk() as sdk:
        watched = ("connect", "disconnect", "said", "presence:leave")
        alice = await connected(sdk, server, ALICE, CHAT, *watched)
        bob = await connected(sdk, server, BOB, CHAT, *watched)
        leaver = await connected(sdk, server, BOB, CHAT)
        began = time.monotonic()
        assert server.stop(number) == status
        assert time.monotonic() - began < 10
        for client in (alice, bob):
            await client.wait_for("disconnect")
            assert (await client.state())["connectionState"] == "connecting"
            assert (await client.state())["channels"] == []
        await leaver.call("disconnect")
        server.start()
        for client in (alice, bob):
            await client.wait_for("connect", 2)
            await until_subscribed(client, CHAT)
        await bob.call("publish", CHAT, "said", {"text": "back"})
        for client in (alice, bob):
            assert [message["text"] for message in await client.wait_for("said")] == ["back"]
            members = await client.call("getPresenceState", CHAT)
            assert sorted(member["presenceId"] for member in members) == [ALICE, BOB]
        await bob.call("disconnect")
        await alice.wait_for("presence:leave")
        assert [member["presenceId"] for member in await alice.call("getPresenceState", CHAT)] == [ALICE]


async def until_subscribed(client: SdkClient, channel: str) -> None:
    """Until the SDK has resubscribed by itself; a round trip to Node each time, so this does not spin."""
    deadline = time.monotonic() + 20
    while channel not in (await client.state())["channels"]:
        assert time.monotonic() < deadline


async def test_a_channel_without_uuid_is_let_in_beside_a_policy_that_casts(demo: str, start: Start) -> None:
    await run(
        demo,
        "DROP POLICY members_subscribe_chat ON realtime.channels",
        "DROP POLICY members_publish_chat ON realtime.messages",
        "CREATE TABLE room_members (room text, user_id uuid)",
        "GRANT SELECT ON room_members TO authenticated",
        f"INSERT INTO room_members VALUES ('room-1', '{ALICE}'), ('room-1', '{BOB}')",
        """CREATE POLICY members_subscribe_rooms ON realtime.channels FOR SELECT TO authenticated
           USING (pattern = 'chat:%' AND EXISTS (SELECT 1 FROM room_members
                  WHERE room = split_part(realtime.channel_name(), ':', 2) AND user_id = auth.uid()))""",
        """CREATE POLICY members_publish_rooms ON realtime.messages FOR INSERT TO authenticated
           WITH CHECK (channel_name LIKE 'chat:%' AND EXISTS (SELECT 1 FROM room_members
                       WHERE room = split_part(channel_name, ':', 2) AND user_id = auth.uid()))""",
    )
    server = start(demo)
    async with Sdk() as sdk:
        alice = await connected(sdk, server, ALICE, "chat:room-1", "new_message")
        bob = await connected(sdk, server, BOB, "chat:room-1", "new_message")
        await alice.call("publish", "chat:room-1", "new_message", {"text": "Hello!", "sender": "Alice"})
        for client in (alice, bob):
            [message] = await client.wait_for("new_message")
            assert (message["text"], message["sender"]) == ("Hello!", "Alice")
            assert not client.named("error")
        assert (await alice.subscribe("chat:room-2"))["error"]["code"] == "UNAUTHORIZED"
        assert (await alice.subscribe(f"order:{ALICES_ORDER}"))["ok"]
    assert not server.errors()


# ---- socket.io-client by itself, and many clients


async def test_a_plain_socket_io_client_gets_acks(demo: str, start: Start) -> None:
    server = start(demo)
    async with Script("plain.mjs", server.url, token(BOB), CHAT) as script:
        seen = {line["what"]: line["data"] for line in await script.lines()}
    assert seen["refused"]["ok"] is False
    assert seen["refused"]["error"]["code"] == "NOT_SUBSCRIBED"
    assert seen["subscribed"]["ok"] is True
    assert seen["published"] == {"ok": True, "messageId": (await message_ids(demo, "said"))[0]}
    assert seen["said"]["meta"]["messageId"] == seen["published"]["messageId"]
    assert seen["malformed"]["error"]["code"] == "INVALID_REQUEST"
    assert seen["unsubscribed"] == {"ok": True, "channel": CHAT}
    assert seen["unknown"]["error"]["code"] == "INVALID_REQUEST"
    assert seen["default"] == "websocket"  # by way of polling


async def test_many_clients_get_every_message_once_and_in_order(demo: str, start: Start) -> None:
    clients, messages, rounds = 20, 2000, 20
    server = start(demo)
    connection = await asyncpg.connect(demo)
    async with Script("many.mjs", server.url, token(BOB), "orders", str(clients), str(messages // 2)) as script:
        assert await script.line() == {"ready": True}
        step = messages // rounds
        for first in range(1, messages, step):
            await connection.execute(
                """SELECT realtime.publish('orders', 'numbered', jsonb_build_object('n', n))
                   FROM generate_series($1::int, $2::int) n""",
                first,
                first + step - 1,
            )
        await connection.execute("SELECT realtime.publish('orders', 'end', '{}')")
        results = await script.line()
    await connection.close()
    stayed = [result for result in results if not result["left"]]
    assert stayed == [{"left": False, "errors": [], "received": messages, "inOrder": True}] * (clients - 3)
    for result in results:
        assert result["inOrder"]
        assert messages // 2 <= result["received"] <= messages
