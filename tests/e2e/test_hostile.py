"""Attacks on a real server. Each gets the answer that the protocols foresee, and nobody else notices anything.

Most of them are made of bytes, by a client without a library between it and the socket. After each attack a witness, another
client of the same server, must still receive what is published, and the log must have a line on it but no error.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import jwt
import pytest

from insforge_realtime.pg.demo import ALICE
from insforge_realtime.web.timer_wheel import SLOT_SECONDS
from support.databases import Cluster, wait_until
from support.servers import ANON_KEY, API_KEY, SECRET, token
from support.sites import CHANNEL, MARKER, TOKEN, Site, site, witnessed
from support.wire import WireClient

TEXT, BINARY, CLOSE, PING = 0x1, 0x2, 0x8, 0x9
KEY = base64.b64encode(bytes(16)).decode()
CONNECT_TIMEOUT = 2.0
QUERY = "EIO=4&transport=websocket"

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def fortress(newest: Cluster) -> Iterator[Site]:
    """With the settings that everybody has, except that nobody wants to wait for 45 seconds, and that the attackers are
    one user, who sends more megabytes in a minute than a user may."""
    with site(newest, connect_timeout=CONNECT_TIMEOUT, max_bytes_per_second=0) as running:
        yield running


@pytest.fixture(scope="module")
def impatient(newest: Cluster) -> Iterator[Site]:
    """With short limits, to see them work."""
    with site(
        newest,
        connect_timeout=0.3,
        ping_interval=1.5,
        ping_timeout=0.3,
        max_connections=4,
        cors_origins="https://app.example",
    ) as running:
        yield running


# A client made of bytes.


def frame(
    payload: bytes | str, opcode: int = TEXT, *, final: bool = True, masked: bool = True, size: int | None = None
) -> bytes:
    """A frame. The masking key is zero, so that what is masked can be read; `size` is what the header claims."""
    data = payload.encode() if isinstance(payload, str) else payload
    size = len(data) if size is None else size
    mask = 0x80 if masked else 0
    if size < 126:
        length = bytes([mask | size])
    elif size < 65536:
        length = bytes([mask | 126]) + size.to_bytes(2, "big")
    else:
        length = bytes([mask | 127]) + size.to_bytes(8, "big")
    return bytes([(0x80 if final else 0) | opcode]) + length + (bytes(4) if masked else b"") + data


class Attacker:
    """One raw connection, through the handshake unless that was refused."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, status: int, body: str) -> None:
        self.reader = reader
        self.writer = writer
        self.status = status
        self.body = body
        self.packets: list[str] = []

    async def send(self, *frames: bytes | str) -> None:
        """Frames as they are, and texts as text frames. A server that has hung up meanwhile is no reason to stop."""
        with contextlib.suppress(ConnectionError):
            self.writer.write(b"".join([part if isinstance(part, bytes) else frame(part) for part in frames]))
            await self.writer.drain()

    async def frame(self) -> tuple[int, bytes]:
        first, second = await self.reader.readexactly(2)
        size = second & 0x7F
        if size > 125:
            size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8), "big")
        return first & 0x0F, await self.reader.readexactly(size)

    async def packet(self) -> str:
        """The next text, heartbeats apart."""
        while True:
            opcode, payload = await self.frame()
            if opcode == TEXT and payload != b"2":
                self.packets.append(payload.decode())
                return self.packets[-1]
            assert opcode != CLOSE, payload

    async def connect(self, auth: object) -> str:
        await self.send("40" + json.dumps(auth))
        return await self.packet()

    async def end(self) -> int | None:
        """The close code once the server closes, None when it does so without; `packets` has what came before."""
        try:
            while True:
                opcode, payload = await self.frame()
                if opcode == TEXT:
                    self.packets.append(payload.decode())
                elif opcode == CLOSE:
                    return int.from_bytes(payload[:2], "big")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None


@contextlib.asynccontextmanager
async def attacking(
    running: Site, auth: object = None, *, query: str = QUERY, path: str = "/socket.io/", **headers: str
) -> AsyncIterator[Attacker]:
    """An attacker, within twenty seconds; `auth` of `...` leaves it before its CONNECT."""
    async with asyncio.timeout(20):
        connection = socket.create_connection(("127.0.0.1", running.server.port))
        reader, writer = await asyncio.open_connection(sock=connection)
        try:
            lines = [f"GET {path}?{query} HTTP/1.1", "Host: x", "Connection: Upgrade", "Upgrade: websocket"]
            lines += ["Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {KEY}"]
            lines += [f"{name}: {value}" for name, value in headers.items()]
            writer.write("\r\n".join([*lines, "", ""]).encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            status = int(head.split()[1])
            body = "" if status == 101 else (await reader.read()).decode()
            attacker = Attacker(reader, writer, status, body)
            if status == 101:
                assert (await attacker.packet())[0] == "0"
                if auth is not ...:
                    answer = await attacker.connect(auth or {"token": TOKEN})
                    assert answer.startswith("40"), answer
            yield attacker
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


# Bytes that break a protocol: the connection is closed with this code, and the log says why.

BROKEN: dict[str, tuple[list[bytes | str], int]] = {
    "no JSON": (["42{" + MARKER], 1002),
    "no packet": ([MARKER], 1002),
    "an empty frame": ([""], 1002),
    "a missing payload": (["42"], 1002),
    "a wrongly typed payload": (['42{"a":"' + MARKER + '"}'], 1002),
    "an empty list": (["42[]"], 1002),
    "event name true": (["42[true]"], 1002),
    "event name null": (["42[null]"], 1002),
    "event name list": (["42[[]]"], 1002),
    "event name connect": (['42["connect"]'], 1002),
    "event name disconnect": (['42["disconnect",{}]'], 1002),
    "an ack id of 30 digits": (["42" + "9" * 30 + '["realtime:subscribe",{"channel":"orders"}]'], 1002),
    "a number that JSON does not know": (['42["a",Infinity]'], 1002),
    "half a surrogate pair, and no JSON": (['42["a","\\ud800"'], 1002),
    "a second CONNECT": (["40" + json.dumps({"token": TOKEN})], 1002),
    "a CONNECT_ERROR": (['44{"message":"x"}'], 1002),
    "a binary event whose attachment is text": (['451-["a",{"_placeholder":true,"num":0}]', '42["a"]'], 1002),
    "more attachments than announced": (
        ['451-["a",{"_placeholder":true,"num":0}]', frame(MARKER, BINARY), frame(MARKER, BINARY)],
        1002,
    ),
    "a placeholder that was not announced": (['451-["a",{"_placeholder":true,"num":1}]', frame("x", BINARY)], 1002),
    "eleven attachments": (['4511-["a"]'], 1002),
    "attachments over the limit": (['452-["a"]', frame("x" * 600_000, BINARY), frame("x" * 600_000, BINARY)], 1002),
    "a binary event that announces nothing": (['45-["a"]'], 1002),
    "an event to another namespace": (['42/admin,["a"]'], 1002),
    "a ping packet": (["2"], 1002),
    "a binary frame": ([frame(MARKER, BINARY)], 1002),
    "invalid UTF-8": ([frame(b'42["a","\xc3\x28"]')], 1007),
    "UTF-8 cut at the end": ([frame(b"42\xe2\x82")], 1007),
    "an unmasked frame": ([frame("3", masked=False)], 1002),
    "a reserved opcode": ([frame("", 0x3)], 1002),
    "reserved bits": ([b"\xc1\x80\0\0\0\0"], 1002),
    "a fragmented ping": ([frame("", PING, final=False)], 1002),
    "a ping of 126 bytes": ([frame(b"x" * 126, PING)], 1002),
    "a continuation of nothing": ([frame("", 0x0)], 1002),
    "a message inside a message": ([frame("42", final=False), frame("3")], 1002),
    "a close frame of one byte": ([frame(b"x", CLOSE)], 1002),
    "a close code that does not exist": ([frame((999).to_bytes(2, "big"), CLOSE)], 1002),
    "a header that claims 2 GB": ([frame("42", size=2 << 30)], 1009),
    "a header that claims 2^63 bytes": ([frame("42", size=(1 << 63) - 1)], 1009),
    "a frame far over the limit": ([frame(MARKER * 100_000)], 1009),
    "an endless message in fragments": ([frame("42", final=False), frame(b"x" * 60_000, 0, final=False) * 20], 1009),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_who_breaks_a_protocol_is_shown_out_and_nobody_else_notices(fortress: Site, name: str) -> None:
    frames, code = BROKEN[name]
    before = len(fortress.server.lines)
    async with witnessed(fortress):
        async with attacking(fortress) as attacker:
            await attacker.send(*frames)
            assert await attacker.end() == code
        line = fortress.server.wait_for_log("connection closed", start=before)
        assert line["level"] == "info"
        assert line["reason"]


async def test_a_frame_far_over_the_limit_is_told_why_before_the_close(fortress: Site) -> None:
    async with witnessed(fortress), attacking(fortress) as attacker:
        await attacker.send(frame("42", size=2_000_000))
        assert await attacker.end() == 1009
        name, data = json.loads(attacker.packets[-1][2:])
        assert (name, data["code"]) == ("realtime:error", "PAYLOAD_TOO_LARGE")


@pytest.mark.parametrize("packet", ['42["realtime:subscribe",{"channel":"orders"}]', "41", "43[]", "4", "\0"])
async def test_a_packet_before_connect_closes_the_connection(fortress: Site, packet: str) -> None:
    before = len(fortress.server.lines)
    async with witnessed(fortress), attacking(fortress, ...) as attacker:
        await attacker.send(packet)
        assert await attacker.end() == 1002
        fortress.server.wait_for_log("connection closed", start=before)


async def test_other_namespaces_do_not_exist(fortress: Site) -> None:
    async with witnessed(fortress), attacking(fortress, ...) as attacker:
        await attacker.send('40/admin,{"token":"x"}')
        assert await attacker.packet() == '44/admin,{"message":"Invalid namespace"}'
        assert (await attacker.connect({"token": TOKEN})).startswith("40{")


# Requests that are well-formed packets and make no sense: they are answered, and the connection goes on.


def publish(payload: str, channel: str = CHANNEL, event: str = "x") -> str:
    return f'"realtime:publish",{{"channel":{json.dumps(channel)},"event":{json.dumps(event)},"payload":{payload}}}'


def subscribe(channel: object) -> str:
    return f'"realtime:subscribe",{json.dumps({"channel": channel})}'


DEEP = '{"a":' * 2000 + "1" + "}" * 2000
NESTED = '{"a":' * 300 + "1" + "}" * 300
INJECTION = "orders'; DROP TABLE realtime.messages; --"
SENSELESS: dict[str, tuple[str, str]] = {
    "subscribe without data": ('"realtime:subscribe"', "INVALID_REQUEST"),
    "subscribe with null": ('"realtime:subscribe",null', "INVALID_REQUEST"),
    "subscribe with a string": ('"realtime:subscribe","orders"', "INVALID_REQUEST"),
    "subscribe with a list": ('"realtime:subscribe",["orders"]', "INVALID_REQUEST"),
    "no channel": ('"realtime:subscribe",{}', "INVALID_REQUEST"),
    "channel number": (subscribe(5), "INVALID_REQUEST"),
    "channel list": (subscribe(["orders"]), "INVALID_REQUEST"),
    "channel null": (subscribe(None), "INVALID_REQUEST"),
    "channel object": (subscribe({"channel": "orders"}), "INVALID_REQUEST"),
    "channel empty": (subscribe(""), "INVALID_REQUEST"),
    "channel of 300 bytes": (subscribe("x" * 300), "INVALID_REQUEST"),
    "channel of 128 characters and 256 bytes": (subscribe("é" * 128), "INVALID_REQUEST"),
    "channel with a newline": (subscribe("orders\n"), "INVALID_REQUEST"),
    "channel with NUL": (subscribe("orders\0"), "INVALID_REQUEST"),
    "channel with an escape": (subscribe("\x1b[31morders"), "INVALID_REQUEST"),
    "channel with a C1 control": (subscribe("orders\x85"), "INVALID_REQUEST"),
    "channel that is a wildcard": (subscribe("%"), "UNAUTHORIZED"),
    "channel that is nobody's": (subscribe("nowhere"), "UNAUTHORIZED"),
    "channel with SQL": (subscribe(INJECTION), "UNAUTHORIZED"),
    "event __proto__": ('"__proto__",{}', "INVALID_REQUEST"),
    "event constructor": ('"constructor",{}', "INVALID_REQUEST"),
    "event realtime:foo": ('"realtime:foo",{}', "INVALID_REQUEST"),
    "event that is a number": ("5,{}", "INVALID_REQUEST"),
    "event that is a fraction": ("1e300,{}", "INVALID_REQUEST"),
    "event without a name": ('"",{}', "INVALID_REQUEST"),
    "event with a long name": (f'"{"x" * 5000}",{{}}', "INVALID_REQUEST"),
    "publish without a payload": (f'"realtime:publish",{{"channel":"{CHANNEL}","event":"x"}}', "INVALID_REQUEST"),
    "payload that is a list": (publish("[]"), "INVALID_REQUEST"),
    "payload that is a string": (publish(f'"{MARKER}"'), "INVALID_REQUEST"),
    "payload with NUL": (publish('{"a":"' + MARKER + '\\u0000"}'), "INVALID_REQUEST"),
    "payload with NUL in a key": (publish('{"' + MARKER + '\\u0000":1}'), "INVALID_REQUEST"),
    "payload of 300 levels": (publish(NESTED), "INVALID_REQUEST"),
    "payload of 2000 levels": (publish(DEEP), "INVALID_REQUEST"),
    "payload with half a surrogate pair": (publish('{"a":"\\ud800"}'), "INVALID_REQUEST"),
    "payload with half a surrogate pair in a key": (publish('{"\\udc00":"' + MARKER + '"}'), "INVALID_REQUEST"),
    "payload with a number that is no double": (publish('{"a":-1e400}'), "INVALID_REQUEST"),
    "payload with an integer of 400 digits": (publish(f'{{"a":{"9" * 400}}}'), "INVALID_REQUEST"),
    "payload with a number too small for PostgreSQL": (publish('{"a":1e-999999}'), "INVALID_REQUEST"),
    "payload with 20000 places": (publish(f'{{"a":0.{"3" * 20000}}}'), "INVALID_REQUEST"),
    "payload that is a number that is no double": (publish("1e400"), "INVALID_REQUEST"),
    "channel with half a surrogate pair": (subscribe("\ud800"), "INVALID_REQUEST"),
    "channel and a number that is no double": (
        '"realtime:unsubscribe",{"channel":"orders","n":1e400}',
        "INVALID_REQUEST",
    ),
    "event with half a surrogate pair": (publish("{}", event="\ud800"), "INVALID_REQUEST"),
    "event name that is half a surrogate pair": ('"\\ud800",{}', "INVALID_REQUEST"),
    "event name that is a number that is no double": ("1e400,{}", "INVALID_REQUEST"),
    "unknown event with a number that is no double": ('"realtime:foo",1e400', "INVALID_REQUEST"),
    "payload of 38 MB once it is written out": (
        publish('{"a":[' + ",".join(["1e300"] * 120_000) + "]}"),
        "PAYLOAD_TOO_LARGE",
    ),
    "payload a little too large": (publish(f'{{"a":"{"x" * 1_000_000}"}}'), "PAYLOAD_TOO_LARGE"),
    "reserved event connect": (publish("{}", event="connect"), "INVALID_REQUEST"),
    "reserved event error": (publish("{}", event="error"), "INVALID_REQUEST"),
    "reserved event realtime:x": (publish("{}", event="realtime:x"), "INVALID_REQUEST"),
    "reserved event presence:join": (publish("{}", event="presence:join"), "INVALID_REQUEST"),
    "event with NUL": (publish("{}", event="x\0"), "INVALID_REQUEST"),
    "event of 300 bytes": (publish("{}", event="x" * 300), "INVALID_REQUEST"),
    "publish without having subscribed": (publish("{}", channel="orders"), "NOT_SUBSCRIBED"),
}


async def ask(attacker: Attacker, request: str) -> Any:
    """The ack of a request."""
    number = next(_numbers)
    await attacker.send(f"42{number}[{request}]")
    while not (packet := await attacker.packet()).startswith(f"43{number}["):
        pass
    return json.loads(packet[2 + len(str(number)) :])[0]


@pytest.mark.parametrize("name", SENSELESS)
async def test_a_senseless_request_is_answered_and_the_connection_goes_on(fortress: Site, name: str) -> None:
    request, code = SENSELESS[name]
    before = len(fortress.server.lines)
    async with witnessed(fortress), attacking(fortress) as attacker:
        assert (await ask(attacker, subscribe(CHANNEL)))["ok"]
        answer = await ask(attacker, request)
        assert (answer["ok"], answer["error"]["code"]) == (False, code)
        assert fortress.server.wait_for_log("refused", start=before)["code"] == code

        await attacker.send(f"42[{request}]")  # without an ack
        event, error = json.loads((await attacker.packet())[2:])
        assert (event, error["code"]) == ("realtime:error", code)
        assert (await ask(attacker, subscribe("orders")))["ok"]


async def test_a_payload_of_a_hundred_thousand_keys_arrives(fortress: Site) -> None:
    payload = json.dumps({str(number): 0 for number in range(100_000)}, separators=(",", ":"))
    async with witnessed(fortress), attacking(fortress) as attacker:
        await ask(attacker, subscribe(CHANNEL))
        await attacker.send("42[" + publish(payload, event="keys") + "]")
        name, data = json.loads((await attacker.packet())[2:])
        assert (name, len(data)) == ("keys", 100_001)


async def test_sql_in_names_is_only_text(fortress: Site) -> None:
    async with witnessed(fortress), attacking(fortress) as attacker:
        await ask(attacker, subscribe(CHANNEL))
        await attacker.send("42[" + publish("{}", event=INJECTION) + "]")
        name, data = json.loads((await attacker.packet())[2:])
        assert (name, data["meta"]["channel"]) == (INJECTION, CHANNEL)
        assert await fortress.sql("SELECT count(*) FROM realtime.messages WHERE event_name = $1", INJECTION) == 1


async def test_subscribing_without_an_ack_works_and_is_silent(fortress: Site) -> None:
    async with witnessed(fortress), attacking(fortress) as attacker:
        await attacker.send(f"42[{subscribe(CHANNEL)}]")
        assert (await ask(attacker, publish("{}")))["ok"]
        assert not any("realtime:error" in packet for packet in attacker.packets)


# Floods.


async def test_a_flood_of_tiny_fragments_is_one_message(fortress: Site) -> None:
    async with witnessed(fortress), attacking(fortress) as attacker:
        await attacker.send(frame('42["realtime:foo', final=False))
        for _ in range(50):
            await attacker.send(frame("", 0, final=False) * 1000)
            await attacker.send(frame("o", 0, final=False) * 1000)
        await attacker.send(frame('"]', 0))
        assert "INVALID_REQUEST" in await attacker.packet()


async def test_a_flood_of_pings_is_answered(fortress: Site) -> None:
    async with witnessed(fortress), attacking(fortress) as attacker:
        reading = asyncio.create_task(attacker.packet())
        for _ in range(30):
            await attacker.send(frame(b"x" * 125, PING) * 1000)
        await attacker.send(f"421[{subscribe('orders')}]")
        assert (await reading).startswith("431[")


async def test_a_flood_of_pings_whose_answers_are_not_read_ends(fortress: Site) -> None:
    before = len(fortress.server.lines)
    async with witnessed(fortress), attacking(fortress) as attacker:
        attacker.reader._transport.pause_reading()  # type: ignore[attr-defined]
        flood = asyncio.create_task(attacker.send(*[frame(b"x" * 125, PING) * 1000] * 200))
        await wait_until(lambda: _logged(fortress, "slow consumer closed", before) or flood.done())
        flood.cancel()
        await asyncio.gather(flood, return_exceptions=True)
        fortress.server.wait_for_log("slow consumer closed", start=before)


def _logged(running: Site, event: str, start: int) -> bool:
    return any(line.get("event") == event for line in running.server.lines[start:])


async def test_too_many_messages_are_refused_and_later_ones_pass_again(fortress: Site) -> None:
    request = '["realtime:unsubscribe",{"channel":"nowhere"}]'
    somebody = {"token": token("5eed0000-0000-4000-8000-00000000f100")}  # whose bucket is full
    async with witnessed(fortress), attacking(fortress, somebody) as attacker:
        began = asyncio.get_running_loop().time()
        await attacker.send(*[f"42{number}{request}" for number in range(1000)])
        answers: dict[int, Any] = {}
        while len(answers) < 1000:
            packet = await attacker.packet()
            answers[int(packet[2 : packet.index("[")])] = json.loads(packet[packet.index("[") :])[0]
        passed = sum(answer["ok"] for answer in answers.values())
        seconds = asyncio.get_running_loop().time() - began
        assert 200 <= passed <= 200 + 100 * seconds + 1
        assert {answer["error"]["code"] for answer in answers.values() if not answer["ok"]} == {"RATE_LIMITED"}
        assert all(answers[number]["ok"] for number in range(200))
        while not (await ask(attacker, request[1:-1]))["ok"]:
            await asyncio.sleep(0.01)


async def test_the_channels_of_a_connection_are_limited(fortress: Site) -> None:
    async with witnessed(fortress), attacking(fortress, {"apiKey": API_KEY}) as attacker:
        for number in range(100):
            assert (await ask(attacker, subscribe(f"order:{number}")))["ok"]
        answer = await ask(attacker, subscribe("order:100"))
        assert answer["error"]["code"] == "INVALID_REQUEST"
        assert (await ask(attacker, subscribe("order:7")))["ok"]  # again, which is not one more
        assert (await ask(attacker, '"realtime:unsubscribe",{"channel":"order:7"}'))["ok"]
        assert (await ask(attacker, subscribe("order:100")))["ok"]


BIG = """SELECT count(realtime.publish('orders', 'big', jsonb_build_object('n', n, 'text', $1::text)))
FROM generate_series($2::int, $3::int) n"""


async def test_who_stops_reading_is_cut_off_and_the_others_get_everything(fortress: Site) -> None:
    before = len(fortress.server.lines)
    async with witnessed(fortress) as witness, attacking(fortress) as attacker:
        attacker.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        assert (await ask(attacker, subscribe("orders")))["ok"]
        attacker.reader._transport.pause_reading()  # type: ignore[attr-defined]
        for number in range(1, 61, 2):
            await fortress.sql(BIG, os.urandom(500_000).hex(), number, number + 1)
            await witness.wait_for("big", number + 1)
        assert [data["n"] for data in witness.named("big")] == list(range(1, 61))
        fortress.server.wait_for_log("slow consumer closed", start=before)
        await fortress.is_left_by_all_but(1)
    assert sum(line.get("event") == "slow consumer closed" for line in fortress.server.lines[before:]) == 1


@pytest.mark.parametrize("text", ["x" * 1_000_000, os.urandom(500_000).hex()], ids=["compressible", "incompressible"])
async def test_who_reads_is_not_cut_off_by_a_burst_larger_than_its_buffer(fortress: Site, text: str) -> None:
    """One statement, so that the server has all of it at once."""
    async with attacking(fortress) as reader:
        assert (await ask(reader, subscribe("orders")))["ok"]
        reading = asyncio.create_task(_read(reader, 12))
        await fortress.sql(BIG, text, 1, 12)
        assert [json.loads(packet[2:])[1]["n"] for packet in await reading] == list(range(1, 13))
    fortress.is_well()


async def _read(reader: Attacker, number: int) -> list[str]:
    return [await reader.packet() for _ in range(number)]


# Credentials.


def _bearer(claims: dict[str, object], key: str = SECRET, algorithm: str = "HS256") -> dict[str, str]:
    return {"token": jwt.encode(claims, "" if algorithm == "none" else key, algorithm=algorithm)}


REFUSED: dict[str, object] = {
    "nothing": None,
    "an empty object": {},
    "garbage": {"token": MARKER},
    "a number": {"token": 5},
    "an object": {"token": {"a": 1}},
    "NUL": {"token": "\0"},
    "another key": _bearer({"sub": ALICE, "role": "authenticated"}, "x" * 40),
    "no signature": _bearer({"sub": ALICE, "role": "authenticated"}, algorithm="none"),
    "a cut signature": {"token": TOKEN[:-4]},
    "an expired token": _bearer({"sub": ALICE, "exp": 1}),
    "a token from the future": _bearer({"sub": ALICE, "nbf": 32503680000}),
    "an unknown role": _bearer({"sub": ALICE, "role": "postgres"}),
    "a role that is a list": _bearer({"sub": ALICE, "role": ["project_admin"]}),
    "a subject that is a number": {"token": token(None, sub=5)},
    "another anonymous key": {"token": ANON_KEY + "x"},
    "the API key as a token": {"token": API_KEY},
    "the anonymous key as an API key": {"apiKey": ANON_KEY},
    "both": {"token": TOKEN, "apiKey": API_KEY},
    "as much as may be sent": {"token": "x" * 19_900},
}


async def test_every_kind_of_refused_credential_is_unauthorized_and_the_right_one_still_works(fortress: Site) -> None:
    async with witnessed(fortress):
        for name, auth in REFUSED.items():
            before = len(fortress.server.lines)
            async with attacking(fortress, ...) as attacker:
                await attacker.send("40" + ("" if auth is None else json.dumps(auth)))
                answer = await attacker.packet()
                assert answer.startswith("44{"), name
                assert json.loads(answer[2:])["data"] == {"code": "UNAUTHORIZED"}, name
                assert fortress.server.wait_for_log("connect refused", start=before)["code"] == "UNAUTHORIZED"
                assert (await attacker.connect({"token": TOKEN})).startswith("40{")


async def test_a_token_that_expires_ends_the_connection_and_says_so(fortress: Site) -> None:
    async with witnessed(fortress), attacking(fortress, {"token": token(ALICE, ttl=1)}) as attacker:
        assert (await ask(attacker, subscribe("orders")))["ok"]
        assert await attacker.end() == 1008
        name, error = json.loads(attacker.packets[-1][2:])
        assert (name, error["code"]) == ("realtime:error", "TOKEN_EXPIRED")


async def test_credentials_that_do_not_expire_last(impatient: Site) -> None:
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(WireClient(impatient.server.ws_url, auth=auth))
            for auth in ({"token": ANON_KEY}, {"apiKey": API_KEY}, {"token": TOKEN})
        ]
        await wait_until(lambda: all("2" in client.packets or client.closed.is_set() for client in clients))
        assert [client.events for client in clients] == [[], [], []]
        assert not any(client.closed.is_set() for client in clients)
    impatient.is_well()


# Those who do nothing.


async def test_an_open_socket_that_never_says_connect_is_closed(impatient: Site) -> None:
    before = len(impatient.server.lines)
    async with witnessed(impatient), attacking(impatient, ...) as attacker:
        assert await attacker.end() == 1002
        assert impatient.server.wait_for_log("connection closed", start=before)["reason"] == "no CONNECT in time"


async def test_a_client_that_says_goodbye_and_stays_does_not_stay_until_its_next_heartbeat(fortress: Site) -> None:
    before, loop = len(fortress.server.lines), asyncio.get_running_loop()
    async with witnessed(fortress), attacking(fortress) as attacker:
        connected = loop.time()
        # Until the server has looked at it once, and would next do so at the heartbeat.
        await wait_until(lambda: loop.time() > connected + CONNECT_TIMEOUT + 2 * SLOT_SECONDS)
        await attacker.send("41")
        assert await attacker.end() == 1002
        assert "2" not in attacker.packets
        assert fortress.server.wait_for_log("connection closed", start=before)["reason"] == "no CONNECT in time"


async def test_a_client_that_never_answers_pings_is_closed(impatient: Site) -> None:
    before = len(impatient.server.lines)
    async with witnessed(impatient), attacking(impatient) as attacker:
        assert await attacker.end() == 1002
        assert attacker.packets[-1] == "2"
        assert impatient.server.wait_for_log("connection closed", start=before)["reason"] == "ping timeout"


async def test_those_who_do_not_hang_up_are_cut_off_and_hear_nothing_meanwhile(fortress: Site) -> None:
    async with (
        witnessed(fortress) as witness,
        attacking(fortress) as closing,
        attacking(fortress) as broken,
        attacking(fortress) as polite,
        attacking(fortress, query="EIO=3") as refused,
    ):
        for attacker in (closing, broken, polite):
            assert (await ask(attacker, subscribe("orders")))["ok"]
        await closing.send(frame((1000).to_bytes(2, "big"), CLOSE))
        await broken.send("x")
        await polite.send("1")
        assert [await closing.end(), await broken.end(), await polite.end()] == [1000, 1002, 1000]
        assert refused.status == 400
        # Their sockets are half open now: a message of the channel must reach the others all the same.
        await fortress.sql("SELECT realtime.publish('orders', 'meanwhile', '{}')")
        await witness.wait_for("meanwhile")
        await fortress.is_left_by_all_but(1)


# The handshake.

BAD_HANDSHAKES = {
    "EIO=3&transport=websocket": 5,
    "EIO=5&transport=websocket": 5,
    "transport=websocket": 5,
    "EIO=4&EIO=4&transport=websocket": 5,
    "": 5,
    "EIO=4&transport=polling": 3,
    "EIO=4&transport=websocket&transport=websocket": 0,
    "EIO=4&transport=carrier-pigeon": 0,
    "EIO=4": 0,
    "EIO=4&transport=websocket&sid=abc": 1,
    "EIO=4&transport=websocket&sid=%00%ff'": 1,
}


@pytest.mark.parametrize("query", BAD_HANDSHAKES)
async def test_a_wrong_handshake_gets_status_400_and_a_reason(fortress: Site, query: str) -> None:
    before = len(fortress.server.lines)
    async with witnessed(fortress), attacking(fortress, query=query) as attacker:
        assert attacker.status == 400
        reason = json.loads(attacker.body)
        assert reason["code"] == BAD_HANDSHAKES[query]
        assert reason["message"]
        assert fortress.server.wait_for_log("handshake refused", start=before)["status"] == 400


async def test_plain_http_gets_status_400_and_a_reason(fortress: Site) -> None:
    async with httpx.AsyncClient(base_url=fortress.server.url, trust_env=False) as client:
        for answer in (
            await client.get("/socket.io/?EIO=4&transport=websocket"),
            await client.post("/socket.io/?EIO=4&transport=polling", content=MARKER),
        ):
            assert answer.status_code == 400
            assert set(answer.json()) == {"code", "message"}
    fortress.is_well()


@pytest.mark.parametrize("path", ["/", "/socket.io", "//[", "/socket.io/../x", "/%00", "/socket.io/x"])
async def test_strange_paths_are_refused_or_served_and_break_nothing(fortress: Site, path: str) -> None:
    async with witnessed(fortress), attacking(fortress, ..., path=path) as attacker:
        assert attacker.status == 101 if path == "/socket.io" else attacker.status in (400, 403, 404)


async def test_another_origin_is_forbidden_and_the_right_one_or_none_is_not(impatient: Site) -> None:
    before = len(impatient.server.lines)
    async with attacking(impatient, ..., Origin="https://evil.example") as attacker:
        assert attacker.status == 403
        assert set(json.loads(attacker.body)) == {"code", "message"}
    assert impatient.server.wait_for_log("handshake refused", start=before)["status"] == 403
    async with attacking(impatient, ..., Origin="https://app.example") as attacker:
        assert attacker.status == 101
    async with attacking(impatient, ...) as attacker:
        assert attacker.status == 101


async def test_one_connection_too_many_gets_status_503_and_a_place_that_is_left_is_free(impatient: Site) -> None:
    await impatient.is_left_by_all_but(0)
    before = len(impatient.server.lines)
    async with contextlib.AsyncExitStack() as stack:
        clients = [WireClient(impatient.server.ws_url, auth={"token": TOKEN}) for _ in range(4)]
        for client in clients:
            await stack.enter_async_context(client)
        async with attacking(impatient, ...) as attacker:
            assert attacker.status == 503
            assert set(json.loads(attacker.body)) == {"code", "message"}
        assert impatient.server.wait_for_log("handshake refused", start=before)["status"] == 503
        await clients[0].ws.close()
        await impatient.is_left_by_all_but(3)
        async with attacking(impatient) as attacker:
            assert attacker.status == 101
    impatient.is_well()


# Memory.


async def _once(running: Site, frames: list[bytes | str]) -> None:
    async with attacking(running) as attacker:
        await attacker.send(*frames)
        await attacker.end()


async def _repeat(times: int, attack: Callable[[int], Any], at_a_time: int = 10) -> None:
    numbers = iter(range(times))

    async def some() -> None:
        for number in numbers:
            await attack(number)

    await asyncio.gather(*[some() for _ in range(at_a_time)])


async def test_attacks_leave_no_memory_behind(fortress: Site) -> None:
    attacks = [frames for frames, _ in BROKEN.values()]

    async def attack(number: int) -> None:
        await _once(fortress, attacks[number % len(attacks)])

    async with witnessed(fortress):
        await _repeat(2 * len(attacks), attack)
        await fortress.is_left_by_all_but(1)
        before = fortress.memory()
        await _repeat(10 * len(attacks), attack)
        await fortress.is_left_by_all_but(1)
        assert fortress.memory() - before < 30


async def test_half_messages_of_clients_that_vanish_leave_no_memory_behind(fortress: Site) -> None:
    half = [frame(b"x" * 900_000, final=False), frame(b"x" * 500_000, 0, size=900_000)]

    async def attack(number: int) -> None:
        async with attacking(fortress) as attacker:
            await attacker.send(half[number % 2])

    async with witnessed(fortress):
        await _repeat(20, attack)
        await fortress.is_left_by_all_but(1)
        before = fortress.memory()
        await _repeat(200, attack)
        await fortress.is_left_by_all_but(1)
        assert fortress.memory() - before < 40  # 200 halves are 140 MB and more
