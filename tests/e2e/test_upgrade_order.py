"""Whatever happens around an upgrade, and in whatever order: no message is lost, doubled or out of place, either way.

A plan is a list of steps, and the client takes them one by one; Hypothesis looks for a plan that goes wrong. Messages go
down (SQL → client) and up (client → database → client), and are numbered.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator

import asyncpg
import httpx
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection

from support.databases import Cluster
from support.polling import SEPARATOR, PollingClient
from support.sites import CHANNEL, TOKEN, Site, site
from support.wire import WireClient

PUBLISH = (
    "SELECT count(realtime.publish('orders', 'down', jsonb_build_object('n', n))) FROM generate_series($1::int, $2) n"
)

POLL, POST, DOWN, BURST, PROBE, UPGRADE, HASTE = "poll", "post", "down", "burst", "probe", "upgrade", "haste"
"""Poll: take in the last one, if one waits, and begin another. Post: two commands. Down: two messages, once they are there.
Burst: twenty, without waiting. Upgrade: as clients do it, who wait for their poll. Haste: `5` although one waits."""


@pytest.fixture(scope="module")
def plain(newest: Cluster) -> Iterator[Site]:
    with site(newest) as running:
        yield running


class Traveller:
    """A client that follows a plan."""

    def __init__(self, client: PollingClient, witness: WireClient, database: asyncpg.Connection) -> None:
        self.client = client
        self.witness = witness
        self.database = database
        self.waiting: asyncio.Task[httpx.Response] | None = None
        self.ws: ClientConnection | None = None
        self.down = self.up = 0

    async def take(self, step: str) -> None:
        if step == POST:
            await self._post()
        elif step in (DOWN, BURST):
            await self._publish(2 if step == DOWN else 20)
            if step == DOWN:
                await self.witness.wait_for("down", self.down)
        elif self.client.ws is None:
            await self._on_polling(step)

    async def _on_polling(self, step: str) -> None:
        if step == POLL:
            await self._collect()
            self.waiting = await self.client.begin_poll()
        elif step == PROBE and self.ws is None:
            self.ws = await self.client.probe()
        elif step == UPGRADE and self.ws is not None:
            await self._collect()
            await self.client.take_over(self.ws)
        elif step == HASTE and self.ws is not None:
            await self.ws.send("5")
            await self._collect(hasty=True)
            self.client.carry_on(self.ws)

    async def _collect(self, *, hasty: bool = False) -> None:
        """Take in the poll that waits, once it is answered: with a message of ours, if nothing else is coming."""
        if self.waiting is not None:
            if not self.waiting.done() and self.ws is None:
                await self._publish(1)
            answer, self.waiting = await self.waiting, None
            if answer.status_code == 400 and hasty:
                assert answer.json()["code"] == 3  # `5` overtook it; what was waiting for it is still to come
            else:
                await self.client.take(answer)

    async def _publish(self, number: int) -> None:
        await self.database.execute(PUBLISH, self.down + 1, self.down + number)
        self.down += number

    async def _post(self) -> None:
        packets = []
        for _ in range(2):
            self.up += 1
            request = {"channel": CHANNEL, "event": "up", "payload": {"n": self.up}}
            packets.append("42" + json.dumps(["realtime:publish", request]))
        if self.client.ws is None:
            assert (await self.client.post(*packets)).text == "ok"
        else:
            for packet in packets:
                await self.client.send(packet)

    async def rest(self) -> None:
        """Leave nothing behind where the plan broke off."""
        if self.waiting is not None:
            self.waiting.cancel()
            await asyncio.gather(self.waiting, return_exceptions=True)
        if self.ws is not None:
            await self.ws.close()

    async def arrive(self) -> None:
        """Whatever is under way is waited for; then the numbers must be all there, once each, and in order."""
        await self._collect()
        async with asyncio.timeout(20):
            while len(self.client.named("up")) < self.up or len(self.client.named("down")) < self.down:
                if self.client.ws is None:
                    await self.client.poll()
                else:
                    assert not self.client.closed.is_set()
                    await asyncio.sleep(0.002)
        await self.client.call("realtime:unsubscribe", {"channel": "x"})  # nothing more comes
        assert [data["n"] for data in self.client.named("down")] == list(range(1, self.down + 1))
        assert [data["n"] for data in self.client.named("up")] == list(range(1, self.up + 1))


async def travel(running: Site, plan: list[str]) -> None:
    auth = {"token": TOKEN}
    async with contextlib.AsyncExitStack() as stack:
        witness = await stack.enter_async_context(WireClient(running.server.ws_url, auth))
        client = await stack.enter_async_context(PollingClient(running.server.url, auth))
        database = await asyncpg.connect(running.database)
        stack.push_async_callback(database.close)
        for someone in (witness, client):
            assert (await someone.subscribe("orders"))["ok"]
        assert (await client.subscribe(CHANNEL))["ok"]
        traveller = Traveller(client, witness, database)
        stack.push_async_callback(traveller.rest)
        for step in plan:
            await traveller.take(step)
        await traveller.arrive()
    running.is_well()


STEPS = st.lists(st.sampled_from([POLL, POST, DOWN, BURST]), max_size=3)


@settings(
    max_examples=25,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.builds(
        lambda before, between, how, after: [*before, PROBE, *between, how, *after],
        STEPS,
        STEPS,
        st.sampled_from([UPGRADE, HASTE]),
        STEPS,
    )
)
@example([DOWN, PROBE, UPGRADE])
@example([PROBE, DOWN, UPGRADE])
@example([PROBE, UPGRADE, DOWN])
@example([POLL, DOWN, PROBE, DOWN, UPGRADE, DOWN])
@example([DOWN, PROBE, POLL, DOWN, HASTE, DOWN])
@example([POLL, PROBE, HASTE, BURST])
@example([PROBE, BURST, POLL, BURST, HASTE, BURST])
@example([POST, PROBE, POST, UPGRADE, POST])
@example([POLL, BURST, POST, PROBE, POST, BURST, HASTE, POST, BURST])
@example([POST, DOWN, POLL, POST, PROBE])
def test_nothing_is_lost_doubled_or_out_of_order_across_an_upgrade(plain: Site, plan: list[str]) -> None:
    asyncio.run(travel(plain, plan))


async def test_commands_that_are_still_being_taken_in_at_the_upgrade_are_not_lost(plain: Site) -> None:
    """More of them than the server reads ahead, and a client that does not wait for the answer to its POST."""
    async with PollingClient(plain.server.url, {"token": TOKEN}) as client:
        ws = await client.probe()
        requests = [f'42{n}["realtime:subscribe",{{"channel":"order:{n}"}}]' for n in range(150)]
        posting = await client.begin("POST", content=SEPARATOR.join(requests))
        await client.http.get("/api/health")  # and once this is answered, the server has begun with it
        await client.take_over(ws)
        await client.emit("realtime:subscribe", {"channel": 0})
        await client.wait_for("realtime:error")
        assert (await posting).text == "ok"
        async with asyncio.timeout(20):
            while len(acks := [packet for packet in client.packets if packet.startswith("43")]) < 150:
                await asyncio.sleep(0.002)
        assert [int(ack[2 : ack.index("[")]) for ack in acks] == list(range(150))


async def test_a_poll_that_is_hung_up_after_the_upgrade_does_not_end_the_connection(plain: Site) -> None:
    for _ in range(10):
        async with PollingClient(plain.server.url, {"token": TOKEN}) as client:
            ws = await client.probe()
            poll = await client.begin_poll()
            await client.take_over(ws)
            poll.cancel()
            await asyncio.gather(poll, return_exceptions=True)
            assert (await client.subscribe("orders"))["ok"]
