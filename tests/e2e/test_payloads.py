"""What a client sends is what is stored and what arrives, digit by digit, and how much of it one client may send."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest

from insforge_realtime.pg.demo import ALICE, BOB
from support.databases import Cluster, wait_until
from support.polling import PollingClient
from support.raw import NarrowClient
from support.servers import Server, token
from support.sites import CHANNEL, TOKEN, Site, site
from support.wire import Conversation, Refused, WireClient

PAYLOADS = [
    '{"n":12345678901234567890123}',
    '{"n":-12345678901234567890123}',
    '{"n":9007199254740993}',
    '{"n":18446744073709551616}',
    f'{{"n":{"7" * 308}}}',
    '{"n":0.1234567890123456789}',
    f'{{"n":0.{"1234567890" * 1000}}}',
    '{"n":1.0,"m":1,"o":1.50}',
    '{"n":-0.0,"m":-0}',
    '{"n":1e5,"m":1E+05,"o":15e-1}',
    '{"n":1e300,"m":1e-300,"o":1.7976931348623157e308,"p":1e-400}',
    '{"b":1,"a":2,"b":3,"a":{"payload":{}}}',
    r'{"a":"\u00e9\/\ud83d\ude00\n\\ \" \u0001","\u0061":"\u007f"}',
    '{ "a" :\t1 ,\r\n"b":[ ] , "c" : { } }',
    '{"a":"}],{","payload":"\\"payload\\":"}',
    "{}",
]


@pytest.fixture(scope="module")
def running(cluster: Cluster) -> Iterator[Site]:
    with site(cluster) as running:
        yield running


@contextlib.asynccontextmanager
async def connected(server: Server, transport: str) -> AsyncIterator[Conversation]:
    """A client, by either transport, whose acks come by themselves."""
    auth = {"token": TOKEN}
    async with asyncio.timeout(60):
        if transport == "websocket":
            async with WireClient(server.ws_url, auth) as client:
                yield client
        else:
            async with PollingClient(server.url, auth) as polling:
                polling.start()
                yield polling


def publish(payload: str, event: str = "said", order: str = "%s,%s,%s") -> str:
    members = (f'"channel":"{CHANNEL}"', f'"event":"{event}"', f'"payload":{payload}')
    return f'["realtime:publish",{{{order % members}}}]'


def exactly(text: str) -> Any:
    return json.loads(text, parse_int=Decimal, parse_float=Decimal)


@pytest.mark.parametrize("transport", ["websocket", "polling"])
async def test_what_is_sent_is_what_is_stored_and_what_arrives(running: Site, transport: str) -> None:
    async with connected(running.server, transport) as client:
        assert (await client.subscribe(CHANNEL))["ok"]
        for payload in PAYLOADS:
            seen = len(client.packets)
            answer = await (await client.ask_in_text(publish(payload, "exact")))
            assert answer["ok"], (payload, answer)
            stored = await running.sql("SELECT payload::text FROM realtime.messages WHERE id = $1", answer["messageId"])
            assert stored == await running.sql("SELECT $1::text::jsonb::text", payload)
            assert exactly(stored) == exactly(payload)
            await wait_until(lambda seen=seen: any("exact" in packet for packet in client.packets[seen:]))  # type: ignore[misc]
            [packet] = [packet for packet in client.packets[seen:] if "exact" in packet]
            arrived = exactly(packet[2:])[1]
            arrived.pop("meta")
            assert arrived == exactly(payload)
    running.is_well()


async def test_numbers_of_all_sizes_arrive_exactly_wherever_the_payload_stands(running: Site) -> None:
    chance = random.Random(7)

    def number() -> str:
        digits = "".join(chance.choices("0123456789", k=chance.randint(1, 60)))
        places = "." + "".join(chance.choices("0123456789", k=chance.randint(1, 60))) if chance.random() < 0.6 else ""
        exponent = f"e{chance.randint(-200, 200)}" if chance.random() < 0.4 else ""
        return f"{chance.choice(['', '-'])}{int(digits)}{places}{exponent}"

    payloads = [f'{{"n":[{",".join(number() for _ in range(20))}],"i":{n}}}' for n in range(90)]
    orders = ["%s,%s,%s", '"x":1,%s,%s,%s', '%s,%s,%s,"payloads":0', "%s , %s , %s "]
    async with connected(running.server, "websocket") as client:
        await client.subscribe(CHANNEL)
        asked = [await client.ask_in_text(publish(payload, order=chance.choice(orders))) for payload in payloads]
        ids = [(await answer)["messageId"] for answer in asked]
        for payload, message_id in zip(payloads, ids, strict=True):
            stored = await running.sql("SELECT payload::text FROM realtime.messages WHERE id = $1", message_id)
            assert exactly(stored) == exactly(payload)


@pytest.mark.parametrize("transport", ["websocket", "polling"])
async def test_json_beyond_us_is_refused_where_it_stands_and_the_connection_goes_on(
    running: Site, transport: str
) -> None:
    async with connected(running.server, transport) as client:
        asked = [
            await client.ask_in_text(event)
            for event in (
                f'["realtime:subscribe",{{"channel":"{CHANNEL}"}}]',
                publish('{"n":1e400}'),
                publish('{"n":1}'),
                publish(r'{"n":"\ud800"}'),
                publish('{"n":2}'),
            )
        ]
        answers = [await answer for answer in asked]
        assert [answer["ok"] for answer in answers] == [True, False, True, False, True]
        assert answers[1]["channel"] == CHANNEL
        assert answers[1]["error"]["code"] == "INVALID_REQUEST"
        assert "1.8e308" in answers[1]["error"]["message"]
        await client.send("437[1e400]")  # an ack that nobody asked for
        await client.send("42" + publish('{"n":1e400}'))
        [error] = await client.wait_for("realtime:error")
        assert (error["code"], error["channel"]) == ("INVALID_REQUEST", CHANNEL)
        assert (await client.subscribe("orders"))["ok"]
    running.is_well()


async def test_a_credential_beyond_us_is_refused_and_the_right_one_still_works(running: Site) -> None:
    for auth in (r'{"token":"\ud800"}', '{"token":1e400}', '{"a":' * 2000 + "1" + "}" * 2000):
        client = PollingClient(running.server.url)
        async with asyncio.timeout(30), client:
            await client.send(f"40{auth}")
            with pytest.raises(Refused) as refused:
                client.connected(await client.poll_until("44"))
            assert refused.value.error["data"] == {"code": "INVALID_REQUEST"}
            await client.connect({"token": TOKEN})
    running.is_well()


# How much.


def text_of(size: int) -> str:
    return publish(json.dumps({"text": "x" * size}), "big")


async def test_ten_large_messages_at_once_cut_nobody_who_reads_16_mbit_a_second(
    demo: str, start: Callable[..., Server]
) -> None:
    server = start(demo)
    reader = await NarrowClient.connect(server.ws_url, {"token": token(BOB)})
    reader.emit("realtime:subscribe", {"channel": CHANNEL}, 1)
    await reader.until(b"431[")
    async with WireClient(server.ws_url, {"token": token(ALICE)}) as writer:
        await writer.subscribe(CHANNEL)
        asked = [await writer.ask_in_text(text_of(950_000)) for _ in range(10)]
        answers = [await answer for answer in asked]
        passed = [answer["ok"] for answer in answers].count(True)
        assert [answer["ok"] for answer in answers[:2]] == [True, True]
        assert passed <= 4
        assert {(answer["error"]["code"], answer["error"]["message"]) for answer in answers if not answer["ok"]} == {
            ("RATE_LIMITED", "More than 1000000 bytes a second; slow down")
        }
        await reader.until(b'"big"', passed)
        # Small ones are not kept back by what large ones were refused.
        assert (await writer.publish(CHANNEL, "small", {}))["ok"]
        await reader.until(b'"small"')
    reader.close()
    assert server.feed()["slowConsumers"] == 0


@pytest.mark.parametrize("transport", ["websocket", "polling"])
async def test_every_byte_of_every_event_counts_and_a_quiet_client_may_send_one_of_any_size(
    demo: str, start: Callable[..., Server], transport: str
) -> None:
    server = start(demo, max_bytes_per_second=5_000, max_payload_bytes=100_000)
    async with connected(server, transport) as client:
        assert (await client.subscribe(CHANNEL))["ok"]

        async def passes(event: str) -> bool:
            ok: bool = (await (await client.ask_in_text(event)))["ok"]
            return ok

        # 10 000 in a burst: what is refused counts nothing, what passes counts, whatever it is.
        assert await passes(text_of(9_600))
        assert not await passes(text_of(9_000))
        assert await passes(publish("{}"))
        # More than that passes when nothing else did for two seconds, and then is owed.
        while not await passes(text_of(95_000)):
            await asyncio.sleep(0.05)
        assert not await passes(publish("{}"))
        await client.send('42["realtime:nonsense",{}]')
        assert (await client.wait_for("realtime:error"))[-1]["code"] == "RATE_LIMITED"


async def test_without_a_limit_of_bytes_there_is_none(demo: str, start: Callable[..., Server]) -> None:
    server = start(demo, max_bytes_per_second=0, max_buffered_bytes=0)
    async with WireClient(server.ws_url, {"token": token(ALICE)}) as writer:
        await writer.subscribe(CHANNEL)
        asked = [await writer.ask_in_text(text_of(900_000)) for _ in range(5)]
        assert all([(await answer)["ok"] for answer in asked])
