"""Attacks by HTTP long-polling and on the upgrade. Each gets the protocol's answer, and a witness notices nothing."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from insforge_realtime.pg.demo import ALICE, BOB
from insforge_realtime.protocol.upgrade import UPGRADE_SECONDS
from support.databases import Cluster, wait_until
from support.polling import QUERY, SEPARATOR, PollingClient, closes, handshakes, open_websocket
from support.servers import Server, token
from support.sites import MARKER, TOKEN, Site, site, witnessed
from support.wire import WireClient

AUTH = {"token": TOKEN}
CONNECT_TIMEOUT = 2.0


@pytest.fixture(scope="module")
def fortress(newest: Cluster) -> Iterator[Site]:
    """With the settings that everybody has, except that nobody wants to wait for 45 seconds."""
    with site(newest, connect_timeout=CONNECT_TIMEOUT) as running:
        yield running


@pytest.fixture(scope="module")
def strict(newest: Cluster) -> Iterator[Site]:
    """With limits and rules that the other has not."""
    with site(
        newest,
        max_connections=4,
        max_buffered_bytes=100_000,
        cors_origins="https://app.example,https://other.example",
        ping_interval=2,
        ping_timeout=1,
    ) as running:
        yield running


@contextlib.asynccontextmanager
async def attacking(running: Site, auth: Any = AUTH, **headers: str) -> AsyncIterator[PollingClient]:
    """A polling client, within half a minute."""
    async with asyncio.timeout(30), PollingClient(running.server.url, auth, **headers) as client:
        yield client


async def get(running: Site, path: str = f"/socket.io/?{QUERY}", method: str = "GET", **options: Any) -> httpx.Response:
    async with httpx.AsyncClient(base_url=running.server.url, trust_env=False) as http:
        return await http.request(method, path, **options)


def refused(answer: httpx.Response, code: int, status: int = 400) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["message"]


def logged(running: Site, event: str, start: int) -> list[dict[str, Any]]:
    return [line for line in running.server.lines[start:] if line.get("event") == event]


# Requests that no client library makes.

WRONG: dict[str, tuple[str, str, int]] = {
    "unknown sid": ("GET", f"{QUERY}&sid=unknown", 1),
    "unknown sid, posted to": ("POST", f"{QUERY}&sid=unknown", 1),
    "EIO 3": ("GET", "EIO=3&transport=polling", 5),
    "no EIO": ("GET", "transport=polling", 5),
    "transport foo": ("GET", "EIO=4&transport=foo", 0),
    "two transports": ("GET", f"{QUERY}&transport=websocket", 0),
    "a post without a session": ("POST", QUERY, 2),
    "a put without a session": ("PUT", QUERY, 2),
    "a delete of a session": ("DELETE", f"{QUERY}&sid=unknown", 1),
    "a websocket without its handshake": ("GET", "EIO=4&transport=websocket", 3),
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_request_gets_status_400_and_the_code_of_the_protocol(fortress: Site, name: str) -> None:
    method, query, code = WRONG[name]
    start = len(fortress.server.lines)
    async with witnessed(fortress):
        refused(await get(fortress, f"/socket.io/?{query}", method), code)
        assert fortress.server.wait_for_log("handshake refused", start=start)["status"] == 400


BODIES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "unexpected Engine.IO packet"),
    "only a separator": (b"\x1e", "unexpected Engine.IO packet"),
    "an empty packet in the middle": (b"3\x1e\x1e3", "unexpected Engine.IO packet"),
    "no packet": (MARKER.encode(), "unexpected Engine.IO packet"),
    "no Socket.IO packet": (b"4" + MARKER.encode(), "unknown Socket.IO packet type"),
    "no JSON": (b"42[" + MARKER.encode(), "invalid JSON"),
    "invalid base64": (b'451-["a"]\x1eb' + MARKER.encode() + b"!", "invalid base64"),
    "base64 without its end": (b'451-["a"]\x1ebQQ', "invalid base64"),
    "base64 of other characters": ('451-["a"]\x1ebé'.encode(), "invalid base64"),
    "an attachment that nobody announced": (b"bQQ==", "binary data that no packet announced"),
    "more attachments than announced": (b'451-["a"]\x1ebQQ==\x1ebQQ==', "binary data that no packet announced"),
    "a message instead of an attachment": (b'451-["a"]\x1e42["a"]', "a message where an attachment was due"),
    "eleven attachments": (b'4511-["a"]', "too many attachments"),
    "a placeholder too many": (b'451-["a",{"_placeholder":true,"num":1}]\x1ebQQ==', "a placeholder"),
    "a client's ping": (b"2", "unexpected Engine.IO packet"),
    "a probe without a WebSocket": (b"2probe", "unexpected Engine.IO packet"),
    "an upgrade without a WebSocket": (b"5", "unexpected Engine.IO packet"),
    "invalid UTF-8": (b'42["a","\xc3\x28"]', "invalid UTF-8"),
    "UTF-8 cut at its end": (b"42\xe2\x82", "invalid UTF-8"),
    "gzip": (gzip.compress(b"3"), "invalid UTF-8"),
    "the payload of revision 3": (b'2:403:42["a"]', "unexpected Engine.IO packet"),
}


@pytest.mark.parametrize("name", BODIES)
async def test_a_broken_body_gets_status_400_and_ends_the_session(fortress: Site, name: str) -> None:
    body, reason = BODIES[name]
    start = len(fortress.server.lines)
    async with witnessed(fortress), attacking(fortress) as attacker:
        refused(await attacker.ask("POST", content=body), 3)
        refused(await attacker.ask("GET"), 1)
        line = fortress.server.wait_for_log("connection closed", start=start)
        assert line["reason"].startswith(reason)


async def test_what_comes_before_a_malformed_packet_is_handled_and_what_comes_after_is_not(fortress: Site) -> None:
    async with witnessed(fortress), attacking(fortress) as attacker:
        poll = await attacker.begin_poll()
        refused(await attacker.post("40/a,", "40/b,", "x", "40/c,"), 3)
        answers = [f'44/{name},{{"message":"Invalid namespace"}}' for name in "ab"]
        assert (await poll).text.split(SEPARATOR) == [*answers, "1"]
        refused(await attacker.ask("GET"), 1)


async def test_a_poll_and_a_broken_post_that_are_read_in_one_go_are_handled_in_their_order(fortress: Site) -> None:
    async with witnessed(fortress), attacking(fortress) as attacker:
        await asyncio.gather(attacker.ask("OPTIONS"), attacker.ask("OPTIONS"))  # two connections, both idle now
        fortress.server.process.send_signal(signal.SIGSTOP)
        poll = await attacker.begin_poll()
        post = await attacker.begin("POST", content=SEPARATOR.join(("40/a,", "x")))
        fortress.server.process.send_signal(signal.SIGCONT)
        refused(await post, 3)
        assert (await poll).text.split(SEPARATOR) == ['44/a,{"message":"Invalid namespace"}', "1"]


# Two requests at a time.


async def test_overlapping_polls_end_the_session(fortress: Site) -> None:
    start = len(fortress.server.lines)
    async with witnessed(fortress), attacking(fortress) as attacker:
        first = await attacker.begin_poll()
        refused(await attacker.ask("GET"), 3)
        assert (await first).text == "1"
        refused(await attacker.ask("GET"), 1)
        assert fortress.server.wait_for_log("connection closed", start=start)["reason"] == "two polls at a time"


async def test_overlapping_posts_end_the_session_and_the_first_is_not_waited_for(fortress: Site) -> None:
    start = len(fortress.server.lines)
    async with witnessed(fortress), attacking(fortress) as attacker, half_a_post(attacker) as (reader, _):
        refused(await attacker.post("3"), 3)
        assert b" 400 " in await reader.readline()
        refused(await attacker.ask("GET"), 1)
        assert fortress.server.wait_for_log("connection closed", start=start)["reason"] == "two posts at a time"


@contextlib.asynccontextmanager
async def half_a_post(
    attacker: PollingClient, headers: str = "Content-Length: 100\r\n", body: bytes = b"3"
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A POST whose body is not all there, and on its way before anything that is sent from now on."""
    host, port = attacker.http.base_url.host, attacker.http.base_url.port
    reader, writer = await asyncio.open_connection(host, port)
    try:
        # An answered request first: a connection that is yet to be accepted would be overtaken.
        writer.write(b"GET /api/health HTTP/1.1\r\nHost: x\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
        await reader.readexactly(int(length.split(b":")[1]))
        path = f"/socket.io/?{QUERY}&sid={attacker.session}"
        writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode() + body)
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


# Large, slow and endless bodies.


async def test_a_body_that_claims_to_be_too_large_is_refused_unread_and_the_next_poll_says_why(fortress: Site) -> None:
    async with witnessed(fortress), attacking(fortress) as attacker:
        async with half_a_post(attacker, "Content-Length: 1000001\r\n", b"") as (reader, _):
            assert b" 413 " in await reader.readline()
        [packet] = await attacker.poll()
        assert json.loads(packet[2:])[1]["code"] == "PAYLOAD_TOO_LARGE"
        refused(await attacker.ask("GET"), 1)


async def test_a_body_of_just_the_limit_is_taken(fortress: Site) -> None:
    async with witnessed(fortress), attacking(fortress) as attacker:
        packet = '42["realtime:unsubscribe",{"channel":"x"}]'
        assert (await attacker.post(packet + " " * (1_000_000 - len(packet)))).text == "ok"
        answer = await attacker.post(packet + " " * (1_000_001 - len(packet)))
        refused(answer, 3, 413)


async def test_a_chunked_body_over_the_limit_is_refused_and_not_buffered(fortress: Site) -> None:
    """Twenty at a time, each fifty times the limit: 1 GB that comes, and 20 MB that may be held."""
    megabyte = b"x" * 1_000_000

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield megabyte

    async def attack() -> None:
        async with attacking(fortress) as attacker:
            refused(await attacker.ask("POST", content=endless()), 3, 413)

    async with witnessed(fortress):
        await attack()
        before, peak = fortress.memory(), 0.0
        attacks = [asyncio.create_task(attack()) for _ in range(20)]
        while not all(task.done() for task in attacks):
            peak = max(peak, fortress.memory())
            await asyncio.sleep(0.02)
        await asyncio.gather(*attacks)
        assert peak - before < 60


async def test_a_body_that_drips_ends_with_the_heartbeat_of_its_session(strict: Site) -> None:
    """Its client cannot answer a ping meanwhile, and is not waited for any longer than anybody else."""
    start = len(strict.server.lines)
    async with witnessed(strict), attacking(strict) as attacker, half_a_post(attacker) as (reader, writer):
        answer = asyncio.create_task(reader.readline())
        while not answer.done():
            writer.write(b" ")
            await asyncio.sleep(0.05)
        assert b" 400 " in await answer
        assert strict.server.wait_for_log("connection closed", start=start)["reason"] in ("ping timeout", "half a body")


async def test_a_client_that_hangs_up_in_the_middle_of_a_body_is_gone(fortress: Site) -> None:
    start = len(fortress.server.lines)
    async with witnessed(fortress), attacking(fortress) as attacker:
        async with half_a_post(attacker):
            pass
        await asyncio.to_thread(fortress.server.wait_for_log, "connection closed", start=start)
        await wait_until(
            lambda: "half a body" in [line["reason"] for line in logged(fortress, "connection closed", start)]
        )
        refused(await attacker.ask("GET"), 1)


@pytest.mark.parametrize("packet", ["3", '42["a"]'], ids=["pongs", "commands"])
async def test_a_body_of_very_many_packets_holds_nobody_up(fortress: Site, packet: str) -> None:
    number = 450_000 if packet == "3" else 15_000
    async with witnessed(fortress) as witness, attacking(fortress) as attacker:
        attacker.start()
        posting = asyncio.create_task(attacker.post(*[packet] * number))
        answers = 0
        while not posting.done():
            await witness.call("realtime:unsubscribe", {"channel": "x"})
            answers += 1
            await asyncio.sleep(0.01)
        answer = await posting
        assert answers > 4  # in one go, the body would leave room for two or three
        if packet == "3":
            assert (answer.status_code, answer.text) == (200, "ok")
        else:
            await attacker.wait_for("realtime:error", number, seconds=60)  # 15 a poll
            codes = {data["code"] for data in attacker.named("realtime:error")}
            assert codes == {"INVALID_REQUEST", "RATE_LIMITED"}


# Attachments.


async def test_attachments_that_never_come_cost_one_packet_and_the_session_goes_on(fortress: Site) -> None:
    async with witnessed(fortress), attacking(fortress) as attacker:
        assert (await attacker.post('4510-["a"]', *["b" + base64.b64encode(b"x" * 50_000).decode()] * 9)).text == "ok"
        assert (await attacker.post("3")).text == "ok"  # pongs may come in between
        await attacker.upgrade()
        await attacker.send(b"x")
        assert json.loads((await _next(attacker, "42"))[2:])[1]["code"] == "INVALID_REQUEST"


async def _next(client: PollingClient, start: str) -> str:
    await wait_until(lambda: any(packet.startswith(start) for packet in client.packets))
    return next(packet for packet in client.packets if packet.startswith(start))


async def test_attachments_over_the_limit_end_the_session(fortress: Site) -> None:
    async with witnessed(fortress), attacking(fortress) as attacker:
        assert (await attacker.post('452-["a"]', "b" + base64.b64encode(b"x" * 600_000).decode())).text == "ok"
        refused(await attacker.post("b" + base64.b64encode(b"x" * 600_000).decode()), 3)
        refused(await attacker.ask("GET"), 1)


# The upgrade.


async def still_polls(attacker: PollingClient) -> None:
    assert (await attacker.call("realtime:subscribe", {"channel": "orders"}))["ok"]


async def test_an_upgrade_given_up_after_the_probe_leaves_the_session_polling(fortress: Site) -> None:
    async with witnessed(fortress), attacking(fortress) as attacker:
        for _ in range(3):
            ws = await attacker.probe()
            await ws.close()
            await still_polls(attacker)
        ws = await attacker.websocket()
        ws.transport.abort()
        await still_polls(attacker)
        await attacker.upgrade()
        await still_polls(attacker)


async def test_a_websocket_that_stays_silent_is_cut_off_and_the_session_goes_on(fortress: Site) -> None:
    async with witnessed(fortress), attacking(fortress) as probed, attacking(fortress) as silent:
        began = asyncio.get_running_loop().time()
        sockets = [await probed.probe(), await silent.websocket()]
        assert await asyncio.gather(*map(closes, sockets)) == [([], 1006), ([], 1006)]
        assert asyncio.get_running_loop().time() - began > UPGRADE_SECONDS - 1
        for attacker in (probed, silent):
            await still_polls(attacker)
            await attacker.upgrade()
            await still_polls(attacker)


@pytest.mark.parametrize(
    "packets",
    [["5"], ["3probe"], ["2"], ["2probe", "2probe"], ["2probe", "3"], ["2probe", '42["a"]'], ["40"], ["1"], [""],
     [b"2probe"], ["2probe", b"5"], ["2probe "], ["2probe", "5x"], ["x" * 2_000_000]],
    ids=lambda packets: ascii(packets)[:30],
)  # fmt: skip
async def test_wrong_packets_in_a_probe_close_the_websocket_and_the_session_goes_on(
    fortress: Site, packets: list[str | bytes]
) -> None:
    start = len(fortress.server.lines)
    async with witnessed(fortress), attacking(fortress) as attacker:
        ws = await attacker.websocket()
        with contextlib.suppress(ConnectionClosed):  # the large one is refused while it is being sent
            for packet in packets:
                await ws.send(packet)
        got, code = await closes(ws)
        assert got == (["3probe"] if packets[0] == "2probe" else [])
        assert code == (1009 if len(packets[0]) > 1_000_000 else 1002)
        assert fortress.server.wait_for_log("upgrade failed", start=start)["code"] == code
        await still_polls(attacker)


async def test_a_websocket_of_an_unknown_session_is_refused(fortress: Site) -> None:
    async with witnessed(fortress):
        with pytest.raises(InvalidStatus) as error:
            await open_websocket(fortress.server.url, "unknown")
        assert error.value.response.status_code == 400
        assert json.loads(error.value.response.body or b"")["code"] == 1


async def test_a_second_upgrade_at_the_same_time_is_closed_and_the_first_goes_on(fortress: Site) -> None:
    async with witnessed(fortress), attacking(fortress) as attacker:
        first = await attacker.probe()
        intruders = [await attacker.websocket() for _ in range(5)]
        for intruder in intruders:
            with contextlib.suppress(ConnectionClosed):
                await intruder.send("2probe")
                await intruder.send("5")
        assert [await closes(intruder) for intruder in intruders] == [([], 1002)] * 5
        await attacker.take_over(first)
        await still_polls(attacker)
        late = await attacker.websocket()
        assert await closes(late) == ([], 1002)
        await still_polls(attacker)


async def test_a_session_that_ends_while_it_is_probed_takes_the_websocket_with_it(fortress: Site) -> None:
    async with witnessed(fortress), attacking(fortress) as attacker:
        ws = await attacker.probe()
        refused(await attacker.post("x"), 3)
        assert await closes(ws) == ([], 1002)


# Clients that come and do nothing, or go.

BIG = (
    "SELECT count(realtime.publish('orders', 'big', jsonb_build_object('text', $1::text))) FROM generate_series(1, $2)"
)


async def test_ten_thousand_handshakes_that_never_connect_cost_little_and_are_all_gone_in_time(
    start: Callable[..., Server], demo: str
) -> None:
    # Nobody gives way here, and nobody is too quick: what is measured is how little so many cost.
    server = start(
        demo, connect_timeout=12, max_unauthenticated=0, max_sockets_per_address=0, max_handshakes_per_second=0
    )
    running = Site(server, demo, server.process.pid)
    async with witnessed(running):
        await handshakes(running.server.port, 500)
        before = running.memory()
        await handshakes(running.server.port, 10_000)
        cost = running.memory() - before
        assert running.health()["connections"] == 10_501
        assert cost < 60
        settled = 60.0
        for _ in range(2):  # what they had is used again, once the garbage collector has seen that they are gone
            await running.is_left_by_all_but(1, seconds=40)
            await handshakes(running.server.port, 5_000)
            again = running.memory() - before
            assert again < settled
            settled = again + 5


async def test_max_connections_counts_sessions_that_poll(strict: Site) -> None:
    await strict.is_left_by_all_but(0)
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(PollingClient(strict.server.url, AUTH)) for _ in range(4)]
        refused(await get(strict), 4, 503)
        with pytest.raises(InvalidStatus) as error:
            await open_websocket(strict.server.url)
        assert error.value.response.status_code == 503
        await clients[0].upgrade()  # which is not one more
        assert (await clients[0].subscribe("orders"))["ok"]
        await clients[1].post("1")
        await clients[1].poll()
        await strict.is_left_by_all_but(3)
        async with PollingClient(strict.server.url, AUTH):
            pass


async def test_who_hangs_up_a_poll_has_left_at_once(fortress: Site) -> None:
    async with witnessed(fortress) as witness, attacking(fortress, {"token": token(BOB)}) as attacker:
        assert (await witness.subscribe("orders"))["ok"]
        assert (await attacker.call("realtime:subscribe", {"channel": "orders"}))["ok"]
        await witness.wait_for("presence:join")
        poll = await attacker.begin_poll()
        poll.cancel()
        await asyncio.gather(poll, return_exceptions=True)
        (left,) = await witness.wait_for("presence:leave")
        assert left["member"]["presenceId"] == BOB
        refused(await attacker.ask("GET"), 1)


async def test_a_client_that_stops_polling_is_a_slow_consumer(strict: Site) -> None:
    start = len(strict.server.lines)
    async with witnessed(strict) as witness, attacking(strict) as attacker:
        assert (await attacker.call("realtime:subscribe", {"channel": "orders"}))["ok"]
        await strict.sql(BIG, os.urandom(5_000).hex(), 15)
        await witness.wait_for("big", 15)
        assert strict.server.wait_for_log("slow consumer closed", start=start)["limit"] == 100_000
        refused(await attacker.ask("GET"), 1)
        await wait_until(lambda: len(logged(strict, "slow consumer closed", start)) == 1)


async def test_a_client_that_polls_slowly_but_does_gets_everything(strict: Site) -> None:
    async with witnessed(strict) as witness, attacking(strict) as attacker:
        assert (await attacker.call("realtime:subscribe", {"channel": "orders"}))["ok"]
        for number in range(12):
            await strict.sql("SELECT realtime.publish('orders', 'big', $1)", json.dumps({"text": "x" * 40_000}))
            await witness.wait_for("big", number + 1)
            if number % 2:
                await attacker.poll()
        assert len(attacker.named("big")) == 12


@pytest.mark.parametrize("method", ["PUT", "DELETE", "HEAD", "PATCH", "TRACE"])
async def test_other_methods_on_a_session_are_refused_and_do_not_touch_it(fortress: Site, method: str) -> None:
    async with witnessed(fortress), attacking(fortress) as attacker:
        assert (await attacker.ask(method)).status_code == 400
        await still_polls(attacker)


# Web pages of other origins.

GOOD, EVIL = "https://app.example", "https://evil.example"


def preflight(origin: str, method: str = "POST") -> dict[str, str]:
    return {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": "x-custom"}


async def test_a_preflight_of_an_allowed_origin_is_answered_and_of_another_refused(strict: Site) -> None:
    answer = await get(strict, method="OPTIONS", headers=preflight(GOOD))
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == GOOD
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-headers"] == "x-custom"
    answer = await get(strict, method="OPTIONS", headers=preflight(EVIL))
    assert answer.status_code == 400
    assert "access-control-allow-origin" not in answer.headers
    assert (await get(strict, method="OPTIONS", headers=preflight(GOOD, "DELETE"))).status_code == 400


async def test_requests_of_an_allowed_origin_are_answered_with_it_and_also_when_they_fail(strict: Site) -> None:
    async with attacking(strict, Origin=GOOD) as client:
        for answer in (await client.post("3"), await client.post("x"), await client.ask("GET")):
            assert answer.headers["access-control-allow-origin"] == GOOD
            assert answer.headers["access-control-allow-credentials"] == "true"
            assert "Origin" in answer.headers["vary"]


async def test_requests_of_another_origin_are_refused_and_the_session_goes_on(strict: Site) -> None:
    start = len(strict.server.lines)
    async with witnessed(strict), attacking(strict) as client:
        for origin in (EVIL, "null", GOOD + ".evil.example", GOOD.upper(), ""):
            headers = {"Origin": origin}
            for answer in (
                await get(strict, headers=headers),
                await client.ask("GET", headers=headers),
                await client.ask("POST", headers=headers, content="x"),
            ):
                refused(answer, 4, 403)
                assert "access-control-allow-origin" not in answer.headers
        await still_polls(client)
        await wait_until(lambda: 403 in [line["status"] for line in logged(strict, "handshake refused", start)])


async def test_a_websocket_of_another_origin_cannot_take_over_a_session(strict: Site) -> None:
    async with witnessed(strict), attacking(strict) as client:
        for session in (client.session, None):
            with pytest.raises(InvalidStatus) as error:
                await open_websocket(strict.server.url, session, Origin=EVIL)
            assert error.value.response.status_code == 403
            assert json.loads(error.value.response.body or b"")["code"] == 4
        await client.take_over(await client.probe())
        await still_polls(client)
        ws = await open_websocket(strict.server.url, Origin=GOOD)
        await ws.close()


async def test_two_origins_at_once_are_nobodys(strict: Site) -> None:
    answer = await get(strict, headers=[("Origin", GOOD), ("Origin", GOOD)])
    refused(answer, 4, 403)


# Compression.


async def test_a_large_answer_is_compressed_for_who_takes_it_and_a_small_one_is_not(fortress: Site) -> None:
    async with witnessed(fortress) as witness, attacking(fortress) as attacker:
        await still_polls(attacker)
        for encoding, size, expected in (
            ("gzip", 2_000, "gzip"),
            ("gzip", 100, None),
            ("identity", 2_000, None),
            ("br", 2_000, None),
        ):
            await fortress.sql("SELECT realtime.publish('orders', 'text', $1)", json.dumps({"text": "x" * size}))
            await witness.wait_for("text")
            witness.events.clear()
            answer = await attacker.ask("GET", headers={"Accept-Encoding": encoding})
            assert answer.headers.get("content-encoding") == expected
            assert json.loads(answer.text[2:])[1]["text"] == "x" * size
            assert int(answer.headers["content-length"]) < 1_000 or expected is None


# Transports that are not offered.


@pytest.mark.parametrize("offered", ["polling", "websocket"])
async def test_a_transport_that_is_not_offered_does_not_exist(
    start: Callable[..., Server], demo: str, offered: str
) -> None:
    server = start(demo, transports=offered)
    running = Site(server, demo, server.process.pid)
    if offered == "polling":
        async with attacking(running) as client:
            assert client.open_packet["upgrades"] == []
            await still_polls(client)
            for session in (None, client.session):
                with pytest.raises(InvalidStatus) as error:
                    await open_websocket(server.url, session)
                assert error.value.response.status_code == 400
                assert json.loads(error.value.response.body or b"")["code"] == 0
            await still_polls(client)
    else:
        refused(await get(running), 0)
        async with WireClient(server.ws_url, AUTH) as client:
            assert (await client.subscribe("orders"))["ok"]
    running.is_well()


# Ends that are the server's.


async def test_a_token_that_expires_ends_a_polling_session_and_says_so(fortress: Site) -> None:
    start = len(fortress.server.lines)
    async with witnessed(fortress), attacking(fortress, {"token": token(ALICE, ttl=1)}) as client:
        await still_polls(client)
        [packet] = await client.poll()
        assert json.loads(packet[2:])[1]["code"] == "TOKEN_EXPIRED"
        refused(await client.ask("GET"), 1)
    async with attacking(fortress, {"token": token(ALICE, ttl=1)}) as client:  # who does not poll just then
        await wait_until(lambda: fortress.health()["connections"] == 1)
        await asyncio.sleep(1.5)
        assert json.loads((await client.poll())[-1][2:])[1]["code"] == "TOKEN_EXPIRED"
        refused(await client.ask("GET"), 1)
    assert logged(fortress, "slow consumer closed", start) == []


async def test_at_sigterm_polls_are_refused_as_of_no_session_and_the_server_ends_at_once(
    start: Callable[..., Server], demo: str
) -> None:
    server = start(demo)
    running = Site(server, demo, server.process.pid)
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(PollingClient(server.url, AUTH)) for _ in range(5)]
        polls = [await client.begin_poll() for client in clients[:3]]
        await stack.enter_async_context(half_a_post(clients[3]))
        probing = await clients[4].probe()
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        for poll in polls:
            refused(await poll, 1)
        assert (await closes(probing))[0] == []
        assert await asyncio.to_thread(server.process.wait, 20) == 0
        assert time.monotonic() - began < 3.5  # and not the four seconds after which uvicorn cuts
    assert running.server.errors() == []


async def test_after_a_restart_the_old_session_is_unknown_and_a_new_one_works(
    start: Callable[..., Server], demo: str
) -> None:
    server = start(demo)
    async with PollingClient(server.url, AUTH) as client:
        poll = await client.begin_poll()
        assert await asyncio.to_thread(server.stop) == 0
        refused(await poll, 1)
        server.start()
        refused(await client.ask("GET"), 1)
        with pytest.raises(InvalidStatus):
            await client.websocket()
    async with PollingClient(server.url, AUTH) as client:
        assert (await client.subscribe("orders"))["ok"]
