"""Floods at the door of a real server: who has no place, who gives way, and that an honest client comes in throughout.

The limits are low here, so that a few hundred sockets are a flood.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import httpx
import psutil
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from insforge_realtime.floods import BURST
from insforge_realtime.web.limiters import BURST_SECONDS
from insforge_realtime.web.timer_wheel import SLOT_SECONDS
from support.databases import Cluster, wait_until
from support.polling import QUERY, PollingClient, closes, handshakes, open_websocket
from support.raw import RawClient, masked_text_frame
from support.servers import AsgiServer, Server, token
from support.sites import TOKEN, Site, site, witnessed
from support.wire import Refused, WireClient

AUTH = {"token": TOKEN}
POOL = 40
FLOOD = 500
HANDSHAKE = (
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@pytest.fixture(scope="module")
def narrow(newest: Cluster) -> Iterator[Site]:
    """With few places for strangers; their sessions of polling, whom nobody can see leave, are over in ten seconds."""
    with site(newest, max_unauthenticated=POOL, connect_timeout=10) as running:
        yield running


@pytest.fixture(scope="module")
def proxied(newest: Cluster) -> Iterator[Site]:
    """Behind a proxy, which the tests are, with few places and few tries for each address."""
    with site(
        newest,
        trusted_proxies="127.0.0.1",
        max_sockets_per_address=3,
        max_handshakes_per_second=0.5,
        max_connects_per_second=0.2,
        max_refused_connects=0,
    ) as running:
        yield running


def somebody() -> dict[str, object]:
    """Credentials of a user whom no other test has: who sends much has that bucket of bytes alone."""
    return {"token": token(str(uuid.uuid4()))}


def files(running: Site) -> int:
    number: int = psutil.Process(running.pid).num_fds()
    return number


@contextlib.asynccontextmanager
async def leaves_nothing(running: Site) -> AsyncIterator[Callable[[], int]]:
    """After the block, the server has as many files, sockets and strangers as before it. Yields what tells the latter."""
    with httpx.Client(trust_env=False) as http:  # one and the same connection, which counts as well

        def load() -> tuple[int, int, int, int]:
            feed = http.get(f"{running.server.url}/api/health").json()["feed"]
            return feed["unauthenticated"], files(running), feed["sockets"], feed["connections"]

        await wait_until(lambda: load()[0] <= 1, 20)
        before = load()
        yield lambda: load()[0]
        await wait_until(lambda: load() == before, 20)


async def honest(running: Site) -> None:
    """Somebody who comes in by WebSocket, asks for something, and leaves."""
    async with asyncio.timeout(10), WireClient(running.server.ws_url, AUTH) as client:
        assert (await client.subscribe("orders"))["ok"]


async def honest_poller(running: Site) -> None:
    async with asyncio.timeout(10), PollingClient(running.server.url, AUTH) as client:
        assert (await client.subscribe("orders"))["ok"]


class Crowd:
    """Sockets that stay open, as far as the server lets them."""

    def __init__(self, running: Site) -> None:
        self._running = running
        self.sockets: list[RawClient] = []

    async def come(self, says: bytes, answer: bytes = b"") -> None:
        """One more, which says something, and stays."""
        loop = asyncio.get_running_loop()
        _, socket = await loop.create_connection(RawClient, "127.0.0.1", self._running.server.port)
        self.sockets.append(socket)
        socket.transport.write(says)
        if answer:
            await socket.until(answer)

    def gone(self) -> list[int]:
        """Which of them the server has hung up on."""
        return [number for number, socket in enumerate(self.sockets) if socket.closed]

    def go(self) -> None:
        for socket in self.sockets:
            socket.close()


# Those who never say who they are.

STRANGERS: dict[str, tuple[bytes, bytes]] = {
    "silent": (b"", b""),
    "half a head": (b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nX-Slow: ", b""),
    "half a body": (
        b"POST /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx",
        b"}",
    ),
    "a WebSocket without a CONNECT": (HANDSHAKE, b"pingInterval"),
    "a WebSocket with half a CONNECT": (HANDSHAKE + b"\x81\xff" + (19_000).to_bytes(8, "big") + bytes(4) + b"40{", b""),
    "a WebSocket with a refused CONNECT": (HANDSHAKE + masked_text_frame('40{"token":"x"}'), b"UNAUTHORIZED"),
    "HTTP that is kept alive": (b"GET /api/health HTTP/1.1\r\nHost: x\r\n\r\n", b'"lastGap"'),
    "a session of polling": (b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\n\r\n", b"maxPayload"),
}


@pytest.mark.parametrize("kind", STRANGERS)
async def test_a_flood_of_strangers_drives_out_strangers_and_honest_clients_come_in_throughout(
    narrow: Site, kind: str
) -> None:
    crowd = Crowd(narrow)
    gave_way = narrow.health()["gaveWay"]
    async with leaves_nothing(narrow), witnessed(narrow), PollingClient(narrow.server.url, AUTH) as poller:
        assert (await poller.subscribe("orders"))["ok"]
        before = files(narrow)
        most = 0
        for number in range(FLOOD):
            await crowd.come(*STRANGERS[kind])
            if number % 50 == 49:
                await honest(narrow)
                await honest_poller(narrow)
                most = max(most, files(narrow))
        assert most - before <= POOL + 10  # the honest ones, and those who are just hanging up
        health = narrow.health()
        assert health["unauthenticated"] <= 2 * POOL  # sockets, and sessions
        assert health["gaveWay"] - gave_way >= FLOOD - 2 * POOL
        assert (await poller.subscribe("orders"))["ok"]  # its session and its sockets are no strangers
        await wait_until(lambda: len(crowd.gone()) >= FLOOD - POOL, 10)
        crowd.go()
    narrow.is_well()


async def test_of_the_strangers_the_oldest_gives_way(narrow: Site) -> None:
    crowd = Crowd(narrow)
    async with leaves_nothing(narrow):
        for _ in range(POOL + 10):
            await crowd.come(HANDSHAKE, b"pingInterval")
        # One more than the ten that came too many may have gone: health's own connection is a stranger, too.
        await wait_until(lambda: len(crowd.gone()) >= 10)
        assert crowd.gone() in (list(range(10)), list(range(11)))
        crowd.go()


async def test_a_client_that_says_goodbye_and_stays_is_a_stranger_again(narrow: Site) -> None:
    async with leaves_nothing(narrow) as strangers:
        client = await RawClient.connect(narrow.server.ws_url, AUTH)
        assert strangers() == 1
        client.send("41")
        await wait_until(lambda: strangers() == 2)
        client.send("40" + json.dumps(AUTH))
        await client.until(b'40{"sid"', 2)
        assert strangers() == 1
        client.close()


async def test_a_session_that_changes_to_a_websocket_has_one_place_all_the_way(narrow: Site) -> None:
    async with leaves_nothing(narrow):
        for auth in (AUTH, ...):
            async with PollingClient(narrow.server.url, auth) as client:
                await client.upgrade()
                if auth is ...:
                    await client.send("40" + json.dumps(AUTH))
                    await wait_until(lambda: any(packet.startswith("40{") for packet in client.packets))
                for _ in range(POOL + 5):
                    async with connect(narrow.server.ws_url):
                        pass
                assert not client.closed.is_set()


async def test_all_sockets_together_are_limited_and_who_was_let_in_keeps_its_place(
    start: Callable[..., Server], demo: str
) -> None:
    server = start(demo, max_sockets=20, max_log_lines_per_second=0)
    running = Site(server, demo, server.process.pid)
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(WireClient(server.ws_url, AUTH)) for _ in range(19)]
        crowd = Crowd(running)
        for _ in range(100):
            await crowd.come(b"")
        await honest(running)
        assert not any(client.closed.is_set() for client in clients)
        await stack.enter_async_context(WireClient(server.ws_url, AUTH))
        before = len(server.lines)
        with pytest.raises((OSError, WebSocketException)):
            await asyncio.wait_for(WireClient(server.ws_url, AUTH).__aenter__(), 10)
        line = server.wait_for_log("socket refused", start=before)
        assert (line["limit"], line["address"]) == ("REALTIME_MAX_SOCKETS", "127.0.0.1")
        assert not any(client.closed.is_set() for client in clients)
        crowd.go()


async def test_strangers_take_none_of_the_connections_that_there_may_be(
    start: Callable[..., Server], demo: str
) -> None:
    server = start(demo, max_connections=2)
    running = Site(server, demo, server.process.pid)
    crowd = Crowd(running)
    for _ in range(20):
        await crowd.come(HANDSHAKE, b"pingInterval")
    await honest(running)
    # Many that got through the handshake while there was room: no more of them are let in than there is.
    async with contextlib.AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(connect(server.ws_url)) for _ in range(6)]
        for socket in sockets:
            await socket.recv()
            await socket.send("40" + json.dumps(AUTH))
        said = await asyncio.gather(*[_answer(socket) for socket in sockets])
        assert sorted(said) == ["1013"] * 4 + ["40"] * 2
    crowd.go()
    await wait_until(lambda: running.health()["connections"] == 0)
    await honest(running)


async def _answer(socket: ClientConnection) -> str:
    """Two characters of the next packet, or the close code."""
    try:
        return str(await socket.recv())[:2]
    except ConnectionClosed:
        return str(socket.close_code)


# Addresses.


def came_by(address: str) -> dict[str, str]:
    """The header of the proxy."""
    return {"X-Forwarded-For": address}


@contextlib.asynccontextmanager
async def client_at(running: Site, address: str) -> AsyncIterator[ClientConnection]:
    """A client that was let in, from this address."""
    async with connect(running.server.ws_url, additional_headers=came_by(address), proxy=None) as socket:
        await socket.recv()
        await socket.send("40" + json.dumps(AUTH))
        assert str(await socket.recv()).startswith("40{")
        yield socket


@pytest.mark.parametrize(
    ("same", "other"),
    [
        (["192.0.2.1"] * 4, "192.0.2.2"),
        (["::ffff:192.0.2.3", "192.0.2.3", "192.0.2.3", "192.0.2.3"], "192.0.2.4"),
        (["2001:db8::1", "2001:db8::2", "2001:db8::ffff:1", "2001:db8:0:0:9::"], "2001:db8:0:1::1"),
    ],
    ids=["IPv4", "IPv4 in the clothes of IPv6", "IPv6"],
)
async def test_an_address_behind_a_proxy_is_limited_and_neither_another_one_nor_the_proxy(
    proxied: Site, same: list[str], other: str
) -> None:
    async with leaves_nothing(proxied), contextlib.AsyncExitStack() as stack:
        for address in same[:3]:
            await stack.enter_async_context(client_at(proxied, address))
        with pytest.raises(InvalidStatus) as error:
            await stack.enter_async_context(client_at(proxied, same[3]))
        answer = error.value.response
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "60")
        assert json.loads(answer.body or b"")["code"] == 4
        await stack.enter_async_context(client_at(proxied, other))
        await witness_through_the_proxy(proxied)


async def witness_through_the_proxy(running: Site) -> None:
    """The proxy's own address has more sockets than an address may have."""
    async with contextlib.AsyncExitStack() as stack:
        for number in range(5):
            await stack.enter_async_context(client_at(running, f"198.51.100.{number}"))


async def test_sessions_of_polling_of_an_address_are_limited_alike(proxied: Site) -> None:
    async with leaves_nothing(proxied), contextlib.AsyncExitStack() as stack:
        for _ in range(3):
            client = PollingClient(proxied.server.url, AUTH, **came_by("192.0.2.20"))
            await stack.enter_async_context(client)
        async with httpx.AsyncClient(base_url=proxied.server.url, trust_env=False) as http:
            answer = await http.get(f"/socket.io/?{QUERY}", headers=came_by("192.0.2.20"))
            assert (answer.status_code, answer.json()["code"]) == (429, 4)
        await stack.enter_async_context(PollingClient(proxied.server.url, AUTH, **came_by("192.0.2.21")))


async def test_of_one_address_too_a_stranger_gives_way_to_whoever_comes_next(proxied: Site) -> None:
    async with leaves_nothing(proxied), contextlib.AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(client_at(proxied, "192.0.2.30"))
        stranger = await stack.enter_async_context(
            connect(proxied.server.ws_url, additional_headers=came_by("192.0.2.30"), proxy=None)
        )
        await stack.enter_async_context(client_at(proxied, "192.0.2.30"))
        async with asyncio.timeout(10):
            await stranger.wait_closed()


async def _tries(once: Callable[[], Awaitable[int]], burst: int) -> None:
    """A burst is let through, and soon after it no more."""
    assert [await once() for _ in range(burst)] == [200] * burst
    async with asyncio.timeout(20):
        while await once() != 429:
            pass


@pytest.mark.parametrize("transport", ["polling", "websocket"])
async def test_handshakes_of_an_address_are_limited_and_it_is_told_when_to_try_again(
    proxied: Site, transport: str
) -> None:
    address = {"polling": "203.0.113.1", "websocket": "203.0.113.2"}[transport]
    answers: list[dict[str, str]] = []

    async def poll() -> int:
        answer = await http.get(f"/socket.io/?{QUERY}", headers=came_by(address))
        answers.append({**answer.headers, "body": answer.text})
        return 200 if answer.status_code == 429 and "handshakes" not in answer.text else answer.status_code

    async def websocket() -> int:
        try:
            async with connect(proxied.server.ws_url, additional_headers=came_by(address), proxy=None):
                return 200
        except InvalidStatus as error:
            headers = {name.lower(): value for name, value in error.response.headers.items()}
            answers.append({**headers, "body": (error.response.body or b"").decode()})
            return error.response.status_code

    start = len(proxied.server.lines)
    async with httpx.AsyncClient(base_url=proxied.server.url, trust_env=False) as http:
        await _tries(poll if transport == "polling" else websocket, int(0.5 * BURST_SECONDS))
        assert answers[-1]["retry-after"] in ("1", "2")
        assert json.loads(answers[-1]["body"])["code"] == 4
        assert (await http.get(f"/socket.io/?{QUERY}", headers=came_by("203.0.113.9"))).status_code == 200
    line = proxied.server.wait_for_log("handshake refused", start=start)
    assert (line["status"], line["address"]) == (429, address)


async def test_connects_of_an_address_are_limited_as_rate_limited(proxied: Site) -> None:
    async with connect(proxied.server.ws_url, additional_headers=came_by("203.0.113.20"), proxy=None) as socket:
        await socket.recv()
        codes = []
        for _ in range(int(0.2 * BURST_SECONDS) + 2):
            await socket.send('40{"token":"x"}')
            codes.append(json.loads(str(await socket.recv())[2:])["data"]["code"])
    assert codes == ["UNAUTHORIZED"] * 4 + ["RATE_LIMITED"] * 2
    async with client_at(proxied, "203.0.113.21"):
        pass


async def test_five_thousand_clients_behind_one_address_come_back_at_once_by_default(
    start: Callable[..., Server], demo: str
) -> None:
    """As many handshakes as that, as fast as they go, and none is refused."""
    server = start(demo)
    running = Site(server, demo, server.process.pid)

    await asyncio.gather(*[handshakes(server.port, 500) for _ in range(10)])
    await honest(running)
    assert not [line for line in server.lines if line.get("event") == "handshake refused"]


# What a stranger may say.


@pytest.fixture(scope="module")
def plain(newest: Cluster) -> Iterator[AsgiServer]:
    """The same without the fast door."""
    database = asyncio.run(newest.database("demo"))
    command = ("-m", "uvicorn", "--factory", "insforge_realtime:create_app", "--port", "{port}")
    server = AsgiServer(command, database, max_unauthenticated=POOL, connect_timeout=1)
    server.start()
    yield server
    server.stop()
    asyncio.run(newest.drop(database))


@pytest.fixture(scope="module")
def brief(newest: Cluster) -> Iterator[Site]:
    """With little time for strangers."""
    with site(newest, connect_timeout=1, max_refused_connects=0) as running:
        yield running


@pytest.fixture(params=["fast door", "ASGI"])
def door(request: pytest.FixtureRequest, narrow: Site, plain: AsgiServer) -> Server:
    return narrow.server if request.param == "fast door" else plain


async def test_a_stranger_may_say_what_a_connect_needs_and_no_more(door: Server) -> None:
    async with connect(door.ws_url, proxy=None) as socket:
        await socket.recv()
        await socket.send('40{"token":"' + "x" * 19_900 + '"}')
        assert "UNAUTHORIZED" in str(await socket.recv())
        await socket.send('40{"token":"' + "x" * 20_000 + '"}')
        with pytest.raises(ConnectionClosed) as error:
            await socket.recv()
        assert error.value.rcvd is not None
        assert error.value.rcvd.code == 1009


async def test_who_was_let_in_may_say_more_until_it_says_goodbye(door: Server) -> None:
    async with WireClient(door.ws_url, somebody()) as client:
        assert (await client.subscribe("orders"))["ok"]
        answer = await client.call("realtime:unsubscribe", {"channel": "orders", "filler": "x" * 900_000})
        assert answer["ok"]
        await client.send("41")
        await (await client.ws.ping())  # so that the two are not read in one go
        await client.send("40" + json.dumps({"token": "x" * 30_000}))
        async with asyncio.timeout(10):
            await client.closed.wait()
        assert client.ws.close_code == 1009


async def test_a_body_of_a_stranger_is_bounded_too(narrow: Site) -> None:
    async with PollingClient(narrow.server.url) as client:
        assert (await client.post('40{"token":"' + "x" * 19_900 + '"}')).status_code == 200
        answer = await client.post('40{"token":"' + "x" * 20_000 + '"}')
        assert (answer.status_code, answer.json()["code"]) == (413, 3)
    async with PollingClient(narrow.server.url, somebody()) as client:
        assert (await client.post(f'42["x","{"x" * 900_000}"]')).status_code == 200


async def test_a_large_message_right_behind_the_end_of_an_upgrade_is_the_authenticated_clients(narrow: Site) -> None:
    """Client libraries send what has waited in the same write as the `5`."""
    async with PollingClient(narrow.server.url, somebody()) as client:
        assert (await client.subscribe("orders"))["ok"]
        ws = await client.probe()
        await client.rest()
        large = '420["realtime:unsubscribe",{"channel":"orders","filler":"' + "x" * 40_000 + '"}]'
        ws.transport.write(masked_text_frame("5") + masked_text_frame(large))
        async with asyncio.timeout(10):
            assert '"ok":true' in str(await ws.recv())
        await ws.close()


async def test_nor_does_a_websocket_that_asks_for_a_session_say_more(narrow: Site) -> None:
    async with PollingClient(narrow.server.url, somebody()) as client:
        socket = await open_websocket(narrow.server.url, client.session)
        await socket.send("2probe" + "x" * 25_000)
        assert await closes(socket) == ([], 1009)
        await client.upgrade()
        answer = await client.call("realtime:unsubscribe", {"channel": "orders", "filler": "x" * 900_000})
        assert answer["ok"]


REFUSALS = {
    "credentials": ['40{"token":"x"}'] * 3,
    "namespaces": ["40/a,", "40/b,", "40/c,"],
    "both": ['40{"token":"x"}', "40/a,", '40{"n":1e400}'],
}


@pytest.mark.parametrize("kind", REFUSALS)
async def test_three_refusals_are_said_and_are_the_end(door: Server, kind: str) -> None:
    async with connect(door.ws_url, proxy=None) as socket:
        await socket.recv()
        for packet in REFUSALS[kind]:
            await socket.send(packet)
            assert str(await socket.recv()).startswith("44")
        with pytest.raises(ConnectionClosed) as error:
            await socket.recv()
        assert error.value.rcvd is not None
        assert (error.value.rcvd.code, error.value.rcvd.reason) == (1008, "too many refused CONNECTs")
    with pytest.raises(Refused):
        async with WireClient(door.ws_url, {"token": "x"}):
            pass


async def test_three_refusals_in_one_body_end_a_session_of_polling(narrow: Site) -> None:
    async with PollingClient(narrow.server.url) as client:
        await client.post("40/a,", "40/b,", "40/c,", "40/d,")
        packets = (await client.ask("GET")).text
        assert packets.count("Invalid namespace") == 3
        assert (await client.ask("GET")).json()["code"] == 1


@pytest.mark.parametrize("transport", ["fast door", "ASGI", "polling"])
async def test_whatever_a_stranger_does_its_time_runs_out(brief: Site, plain: AsgiServer, transport: str) -> None:
    loop = asyncio.get_running_loop()
    if transport == "polling":
        async with PollingClient(brief.server.url) as client:
            began = loop.time()
            async with asyncio.timeout(10):
                while (await client.post("3", '40{"token":"x"}')).status_code == 200:
                    await client.ask("GET")
        assert loop.time() - began < 1 + 4 * SLOT_SECONDS
        return
    url = plain.ws_url if transport == "ASGI" else brief.server.ws_url
    async with connect(url, proxy=None) as socket, asyncio.timeout(10):
        began = loop.time()
        await socket.recv()
        with contextlib.suppress(ConnectionClosed):
            while True:
                await socket.send("3")
                if transport == "fast door":
                    await socket.send('40{"token":"x"}')
                    await socket.recv()
                await asyncio.sleep(0.01)  # for the client's library to see a goodbye
        assert 0.9 < loop.time() - began < 1 + 4 * SLOT_SECONDS
        assert socket.close_code == 1002


async def test_behind_another_server_too_strangers_give_way(plain: AsgiServer) -> None:
    async with contextlib.AsyncExitStack() as stack, WireClient(plain.ws_url, AUTH) as client:
        for _ in range(POOL + 20):
            await stack.enter_async_context(connect(plain.ws_url, proxy=None))
        async with WireClient(plain.ws_url, AUTH) as other:
            assert (await other.subscribe("orders"))["ok"]
        assert plain.feed()["unauthenticated"] <= POOL
        assert (await client.subscribe("orders"))["ok"]
    await wait_until(lambda: plain.feed()["sockets"] == 0)


# The log.


async def test_the_log_gets_some_of_the_lines_of_a_flood_and_how_many_there_were(
    start: Callable[..., Server], demo: str
) -> None:
    server = start(demo, max_log_lines_per_second=1)
    running = Site(server, demo, server.process.pid)
    async with witnessed(running), httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        for _ in range(300):
            assert (await http.get("/socket.io/?EIO=3&transport=polling")).status_code == 400
        for _ in range(50):
            async with connect(server.ws_url, proxy=None) as socket:
                await socket.send("9")
                await socket.wait_closed()
        server.wait_for_log("lines left out", 30)
    assert server.stop() == 0
    for event, number in (("handshake refused", 300), ("connection closed", 50)):
        lines = [line for line in server.lines if line.get("event") == event]
        left_out = [line for line in server.lines if line.get("of") == event]
        assert len(lines) <= BURST + 60
        assert len(lines) + sum(line["lines"] for line in left_out) == number
        assert left_out[-1]["in_all"] == number
