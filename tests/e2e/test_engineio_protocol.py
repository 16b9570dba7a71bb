"""The Engine.IO protocol, revision 4: one test for each sentence that says what a server must, should or may do.

Each test is named after its sentence, in the order of the document, and made of requests and packets, without a client
library. "(both)" in a comment means that the sentence is about either transport, and the tests come in twos.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from support.databases import Cluster, wait_until
from support.polling import SEPARATOR, PollingClient, closes, open_websocket
from support.sites import TOKEN, Site, site

POLLING = "/socket.io/?EIO=4&transport=polling"
AUTH = {"token": TOKEN}


@pytest.fixture(scope="module")
def plain(newest: Cluster) -> Iterator[Site]:
    """With the settings that everybody has."""
    with site(newest) as running:
        yield running


@pytest.fixture(scope="module")
def brisk(newest: Cluster) -> Iterator[Site]:
    """With heartbeats that a test can wait for."""
    with site(newest, ping_interval=0.5, ping_timeout=0.3) as running:
        yield running


async def get(running: Site, path: str, method: str = "GET", **options: Any) -> httpx.Response:
    async with httpx.AsyncClient(base_url=running.server.url, trust_env=False) as http:
        return await http.request(method, path, **options)


def refused(answer: httpx.Response, code: int) -> None:
    """Status 400, and JSON with a code of the protocol."""
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["code"] == code
    assert answer.json()["message"]


async def session_is_gone(client: PollingClient) -> None:
    refused(await client.ask("GET"), 1)
    refused(await client.ask("POST", content="3"), 1)


# Transports: HTTP long-polling.


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("", 5),
        ("transport=polling", 5),
        ("EIO=&transport=polling", 5),
        ("EIO=abc&transport=polling", 5),
        ("EIO=3&transport=polling", 5),
        ("EIO=5&transport=polling", 5),
        ("EIO=4&EIO=4&transport=polling", 5),
        ("EIO=4", 0),
        ("EIO=4&transport=", 0),
        ("EIO=4&transport=foo", 0),
        ("EIO=4&transport=polling&transport=polling", 0),
        ("EIO=4&transport=webtransport", 0),
        ("EIO=4&transport=websocket", 3),
    ],
)
async def test_if_a_mandatory_query_parameter_is_missing_the_server_must_respond_with_status_400(
    plain: Site, query: str, code: int
) -> None:
    refused(await get(plain, f"/socket.io/?{query}"), code)


@pytest.mark.parametrize("content_type", [None, "text/plain;charset=UTF-8", "application/octet-stream"])
async def test_without_a_content_type_the_receiver_should_infer_plain_text(
    plain: Site, content_type: str | None
) -> None:
    """Whatever the header says, the body means the same: Node's client sends text as text/plain, others send no header."""
    async with PollingClient(plain.server.url, AUTH) as client:
        headers = {} if content_type is None else {"Content-Type": content_type}
        request = '421["realtime:subscribe",{"channel":"orders"}]'
        assert (await client.ask("POST", content=request, headers=headers)).text == "ok"
        assert (await client.poll_until("431[")).startswith('431[{"ok":true')


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "HEAD"])
async def test_the_server_must_return_400_if_the_session_is_not_known(plain: Site, method: str) -> None:
    for sid in ("unknown", "%00%ff", "x" * 4000, "unknown&sid=other"):
        answer = await get(plain, f"{POLLING}&sid={sid}", method)
        if method == "HEAD":
            assert answer.status_code == 400
        else:
            refused(answer, 1)


async def test_to_indicate_success_the_server_must_return_200_with_the_string_ok(plain: Site) -> None:
    async with PollingClient(plain.server.url) as client:
        answer = await client.post("3")
        assert (answer.status_code, answer.text) == (200, "ok")
        assert answer.headers["content-type"] == "text/plain; charset=UTF-8"


async def test_more_than_one_active_post_the_server_must_return_400_and_close_the_session(plain: Site) -> None:
    async with PollingClient(plain.server.url, AUTH) as client:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def half() -> Any:
            yield b"3"
            begun.set()
            await go_on.wait()

        pending = await client.begin_poll()
        first = asyncio.create_task(client.ask("POST", content=half()))
        await begun.wait()
        refused(await client.post("3"), 3)
        assert (await pending).text == "1"
        go_on.set()
        refused(await first, 3)
        await session_is_gone(client)


async def test_the_server_may_not_respond_right_away_if_no_packets_are_buffered(plain: Site) -> None:
    async with PollingClient(plain.server.url, AUTH) as client:
        assert (await client.call("realtime:subscribe", {"channel": "orders"}))["ok"]
        poll = await client.begin_poll()
        await client.post("3")
        assert not poll.done()
        await plain.sql("SELECT realtime.publish('orders', 'x', '{}')")
        assert (await poll).text.startswith('42["x",')


async def test_once_there_are_packets_the_server_should_encode_them_and_send_them_in_the_response(plain: Site) -> None:
    async with PollingClient(plain.server.url, AUTH) as client:
        assert (await client.call("realtime:subscribe", {"channel": "orders"}))["ok"]
        for number in range(3):
            await client.emit("realtime:subscribe", {"channel": number})  # each is answered at once
        await client.call("realtime:subscribe", {"channel": "orders"})
        assert [packet[:19] for packet in client.packets[-4:-1]] == ['42["realtime:error"'] * 3
        await client.post('42["a"]')
        answer = await client.ask("GET")
        assert answer.headers["content-type"] == "text/plain; charset=UTF-8"
        assert answer.headers["cache-control"] == "no-store"


async def test_more_than_one_active_get_the_server_must_return_400_and_close_the_session(plain: Site) -> None:
    async with PollingClient(plain.server.url, AUTH) as client:
        first = await client.begin_poll()
        refused(await client.ask("GET"), 3)
        assert ((await first).status_code, (await first).text) == (200, "1")
        await session_is_gone(client)


async def test_a_poll_that_the_client_cancels_closes_the_session(plain: Site) -> None:
    """No sentence, but a case of the protocol's test suite: what the answer had in it would be lost."""
    async with PollingClient(plain.server.url) as client:
        poll = await client.begin_poll()
        poll.cancel()
        await asyncio.gather(poll, return_exceptions=True)
        # Connections overtake each other. If the next poll is heard of before the first has ended, it is the second at a
        # time; and if it is heard of before the first itself, then it is the one that waits and is told so.
        answer = await client.ask("GET")
        assert answer.status_code == 400 or answer.text == "1"
        refused(await client.ask("GET"), 1)


# Transports: WebSocket.


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("transport=websocket", 5),
        ("EIO=abc&transport=websocket", 5),
        ("EIO=4", 0),
        ("EIO=4&transport=abc", 0),
        ("EIO=4&transport=polling", 3),
    ],
)
async def test_if_a_mandatory_parameter_is_missing_the_server_must_close_the_websocket(
    plain: Site, query: str, code: int
) -> None:
    with pytest.raises(InvalidStatus) as error:
        await open_websocket(plain.server.url, query=query)
    assert error.value.response.status_code == 400
    assert json.loads(error.value.response.body or b"")["code"] == code


async def test_each_packet_is_sent_in_its_own_frame(plain: Site) -> None:
    ws = await open_websocket(plain.server.url)
    assert json.loads((await ws.recv())[1:])
    await ws.send("40" + json.dumps(AUTH))
    assert str(await ws.recv()).startswith('40{"sid":')
    for number in range(3):
        await ws.send(f'42{number}["realtime:unsubscribe",{{"channel":"x"}}]')
    assert [str(await ws.recv()) for _ in range(3)] == [f'43{n}[{{"ok":true,"channel":"x"}}]' for n in range(3)]
    await ws.close()


async def test_more_than_one_websocket_per_session_the_server_must_close_it(plain: Site) -> None:
    async with PollingClient(plain.server.url, AUTH) as client:
        await client.upgrade()
        assert await closes(await client.websocket()) == ([], 1002)
        second = await client.websocket()
        with contextlib.suppress(ConnectionClosed):  # it may be closed already
            await second.send("2probe")
        assert await closes(second) == ([], 1002)
        assert (await client.subscribe("orders"))["ok"]
    ws = await open_websocket(plain.server.url)
    sid = json.loads((await ws.recv())[1:])["sid"]
    with pytest.raises(InvalidStatus):  # one that began as a WebSocket never asks for another
        await open_websocket(plain.server.url, sid)
    await ws.send("40" + json.dumps(AUTH))
    assert str(await ws.recv()).startswith("40")
    await ws.close()


async def test_a_second_websocket_while_the_first_is_asking_is_closed_and_the_first_goes_on(plain: Site) -> None:
    async with PollingClient(plain.server.url, AUTH) as client:
        first = await client.probe()
        assert await closes(await client.websocket()) == ([], 1002)
        await client.take_over(first)
        assert (await client.subscribe("orders"))["ok"]


# Handshake.

HANDSHAKE = {"pingInterval": 25000, "pingTimeout": 20000, "maxPayload": 1_000_000}


async def test_if_the_server_accepts_it_must_respond_with_an_open_packet_over_polling(plain: Site) -> None:
    answer = await get(plain, POLLING + "&t=abc")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; charset=UTF-8"
    handshake = json.loads(answer.text.removeprefix("0"))
    sid = handshake.pop("sid")
    assert handshake == {**HANDSHAKE, "upgrades": ["websocket"]}
    assert len(sid) >= 20
    assert json.loads((await get(plain, POLLING)).text[1:])["sid"] != sid
    await get(plain, f"{POLLING}&sid={sid}", "POST", content="1")


async def test_if_the_server_accepts_it_must_respond_with_an_open_packet_over_websocket(plain: Site) -> None:
    ws = await open_websocket(plain.server.url)
    handshake = json.loads(str(await ws.recv()).removeprefix("0"))
    assert isinstance(handshake.pop("sid"), str)
    assert handshake == {**HANDSHAKE, "upgrades": []}
    await ws.close()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS"])
async def test_to_establish_a_connection_the_client_must_send_get(plain: Site, method: str) -> None:
    answer = await get(plain, POLLING, method)
    if method == "HEAD":
        assert answer.status_code == 400
    else:
        refused(answer, 2)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "HEAD", "PATCH", "OPTIONS"])
async def test_of_a_session_only_get_and_post_are_asked_and_others_do_not_touch_it(plain: Site, method: str) -> None:
    async with PollingClient(plain.server.url, AUTH) as client:
        answer = await client.ask(method)
        if method == "HEAD":
            assert answer.status_code == 400
        else:
            refused(answer, 3)
        assert (await client.subscribe("orders"))["ok"]


# Heartbeat (both).


async def test_at_the_ping_interval_the_server_sends_a_ping_over_polling(brisk: Site) -> None:
    async with PollingClient(brisk.server.url) as client:
        for _ in range(3):
            assert (await client.ask("GET")).text == "2"
            assert (await client.post("3")).text == "ok"


async def test_at_the_ping_interval_the_server_sends_a_ping_over_websocket(brisk: Site) -> None:
    ws = await open_websocket(brisk.server.url)
    await ws.recv()
    for _ in range(3):
        assert await ws.recv() == "2"
        await ws.send("3")
    await ws.close()


async def test_without_a_pong_the_server_should_consider_a_polling_connection_closed(brisk: Site) -> None:
    start = len(brisk.server.lines)
    async with PollingClient(brisk.server.url) as client:
        assert (await client.ask("GET")).text == "2"
        assert (await client.ask("GET")).text == "1"  # it waits, and is told
        await session_is_gone(client)
    assert brisk.server.wait_for_log("connection closed", start=start)["reason"] == "ping timeout"


async def test_without_a_pong_a_client_that_does_not_even_poll_is_forgotten(brisk: Site) -> None:
    start = len(brisk.server.lines)
    async with PollingClient(brisk.server.url) as client:
        await asyncio.to_thread(brisk.server.wait_for_log, "connection closed", start=start)
        await session_is_gone(client)


async def test_without_a_pong_the_server_should_consider_a_websocket_connection_closed(brisk: Site) -> None:
    ws = await open_websocket(brisk.server.url)
    await ws.recv()
    assert await closes(ws) == (["2"], 1002)


async def test_the_heartbeat_goes_on_across_the_upgrade(brisk: Site) -> None:
    async with PollingClient(brisk.server.url, AUTH) as client:
        ws = await client.probe()
        await wait_until(lambda: brisk.health()["connections"] == 1)
        await client.take_over(ws)
        await wait_until(lambda: client.packets.count("2") >= 3)
        assert not client.closed.is_set()


# Upgrade.


async def test_the_server_must_send_a_noop_to_a_pending_get_and_respond_with_a_probe_pong(plain: Site) -> None:
    async with PollingClient(plain.server.url, AUTH) as client:
        pending = await client.begin_poll()
        ws = await client.websocket()
        await ws.send("2probe")
        assert await ws.recv() == "3probe"
        assert (await pending).text == "6"
        assert (await client.ask("GET")).text == "6"  # and to one that comes later
        await client.take_over(ws)
        assert (await client.subscribe("orders"))["ok"]


async def test_the_probe_changes_nothing_until_the_upgrade_packet(plain: Site) -> None:
    async with PollingClient(plain.server.url, AUTH) as client:
        ws = await client.probe()
        assert (await client.subscribe("orders"))["ok"]
        await ws.close()
        assert (await client.subscribe("orders"))["ok"]


async def test_after_the_upgrade_packet_requests_with_the_session_are_answered_with_400(plain: Site) -> None:
    async with PollingClient(plain.server.url, AUTH) as client:
        await client.upgrade()
        await client.subscribe("orders")
        for method in ("GET", "POST", "PUT"):
            refused(await client.ask(method), 3)
        assert (await client.subscribe("orders"))["ok"]


async def test_a_request_right_after_the_upgrade_packet_is_answered_with_400(plain: Site) -> None:
    """The protocol's test suite does not wait for anything in between."""
    async with PollingClient(plain.server.url, AUTH) as client:
        ws = await client.probe()
        await client.take_over(ws)
        refused(await client.ask("GET"), 3)
        assert (await client.subscribe("orders"))["ok"]


async def test_the_upgrade_packet_may_come_together_with_the_probe(plain: Site) -> None:
    async with PollingClient(plain.server.url, AUTH) as client:
        ws = await client.websocket()
        await ws.send("2probe")
        await ws.send("5")
        assert await ws.recv() == "3probe"
        refused(await client.ask("GET"), 3)
        client.ws = ws
        await client.emit("realtime:subscribe", {"channel": 5})
        assert "INVALID_REQUEST" in str(await ws.recv())


# Close (both).


@pytest.mark.parametrize("polls", [True, False], ids=["pending", "later"])
async def test_a_close_packet_ends_a_polling_session_and_its_poll_gets_a_noop(plain: Site, polls: bool) -> None:
    async with PollingClient(plain.server.url) as client:
        pending = await client.begin_poll() if polls else None
        assert (await client.post("1")).text == "ok"
        answer = await (pending or client.ask("GET"))
        assert (answer.status_code, answer.text) == (200, "6")
        await session_is_gone(client)


async def test_a_close_packet_closes_the_websocket(plain: Site) -> None:
    ws = await open_websocket(plain.server.url)
    await ws.recv()
    await ws.send("1")
    assert await closes(ws) == ([], 1000)


# Message, and packet encoding.


async def test_several_packets_in_one_payload_are_handled_in_order(plain: Site) -> None:
    async with PollingClient(plain.server.url, AUTH) as client:
        requests = [f'42{n}["realtime:unsubscribe",{{"channel":"c{n}"}}]' for n in range(20)]
        assert (await client.post(*requests)).text == "ok"
        await client.poll_until("4319[")
        acks = [packet for packet in client.packets if packet.startswith("43")]
        assert acks == [f'43{n}[{{"ok":true,"channel":"c{n}"}}]' for n in range(20)]


async def test_the_packets_of_a_response_are_separated_by_the_record_separator(plain: Site) -> None:
    async with PollingClient(plain.server.url, AUTH) as client:
        await client.post(*['42["a"]'] * 3)
        text = ""
        while text.count("42[") < 3:
            answer = await client.ask("GET")
            text += (SEPARATOR if text else "") + answer.text
        assert len(text.split(SEPARATOR)) == 3
        assert all(json.loads(packet[2:])[0] == "realtime:error" for packet in text.split(SEPARATOR))


async def test_the_character_encoding_is_utf_8(plain: Site) -> None:
    async with PollingClient(plain.server.url, AUTH) as client:
        answer = await client.call("realtime:unsubscribe", {"channel": "žluťoučký 🐎\u2028"})
        assert answer["channel"] == "žluťoučký 🐎\u2028"
        await client.upgrade()
        assert (await client.call("realtime:unsubscribe", {"channel": "🐎"}))["channel"] == "🐎"


BINARY_PUBLISH = (
    '451-7["realtime:publish",{"channel":"orders","event":"x","payload":{"a":{"_placeholder":true,"num":0}}}]'
)


async def test_binary_payloads_must_be_base64_with_the_prefix_b_over_polling(plain: Site) -> None:
    async with PollingClient(plain.server.url, AUTH) as client:
        await client.post(BINARY_PUBLISH, "b" + base64.b64encode(b"\x01\x02\x03\x04").decode())
        answer = json.loads((await client.poll_until("437["))[3:])[0]
        assert answer["error"]["code"] == "INVALID_REQUEST"
        assert "binary" in answer["error"]["message"]
        # In two requests, too: a payload is no unit of anything.
        await client.post(BINARY_PUBLISH)
        await client.post("bAQIDBA==")
        await client.poll_until("437[")


async def test_binary_payloads_are_sent_as_they_are_over_websocket(plain: Site) -> None:
    async with PollingClient(plain.server.url, AUTH) as client:
        await client.upgrade()
        await client.send(BINARY_PUBLISH)
        await client.send(b"\x01\x02\x03\x04")
        await client.subscribe("orders")
        answer = next(packet for packet in client.packets if packet.startswith("437["))
        assert "binary" in answer


INVALID = ["abc", "", "7", "0{}", "2", "2probe", "5", "6", "4", "4abc", "b!", "bAQ", "bAQIDBA==", "3" + SEPARATOR]


@pytest.mark.parametrize("text", INVALID, ids=ascii)
async def test_an_invalid_packet_closes_the_session_over_polling(plain: Site, text: str) -> None:
    async with PollingClient(plain.server.url, AUTH) as client:
        refused(await client.ask("POST", content=text), 3)
        await session_is_gone(client)


@pytest.mark.parametrize("text", INVALID, ids=ascii)
async def test_an_invalid_packet_is_heard_of_by_the_poll_that_waits(plain: Site, text: str) -> None:
    async with PollingClient(plain.server.url, AUTH) as client:
        pending = await client.begin_poll()
        refused(await client.ask("POST", content=text), 3)
        assert (await pending).text == "1"
        await session_is_gone(client)


@pytest.mark.parametrize(
    "packet", ["abc", "", "7", "0{}", "2", "2probe", "5", "6", "4", "bAQIDBA==", b"\x01"], ids=ascii
)
async def test_an_invalid_packet_closes_the_session_over_websocket(plain: Site, packet: str | bytes) -> None:
    ws = await open_websocket(plain.server.url)
    await ws.recv()
    await ws.send(packet)
    assert await closes(ws) == ([], 1002)


# Pages of other origins, as browsers ask for them.


async def test_the_transports_of_a_page_from_elsewhere_are_allowed_without_credentials(plain: Site) -> None:
    origin = {"Origin": "https://app.example"}
    async with PollingClient(plain.server.url, AUTH, **origin) as client:
        answer = await client.post("3")
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers
