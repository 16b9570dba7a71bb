"""The Socket.IO protocol, revision 5: one test for each sentence that says what a server must, should or may do.

Each test is named after its sentence, in the order of the document, and runs over either transport. A client here is a
`Line`: packets as they are, Engine.IO's first digit included.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from insforge_realtime.pg.demo import BOB
from support.databases import Cluster
from support.polling import PollingClient, closes, open_websocket
from support.servers import ANON_KEY, API_KEY, token
from support.sites import TOKEN, Site, site

AUTH = "40" + json.dumps({"token": TOKEN})
CONNECT_TIMEOUT = 1.5


@pytest.fixture(scope="module")
def plain(newest: Cluster) -> Iterator[Site]:
    """With the settings that everybody has, except that nobody wants to wait for 45 seconds."""
    with site(newest, connect_timeout=CONNECT_TIMEOUT) as running:
        yield running


class Line:
    """Packets to and fro, over either transport."""

    async def send(self, *packets: str | bytes) -> None:
        """Send packets, which must be taken."""
        raise NotImplementedError

    async def receive(self) -> str:
        """The next packet, pings apart."""
        raise NotImplementedError

    async def is_closed_by(self, *packets: str | bytes) -> None:
        """Send packets, for which the server closes the connection, and answers nothing more."""
        raise NotImplementedError

    async def connect(self) -> str:
        """CONNECT, and the socket's id."""
        await self.send(AUTH)
        answer = await self.receive()
        assert answer.startswith('40{"sid":"'), answer
        sid: str = json.loads(answer[2:])["sid"]
        return sid

    async def works(self) -> None:
        """It is connected, and nothing else is on its way."""
        await self.send('42999["realtime:unsubscribe",{"channel":"x"}]')
        assert await self.receive() == '43999[{"ok":true,"channel":"x"}]'


class OverWebSocket(Line):
    def __init__(self, ws: Any, session: str) -> None:
        self.ws = ws
        self.session = session

    async def send(self, *packets: str | bytes) -> None:
        for packet in packets:
            await self.ws.send(packet)

    async def receive(self) -> str:
        async with asyncio.timeout(20):
            while (packet := str(await self.ws.recv())) == "2":
                await self.ws.send("3")
            return packet

    async def is_closed_by(self, *packets: str | bytes) -> None:
        await self.send(*packets)
        assert await closes(self.ws) == ([], 1002)


class OverPolling(Line):
    def __init__(self, client: PollingClient) -> None:
        self.client = client
        self.session = client.session
        self.received: deque[str] = deque()

    async def send(self, *packets: str | bytes) -> None:
        answer = await self._post(*packets)
        assert (answer.status_code, answer.text) == (200, "ok")

    async def receive(self) -> str:
        async with asyncio.timeout(20):
            while not self.received:
                self.received.extend(packet for packet in await self.client.poll() if packet not in ("2", "6"))
            return self.received.popleft()

    async def is_closed_by(self, *packets: str | bytes) -> None:
        poll = await self.client.begin_poll()
        answer = await self._post(*packets) if packets else None
        assert (await poll).text == "1"
        assert answer is None or answer.status_code == 400
        assert (await self.client.ask("GET")).json()["code"] == 1

    async def _post(self, *packets: str | bytes) -> Any:
        texts = [p if isinstance(p, str) else "b" + base64.b64encode(p).decode() for p in packets]
        return await self.client.post(*texts)


Lines = Callable[[Site], contextlib.AbstractAsyncContextManager[Any]]


@contextlib.asynccontextmanager
async def over_websocket(running: Site) -> AsyncIterator[Line]:
    ws = await open_websocket(running.server.url)
    try:
        yield OverWebSocket(ws, json.loads((await ws.recv())[1:])["sid"])
    finally:
        await ws.close()


@contextlib.asynccontextmanager
async def over_polling(running: Site) -> AsyncIterator[Line]:
    async with PollingClient(running.server.url) as client:
        yield OverPolling(client)


@contextlib.asynccontextmanager
async def after_an_upgrade(running: Site) -> AsyncIterator[Line]:
    async with PollingClient(running.server.url) as client:
        ws = await client.probe()
        await ws.send("5")
        yield OverWebSocket(ws, client.session)
        await ws.close()


@pytest.fixture(params=[over_websocket, over_polling, after_an_upgrade], ids=["websocket", "polling", "upgraded"])
def lines(request: pytest.FixtureRequest) -> Lines:
    made: Lines = request.param
    return made


# Connection to a namespace.


async def test_the_server_must_respond_with_connect_and_the_session_id_if_it_is_successful(
    plain: Site, lines: Lines
) -> None:
    async with lines(plain) as line:
        sid = await line.connect()
        assert len(sid) >= 20
        assert sid != line.session  # the Engine.IO session's is a secret between it and the server
        await line.works()
    async with lines(plain) as line:
        assert await line.connect() != sid


@pytest.mark.parametrize(
    "auth", [{"token": TOKEN}, {"token": ANON_KEY}, {"apiKey": API_KEY}], ids=["jwt", "anon", "key"]
)
async def test_the_connect_packet_may_have_a_payload_that_says_who_it_is(
    plain: Site, lines: Lines, auth: dict[str, str]
) -> None:
    async with lines(plain) as line:
        await line.send("40" + json.dumps(auth))
        assert (await line.receive()).startswith('40{"sid":"')


@pytest.mark.parametrize("auth", ["", "{}", '{"token":"x"}', '{"token":"' + token("a", ttl=-5) + '"}'], ids=range(4))
async def test_the_server_must_respond_with_connect_error_if_it_is_not_allowed(
    plain: Site, lines: Lines, auth: str
) -> None:
    async with lines(plain) as line:
        await line.send("40" + auth)
        answer = await line.receive()
        assert answer.startswith("44{")
        error = json.loads(answer[2:])
        assert set(error) == {"message", "data"}
        assert error["data"] == {"code": "UNAUTHORIZED"}
        await line.connect()  # it may try again
        await line.works()


@pytest.mark.parametrize(
    "packet",
    [
        '42["a"]',
        '420["realtime:subscribe",{"channel":"orders"}]',
        "41",
        "430[]",
        '44{"message":"x"}',
        '451-["a"]',
        "4abc",
    ],
)
async def test_if_the_server_does_not_receive_connect_first_it_must_close_the_connection(
    plain: Site, lines: Lines, packet: str
) -> None:
    async with lines(plain) as line:
        await line.is_closed_by(packet)


async def test_a_client_that_says_nothing_at_all_is_closed(plain: Site, lines: Lines) -> None:
    """No sentence, but a case of the protocol's test suite."""
    async with lines(plain) as line:
        await line.is_closed_by()


async def test_a_client_that_is_refused_for_ever_is_closed(plain: Site, lines: Lines) -> None:
    async with lines(plain) as line:
        await line.send('40{"token":"x"}')
        assert (await line.receive()).startswith("44")
        await line.is_closed_by()


@pytest.mark.parametrize("namespace", ["/admin", "/admin,", '/admin,{"token":"x"}', "/admin?a=1,", "/a/b/c,"])
async def test_a_connection_to_an_unknown_namespace_is_not_allowed(plain: Site, lines: Lines, namespace: str) -> None:
    """Before the connection to the main namespace, and beside it: it does not disturb it."""
    name = namespace.split(",")[0].split("?")[0]
    async with lines(plain) as line:
        for _ in range(2):
            await line.send("40" + namespace)
            assert await line.receive() == f'44{name},{{"message":"Invalid namespace"}}'
        await line.connect()
        await line.send("40" + namespace)
        assert await line.receive() == f'44{name},{{"message":"Invalid namespace"}}'
        await line.works()


@pytest.mark.parametrize("packet", ['42/admin,["a"]', "41/admin,", "43/admin,1[]", '451-/admin,["a"]'])
async def test_a_packet_to_a_namespace_that_is_not_connected_closes_the_connection(
    plain: Site, lines: Lines, packet: str
) -> None:
    async with lines(plain) as line:
        await line.connect()
        await line.is_closed_by(packet)


@pytest.mark.parametrize("packet", ["40[]", '40"x"', "40true", "40{"])
async def test_a_connect_packet_whose_payload_is_no_object_closes_the_connection(
    plain: Site, lines: Lines, packet: str
) -> None:
    async with lines(plain) as line:
        await line.is_closed_by(packet)


async def test_a_second_connect_closes_the_connection(plain: Site, lines: Lines) -> None:
    async with lines(plain) as line:
        await line.connect()
        await line.is_closed_by(AUTH)


# Sending and receiving data.


async def test_once_connected_the_client_and_the_server_can_exchange_data(plain: Site, lines: Lines) -> None:
    async with lines(plain) as line:
        await line.connect()
        await line.send('420["realtime:subscribe",{"channel":"orders"}]')
        assert (await line.receive()).startswith('430[{"ok":true,"channel":"orders"')
        await plain.sql("SELECT realtime.publish('orders', 'created', $1)", '{"a":[1,"ž",{"b":null}]}')
        packet = await line.receive()
        assert packet.startswith('42["created",{')
        name, data = json.loads(packet[2:])
        assert (name, data["a"]) == ("created", [1, "ž", {"b": None}])


@pytest.mark.parametrize("payload", ["", "{}", "null", '"a"', "5", "[]", "[null]", "[true]", "[{}]", "[[]]"])
@pytest.mark.parametrize("kind", ["2", "50-"])
async def test_the_payload_must_be_a_non_empty_array_or_the_receiver_must_close_the_connection(
    plain: Site, lines: Lines, kind: str, payload: str
) -> None:
    async with lines(plain) as line:
        await line.connect()
        await line.is_closed_by(f"4{kind}{payload}")


@pytest.mark.parametrize("name", ["connect", "connect_error", "disconnect", "disconnecting", "newListener"])
async def test_event_names_that_mean_something_to_every_library_close_the_connection(
    plain: Site, lines: Lines, name: str
) -> None:
    async with lines(plain) as line:
        await line.connect()
        await line.is_closed_by(f'42["{name}"]')


async def test_events_may_have_any_number_of_arguments_and_a_number_for_a_name(plain: Site, lines: Lines) -> None:
    async with lines(plain) as line:
        await line.connect()
        for number, data in enumerate(
            ['["realtime:unsubscribe",{"channel":"x"},1,"2",{"3":[true]}]', "[7]", '["a",null]']
        ):
            await line.send(f"42{number}{data}")
            assert (await line.receive()).startswith(f'43{number}[{{"ok":{"false" if number else "true"},')


async def test_a_binary_event_is_taken_with_its_attachments_in_order(plain: Site, lines: Lines) -> None:
    place = '{"_placeholder":true,"num":%d}'
    async with lines(plain) as line:
        await line.connect()
        await line.send('420["realtime:subscribe",{"channel":"orders"}]')
        await line.receive()
        request = f'{{"channel":"orders","event":"x","payload":{{"a":{place % 0},"b":[{place % 1}]}}}}'
        await line.send(f'452-["realtime:publish",{request}]', b"\1\2", b"\3\4")
        name, error = json.loads((await line.receive())[2:])
        assert (name, error["code"], error["channel"]) == ("realtime:error", "INVALID_REQUEST", "orders")
        assert "binary" in error["message"]
        await line.works()


async def test_binary_data_beside_what_a_command_needs_is_ignored(plain: Site, lines: Lines) -> None:
    async with lines(plain) as line:
        await line.connect()
        await line.send('451-3["realtime:unsubscribe",{"channel":"x"},{"_placeholder":true,"num":0}]', b"\1")
        assert await line.receive() == '433[{"ok":true,"channel":"x"}]'


async def test_between_a_binary_packet_and_its_attachments_pongs_may_come(plain: Site, lines: Lines) -> None:
    async with lines(plain) as line:
        await line.connect()
        await line.send('452-3["realtime:unsubscribe",{"channel":"x"}]', "3", b"\1", "3", b"\2")
        assert await line.receive() == '433[{"ok":true,"channel":"x"}]'


@pytest.mark.parametrize(
    "packets",
    [
        ['45-["a"]'],
        ['45["a"]'],
        ['451["a"]'],
        ['4511-["a"]'],
        [b"\1"],
        ['451-["a"]', '42["a"]'],
        ['451-["realtime:unsubscribe",{"channel":"x"}]', b"\1", b"\2"],
        ['451-["a",{"_placeholder":true,"num":1}]', b"\1"],
        ['451-["a",{"_placeholder":true,"num":-1}]', b"\1"],
        ['451-["a",{"_placeholder":true,"num":"0"}]', b"\1"],
        ['451-["a",{"_placeholder":true}]', b"\1"],
        ['451-[{"_placeholder":true,"num":0}]', b"\1"],
        ['451-["a"]', AUTH],
    ],
    ids=range(13),
)
async def test_a_binary_packet_that_does_not_fit_its_attachments_closes_the_connection(
    plain: Site, lines: Lines, packets: list[str | bytes]
) -> None:
    async with lines(plain) as line:
        await line.connect()
        await line.is_closed_by(*packets)


# Acknowledgement.


@pytest.mark.parametrize("number", [0, 1, 12, 456, 10**15 - 1])
async def test_the_receiver_must_respond_with_an_ack_with_the_same_id(plain: Site, lines: Lines, number: int) -> None:
    async with lines(plain) as line:
        await line.connect()
        await line.send(f'42{number}["realtime:unsubscribe",{{"channel":"x"}}]')
        assert await line.receive() == f'43{number}[{{"ok":true,"channel":"x"}}]'


async def test_an_event_that_is_refused_or_unknown_is_acknowledged_too(plain: Site, lines: Lines) -> None:
    async with lines(plain) as line:
        await line.connect()
        await line.send('421["hello"]', '422["realtime:publish",{"channel":"orders","event":"x","payload":{}}]')
        assert json.loads((await line.receive()).removeprefix("431"))[0]["error"]["code"] == "INVALID_REQUEST"
        assert json.loads((await line.receive()).removeprefix("432"))[0]["error"]["code"] == "NOT_SUBSCRIBED"


async def test_an_event_without_an_id_is_not_acknowledged(plain: Site, lines: Lines) -> None:
    async with lines(plain) as line:
        await line.connect()
        await line.send('42["realtime:unsubscribe",{"channel":"x"}]')
        await line.works()


@pytest.mark.parametrize(
    "packet", ["431", "431{}", '431"x"', "43[]", '42abc["a"]', '42-1["a"]', "42" + "9" * 16 + '["a"]']
)
async def test_an_ack_must_have_an_id_and_an_array_and_an_id_must_be_digits(
    plain: Site, lines: Lines, packet: str
) -> None:
    async with lines(plain) as line:
        await line.connect()
        await line.is_closed_by(packet)


@pytest.mark.parametrize("packets", [["437[]"], ['437["a",1]'], ["460-7[]"], ["461-7[]", b"\1"]], ids=range(4))
async def test_an_ack_that_nobody_asked_for_is_ignored(plain: Site, lines: Lines, packets: list[str | bytes]) -> None:
    async with lines(plain) as line:
        await line.connect()
        await line.send(*packets)
        await line.works()


# Disconnection from a namespace.


async def test_at_any_time_the_client_can_end_the_connection_to_a_namespace(plain: Site, lines: Lines) -> None:
    async with lines(plain) as witness, lines(plain) as line:
        await witness.connect()
        await witness.send('420["realtime:subscribe",{"channel":"orders"}]')
        await witness.receive()
        await line.send("40" + json.dumps({"token": token(BOB)}))
        await line.receive()
        await line.send('420["realtime:subscribe",{"channel":"orders"}]')
        assert (await line.receive()).startswith('430[{"ok":true')
        assert "presence:join" in await witness.receive()
        await line.send("41")
        left = await witness.receive()
        assert "presence:leave" in left
        assert BOB in left
        # No response, and the low-level connection is kept for another CONNECT.
        await line.connect()
        await line.works()


async def test_a_disconnect_packet_has_no_payload(plain: Site, lines: Lines) -> None:
    async with lines(plain) as line:
        await line.connect()
        await line.is_closed_by("41{}")


async def test_after_a_disconnect_events_close_the_connection(plain: Site, lines: Lines) -> None:
    async with lines(plain) as line:
        await line.connect()
        await line.send("41")
        await line.is_closed_by('42["a"]')


# Packet encoding.


@pytest.mark.parametrize("packet", ["4", "47", "4x", "48[]", "4-1", "4٠"], ids=ascii)
async def test_an_unknown_packet_type_closes_the_connection(plain: Site, lines: Lines, packet: str) -> None:
    async with lines(plain) as line:
        await line.connect()
        await line.is_closed_by(packet)


async def test_the_main_namespace_may_be_written_out(plain: Site, lines: Lines) -> None:
    async with lines(plain) as line:
        await line.send("40/," + json.dumps({"token": TOKEN}))
        assert (await line.receive()).startswith('40{"sid":')
        await line.send('42/,5["realtime:unsubscribe",{"channel":"x"}]')
        assert await line.receive() == '435[{"ok":true,"channel":"x"}]'
