"""What one user may cost the others: turns, bounds and rates belong to the user, however many sockets there are.

Nothing here is timed: what is counted is how many of the greedy one's requests were answered before the honest one's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from insforge_realtime.pg.demo import ALICE, BOB
from support.client import run_sql
from support.servers import ANON_KEY, API_KEY, Server, token
from support.wire import WireClient

Start = Callable[..., Server]
SOCKETS = 30
POLICIES = """
    CREATE FUNCTION slow() RETURNS boolean LANGUAGE sql VOLATILE AS 'SELECT pg_sleep(0.3) IS NOT NULL';
    CREATE FUNCTION endless() RETURNS boolean LANGUAGE plpgsql VOLATILE AS 'BEGIN LOOP END LOOP; END';
    INSERT INTO realtime.channels (pattern) VALUES ('slow:%'), ('endless:%'), ('quick:%');
    CREATE POLICY slow ON realtime.channels FOR SELECT TO anon, authenticated
        USING (CASE WHEN pattern = 'slow:%' THEN slow() END);
    CREATE POLICY endless ON realtime.channels FOR SELECT TO anon, authenticated
        USING (CASE WHEN pattern = 'endless:%' THEN endless() END);
    CREATE POLICY quick ON realtime.channels FOR SELECT TO anon, authenticated, project_admin USING (pattern = 'quick:%');
    CREATE POLICY quick ON realtime.messages FOR INSERT TO anon, authenticated, project_admin
        WITH CHECK (channel_name LIKE 'quick:%');
    CREATE POLICY slow ON realtime.messages FOR INSERT TO authenticated
        WITH CHECK (channel_name LIKE 'quick:%' AND (event_name <> 'slow' OR slow()));
"""


class Crowd:
    """Sockets that ask for the same all the time, and how many answers they have got."""

    def __init__(self) -> None:
        self.answered = 0

    async def ask(self, ask: Callable[[], Any]) -> None:
        while True:
            await ask()
            self.answered += 1


@asynccontextmanager
async def crowd(
    server: Server, credentials: list[dict[str, str]], ask: Callable[[WireClient], Any]
) -> AsyncIterator[Crowd]:
    """One socket for each credential, all of which ask without end."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(WireClient(server.ws_url, auth)) for auth in credentials]
        found = Crowd()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(found.ask(lambda client=client: ask(client))) for client in clients]  # type: ignore[misc]
            yield found
            for task in tasks:
                task.cancel()


def users(*numbers: int) -> list[dict[str, str]]:
    return [{"token": token(f"5eed0000-0000-4000-8000-{number:012x}")} for number in numbers]


def asking_for(kind: str) -> Callable[[WireClient], Any]:
    numbers = iter(range(10**9))
    return lambda client: client.subscribe(f"{kind}:{next(numbers)}")


@pytest.mark.parametrize(
    ("kind", "greedy"),
    [("slow", [1] * SOCKETS), ("endless", [1] * SOCKETS), ("slow", list(range(SOCKETS)))],
    ids=["one user, slow", "one user, endless", "many users, slow"],
)
async def test_who_asks_a_quick_policy_does_not_wait_behind_those_who_ask_a_slow_one(
    demo: str, start: Start, kind: str, greedy: list[int]
) -> None:
    await run_sql(demo, POLICIES)
    server = start(demo, policy_timeout=2)
    async with (
        WireClient(server.ws_url, {"token": token(BOB)}) as honest,
        crowd(server, users(*greedy), asking_for(kind)),
    ):
        # The first questions of the kind spoil a batch, which teaches the server whose they are.
        assert (await honest.subscribe("quick:0"))["ok"]
        waited = []
        for number in range(1, 30):
            began = asyncio.get_running_loop().time()
            assert (await honest.subscribe(f"quick:{number}"))["ok"]
            waited.append(asyncio.get_running_loop().time() - began)
        # Half of them at least, whatever else the machine does, without one slow question in front.
        assert sorted(waited)[len(waited) // 2] < 0.25


async def test_who_asks_the_same_slow_policy_waits_for_one_question_of_a_greedy_user(demo: str, start: Start) -> None:
    await run_sql(demo, POLICIES)
    server = start(demo, policy_timeout=2)
    async with (
        WireClient(server.ws_url, {"token": token(BOB)}) as honest,
        crowd(server, users(*[1] * SOCKETS), asking_for("slow")) as greedy,
    ):
        assert (await honest.subscribe("slow:bob"))["ok"]  # everybody's first: a spoiled batch
        for number in range(4):
            before = greedy.answered
            assert (await honest.subscribe(f"slow:bob {number}"))["ok"]
            assert greedy.answered - before <= 4


async def test_a_publish_does_not_wait_behind_those_of_a_greedy_user(demo: str, start: Start) -> None:
    await run_sql(demo, POLICIES)
    server = start(demo, policy_timeout=2)

    async def publish_slowly(client: WireClient) -> None:
        if not client.named("slow"):
            await client.subscribe("quick:greedy")
        await client.publish("quick:greedy", "slow", {})

    async with (
        WireClient(server.ws_url, {"token": token(BOB)}) as honest,
        crowd(server, users(*[1] * SOCKETS), publish_slowly) as greedy,
    ):
        await honest.subscribe("quick:bob")
        assert (await honest.publish("quick:bob", "tick", {}))["ok"]
        for _ in range(4):
            before = greedy.answered
            assert (await honest.publish("quick:bob", "tick", {}))["ok"]
            assert greedy.answered - before <= 4


async def test_a_publish_does_not_wait_behind_those_of_many_users_whose_policy_is_slow(demo: str, start: Start) -> None:
    """It did: a batch that was spoiled put it behind every one of them."""
    await run_sql(
        demo,
        POLICIES,
        "INSERT INTO realtime.channels (pattern) VALUES ('lazy')",
        """CREATE POLICY lazy ON realtime.channels FOR SELECT TO authenticated USING (pattern = 'lazy')""",
        """CREATE POLICY lazy ON realtime.messages FOR INSERT TO authenticated
           WITH CHECK (CASE WHEN channel_name = 'lazy' THEN slow() END)""",
    )
    server = start(demo, policy_timeout=2)

    async with AsyncExitStack() as stack:
        lazy = [await stack.enter_async_context(WireClient(server.ws_url, auth)) for auth in users(*range(40))]
        honest = await stack.enter_async_context(WireClient(server.ws_url, {"token": token(BOB)}))
        for client in lazy:
            assert (await client.subscribe("lazy"))["ok"]
        assert (await honest.subscribe("quick:bob"))["ok"]
        message = {"event": "tick", "payload": {}}
        asked = [await client.ask_for_ack("realtime:publish", {"channel": "lazy", **message}) for client in lazy]
        assert (await honest.call("realtime:publish", {"channel": "quick:bob", **message}))["ok"]
        assert sum(answer.done() for answer in asked) <= 8


async def test_one_user_has_no_more_questions_waiting_than_the_limit(demo: str, start: Start) -> None:
    await run_sql(demo, POLICIES)
    server = start(demo, policy_timeout=2, max_pending_per_user=3)
    async with AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(WireClient(server.ws_url, auth)) for auth in users(*[1] * 8)]
        honest = await stack.enter_async_context(WireClient(server.ws_url, {"token": token(BOB)}))
        answers = await asyncio.gather(*[client.subscribe(f"slow:{at}") for at, client in enumerate(sockets)])
        refused = [answer["error"]["code"] for answer in answers if not answer["ok"]]
        assert refused == ["RATE_LIMITED"] * 5
        assert (await honest.subscribe("slow:bob"))["ok"]


@pytest.mark.parametrize(
    ("auth", "share"),
    [({"token": token(ALICE)}, 1), ({"token": ANON_KEY}, 10)],
    ids=["a user", "the anonymous of an address"],
)
async def test_all_sockets_of_a_user_have_one_rate(demo: str, start: Start, auth: dict[str, str], share: int) -> None:
    """On the code before it, each of ten sockets had the whole burst, of 20 messages."""
    await run_sql(demo, POLICIES)
    server = start(demo, max_messages_per_second=10)
    each = 5 + 10 * share
    async with AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(WireClient(server.ws_url, auth)) for _ in range(10)]
        for client in sockets:
            assert (await client.subscribe("quick:1"))["ok"]
        began = asyncio.get_running_loop().time()
        answers = await asyncio.gather(*[c.publish("quick:1", "tick", {}) for c in sockets for _ in range(each)])
        passed = asyncio.get_running_loop().time() - began
        accepted = sum(answer["ok"] for answer in answers)
        assert {answer["error"]["code"] for answer in answers if not answer["ok"]} == {"RATE_LIMITED"}
        assert 20 * share - 10 - 1 <= accepted <= share * (20 + 10 * passed) + 1
        # Somebody else is not concerned, and neither are servers with the key.
        for other in ({"token": token(BOB)}, {"apiKey": API_KEY}):
            stranger = await stack.enter_async_context(WireClient(server.ws_url, other))
            assert (await stranger.subscribe("quick:1"))["ok"]
            assert (await stranger.publish("quick:1", "tick", {}))["ok"]


async def test_who_comes_back_finds_the_bucket_as_it_was_left(demo: str, start: Start) -> None:
    await run_sql(demo, POLICIES)
    server = start(demo, max_messages_per_second=0.5)
    accepted = 0
    for _ in range(4):
        async with WireClient(server.ws_url, {"token": token(ALICE)}) as client:
            accepted += (await client.subscribe("quick:1"))["ok"]
    assert accepted == 1
