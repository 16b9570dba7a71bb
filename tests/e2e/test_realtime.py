"""`Realtime` inside an application of somebody's own: mounted, publishing from Python, in its logging, and not running."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import enum
import json
import math
import subprocess
import sys
import textwrap
import uuid
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import structlog
from fastapi import FastAPI
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from insforge_realtime import Realtime
from insforge_realtime.config import load
from insforge_realtime.errors import (
    ConfigError,
    InternalError,
    InvalidRequest,
    PayloadTooLarge,
    RealtimeError,
    Unavailable,
)
from insforge_realtime.pg.demo import ALICE, BOB, BOBS_ORDER, ROOM
from support.databases import Cluster, wait_until
from support.embedded import application, realtime_for, serving
from support.node import Puppet
from support.scenario import Client, PythonSocketIo, SocketIo, connected
from support.servers import SECRET, token
from support.wire import Refused, WireClient

TOKEN = {"token": token(BOB)}


@pytest.fixture(autouse=True)
def logging_is_nobodys_yet() -> None:
    """As in a process that has just begun: structlog's own capture of logs, in a test before, leaves it configured."""
    structlog.reset_defaults()


def websocket_url(address: str, path: str = "") -> str:
    return f"ws://{address}{path}/socket.io/?EIO=4&transport=websocket"


# Mounted


@pytest.mark.parametrize("door", ["fast", "ASGI"])
@pytest.mark.parametrize("path", ["", "/rt"], ids=["at the root", "at a path"])
async def test_it_lives_beside_an_applications_own_routes(door: str, path: str, demo: str) -> None:
    realtime = realtime_for(demo, root_path=path if door == "fast" else "")
    options = {"ws": realtime.websocket_class} if door == "fast" else {}
    async with serving(application(realtime, path or "/"), **options) as address, httpx.AsyncClient() as browser:
        url = f"http://{address}"
        assert (await browser.get(f"{url}/mine")).json() == {"whose": "mine"}
        assert (await browser.get(f"{url}{path}/api/health")).json()["status"] == "ok"
        async with connect(f"ws://{address}/mine/echo", proxy=None) as own:
            await own.send("hello")
            assert await own.recv() == "HELLO"
        polling = PythonSocketIo(url + path, ["polling"])
        await polling.connect()
        assert await polling.subscribe("orders") == "ok"
        async with WireClient(websocket_url(address, path), TOKEN) as websocket:
            assert (await websocket.subscribe("orders"))["ok"]
            message_id = await realtime.publish("orders", "shipped", {"id": 1})
            [message] = await websocket.wait_for("shipped")
            [polled] = await polling.inbox.wait_for("shipped")
            assert polled.data == message
            assert message["id"] == 1
            assert message["meta"].pop("timestamp")
            assert message["meta"] == {"channel": "orders", "messageId": message_id, "senderType": "system"}
            carrier = type(next(iter(_connections(realtime) - _polling(realtime)))._transport).__name__
            assert carrier == ("RealtimeWebSocket" if door == "fast" else "AsgiWebSocket")
        await polling.close()
        if path:
            with pytest.raises(InvalidStatus):
                await connect(websocket_url(address, "/elsewhere"), proxy=None)


def _connections(realtime: Realtime) -> set[Any]:
    assert realtime._running is not None
    return set(realtime._running.gateway.connections)


def _polling(realtime: Realtime) -> set[Any]:
    assert realtime._running is not None
    gateway = realtime._running.gateway
    return {connection for connection in gateway.connections if connection.sid in gateway.polling_sessions}


async def test_what_happens_is_counted_from_the_socket_to_the_row_and_back(demo: str) -> None:
    realtime = realtime_for(demo)
    async with serving(application(realtime, "/"), ws=realtime.websocket_class) as address:
        assert realtime._running is not None
        metrics = realtime._running.metrics
        async with WireClient(websocket_url(address), TOKEN) as one, WireClient(websocket_url(address), TOKEN) as two:
            for client in (one, two):
                assert (await client.subscribe(f"chat:{ROOM}"))["ok"]
            assert not (await one.subscribe("no such channel"))["ok"]
            assert (await one.publish(f"chat:{ROOM}", "hello", {}))["ok"]
            await one.wait_for("hello")
            await two.wait_for("hello")
            with pytest.raises(Refused):
                async with WireClient(websocket_url(address), {"token": "nonsense"}):
                    pass
        assert metrics.connects == {"ok": 2, "UNAUTHORIZED": 1}
        assert metrics.subscribes == {"ok": 2, "UNAUTHORIZED": 1}
        assert metrics.publishes == {"ok": 1}
        assert (metrics.messages_read, metrics.deliveries) == (1, 2)
        assert metrics.delivered_bytes > 2 * len('42["hello",{}]')
        assert (metrics.pages.sizes.count, metrics.pages.sizes.sum) == (1, 1)
        assert metrics.pages.microseconds.count >= metrics.feed_looks > 0
        assert (metrics.subscribe_batches.sizes.sum, metrics.publish_batches.sizes.sum) == (3, 1)


async def test_two_lifespans_one_after_the_other_work_and_two_at_a_time_do_not(demo: str) -> None:
    realtime = realtime_for(demo)
    for number in range(2):
        async with realtime.lifespan():
            assert await realtime.publish("orders", "shipped", {"n": number})
            with pytest.raises(RuntimeError, match="running already"):
                async with realtime.lifespan():
                    pass
    with pytest.raises(ConfigError):
        await realtime.publish("orders", "shipped", {})


async def test_before_its_lifespan_everybody_is_told_so(demo: str, caplog: pytest.LogCaptureFixture) -> None:
    realtime = realtime_for(demo)
    with pytest.raises(ConfigError, match=r"lifespan=realtime\.lifespan"):
        await realtime.publish("orders", "shipped", {})
    with pytest.raises(ConfigError, match="not running"):
        realtime.disconnect(BOB)
    app = FastAPI()  # its author forgot the lifespan
    app.mount("/", realtime.asgi)
    for options in ({}, {"ws": realtime.websocket_class}):
        async with serving(app, **options) as address, httpx.AsyncClient() as browser:
            answer = await browser.get(f"http://{address}/socket.io/?EIO=4&transport=polling")
            assert (answer.status_code, answer.json()["code"]) == (503, "UNAVAILABLE")
            with pytest.raises(InvalidStatus):
                await connect(websocket_url(address), proxy=None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"databse_url": "postgresql://127.0.0.1/x"},
            "there is no setting 'databse_url'; did you mean 'database_url'?",
        ),
        ({"colour": "red"}, "there is no setting 'colour'"),
        ({"database_url": "mysql://127.0.0.1/x"}, "DATABASE_URL: must be a URL that starts with postgresql://"),
        ({"ping_interval": -1}, "REALTIME_PING_INTERVAL: "),
        ({"config": load(), "jwt_secret": SECRET}, "Realtime takes a complete Config or settings, not both"),
        ({}, "missing: DATABASE_URL"),
    ],
)
def test_wrong_settings_are_refused_at_once(
    settings: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DATABASE_URL", "REALTIME_JWT_SECRET"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError) as caught:
        Realtime(**settings)
    assert str(caught.value).startswith(message)


# publish


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Point:
    x: int


WHEN = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("payload", "arrives"),
    [
        ({}, {}),
        ({"meta": {"senderType": "user"}, "a": [1, 2.5, None, True, "ü ✓"]}, {"a": [1, 2.5, None, True, "ü ✓"]}),
        ({"when": WHEN, "day": WHEN.date()}, {"when": "2026-01-02T03:04:05+00:00", "day": "2026-01-02"}),
        ({"id": uuid.UUID(BOB)}, {"id": BOB}),
        ({"colour": Colour.RED, "point": Point(1)}, {"colour": "red", "point": {"x": 1}}),
        ({"nan": math.nan, "infinity": math.inf}, {"nan": None, "infinity": None}),
        ({"large": "x" * 1_000_000}, {"large": "x" * 1_000_000}),
    ],
    ids=["empty", "JSON", "dates", "UUID", "enum and dataclass", "NaN", "large"],
)
async def test_what_is_published_arrives(payload: dict[str, Any], arrives: dict[str, Any], demo: str) -> None:
    realtime = realtime_for(demo)
    app = application(realtime)
    async with (
        serving(app, ws=realtime.websocket_class) as address,
        WireClient(websocket_url(address), TOKEN) as client,
    ):
        await client.subscribe("orders")
        message_id = await realtime.publish("orders", "news", payload)
        [message] = await client.wait_for("news")
    meta = message.pop("meta")
    assert message == arrives
    assert (meta["messageId"], meta["senderType"]) == (message_id, "system")


SURROGATE = "\ud800"
WRONG: dict[str, tuple[tuple[Any, Any, Any], type[RealtimeError], str]] = {
    "no event": (("orders", "", {}), InvalidRequest, "event name is empty"),
    "a reserved event": (("orders", "connect", {}), InvalidRequest, "reserved"),
    "one of ours": (("orders", "realtime:subscribe", {}), InvalidRequest, "reserved"),
    "presence": (("orders", "presence:join", {}), InvalidRequest, "reserved"),
    "an event that is a number": (("orders", 7, {}), InvalidRequest, "event must be a string"),
    "a channel that is a number": ((7, "news", {}), InvalidRequest, "channel must be a string"),
    "no channel": ((None, "news", {}), InvalidRequest, "channel must be a string"),
    "a NUL in the channel": (("orders\0", "news", {}), InvalidRequest, "NUL"),
    "a NUL in the event": (("orders", "news\0", {}), InvalidRequest, "NUL"),
    "half a character": (("orders", SURROGATE, {}), InvalidRequest, "surrogate"),
    "a payload that is text": (("orders", "news", "text"), InvalidRequest, "mapping"),
    "a payload that is a list": (("orders", "news", [("a", 1)]), InvalidRequest, "mapping"),
    "no payload": (("orders", "news", None), InvalidRequest, "mapping"),
    "bytes": (("orders", "news", {"a": b"bytes"}), InvalidRequest, "bytes"),
    "a set": (("orders", "news", {"a": {1}}), InvalidRequest, "set"),
    "a key that is a number": (("orders", "news", {1: 1}), InvalidRequest, "str"),
    "a number of more than 64 bits": (("orders", "news", {"a": 2**64}), InvalidRequest, "64"),
    "a NUL in the payload": (("orders", "news", {"a": "\0"}), InvalidRequest, ""),
    "half a character in the payload": (("orders", "news", {"a": SURROGATE}), InvalidRequest, "surrogates"),
    "too much": (("orders", "news", {"a": "x" * 5_000_000}), PayloadTooLarge, "4194304"),
}


async def test_what_cannot_be_published_is_refused_and_costs_nobody_else_anything(demo: str) -> None:
    realtime = realtime_for(demo)
    circle: dict[str, Any] = {}
    circle["itself"] = circle
    wrong = WRONG | {"a circle": (("orders", "news", circle), InvalidRequest, "")}
    async with realtime.lifespan():
        # All at the same time, each beside one that is well: they share round trips.
        well = [realtime.publish("orders", "well", {"n": number}) for number in range(len(wrong))]
        answers = await asyncio.gather(
            *(realtime.publish(*message) for message, _, _ in wrong.values()), *well, return_exceptions=True
        )
    for (name, (_, kind, words)), answer in zip(wrong.items(), answers, strict=False):
        assert type(answer) is kind, (name, answer)
        assert words in str(answer), (name, answer)
    assert all(isinstance(answer, str) for answer in answers[len(wrong) :])
    async with connected(demo) as sql:
        assert await sql.fetchval("SELECT count(*) FROM realtime.messages WHERE event_name = 'well'") == len(wrong)
        assert not await sql.fetchval("SELECT count(*) FROM realtime.messages WHERE event_name = 'news'")


async def test_where_no_channel_matches_the_answer_is_none_and_the_log_says_so(
    demo: str, caplog: pytest.LogCaptureFixture
) -> None:
    realtime = realtime_for(demo)
    async with realtime.lifespan():
        assert await realtime.publish("no such channel", "news", {}) is None
        assert await realtime.publish("", "news", {}) is None
        async with connected(demo) as sql:
            await sql.execute("UPDATE realtime.channels SET enabled = false WHERE pattern = 'orders'")
        ids = await realtime.publish_many([("orders", "news", {}), (f"order:{BOBS_ORDER}", "news", {})] * 2)
        assert [made is None for made in ids] == [True, False] * 2
    said = [
        record.getMessage() for record in caplog.records if "published to no enabled channel" in record.getMessage()
    ]
    assert len(said) == 3
    assert "no such channel" in said[0]


async def test_a_trigger_that_raises_is_an_internal_error_of_that_publish_alone(demo: str) -> None:
    async with connected(demo) as sql:
        await sql.execute(
            """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
               BEGIN IF NEW.event_name = 'bad' THEN RAISE 'no'; END IF; RETURN NEW; END $$;
               CREATE TRIGGER refuse BEFORE INSERT ON realtime.messages FOR EACH ROW EXECUTE FUNCTION refuse()"""
        )
    realtime = realtime_for(demo)
    async with realtime.lifespan():
        events = ["good", "bad", "good"]
        answers = await asyncio.gather(
            *(realtime.publish("orders", event, {}) for event in events), return_exceptions=True
        )
    assert [type(answer) for answer in answers] == [str, InternalError, str]


async def test_publish_many_is_one_statement_all_or_none_in_order(demo: str) -> None:
    number = 10_000
    realtime = realtime_for(demo)
    async with realtime.lifespan():
        assert await realtime.publish_many([]) == []
        ids = await realtime.publish_many(("orders", "news", {"n": n}) for n in range(number))
        with pytest.raises(InvalidRequest, match="reserved"):
            await realtime.publish_many([("orders", "news", {}), ("orders", "error", {}), ("orders", "news", {})])
    assert len(set(ids)) == number
    async with connected(demo) as sql:
        rows = await sql.fetch(
            """SELECT id::text, (payload->>'n')::int n, xid::text FROM realtime.messages
               WHERE event_name = 'news' ORDER BY seq"""
        )
    assert [row["id"] for row in rows] == ids
    assert [row["n"] for row in rows] == list(range(number))
    assert len({row["xid"] for row in rows}) == 1


async def test_without_the_database_publishing_says_unavailable_and_goes_on_when_it_is_back(
    demo: str, newest: Cluster
) -> None:
    name = demo.rsplit("/", 1)[1]
    realtime = realtime_for(demo)
    async with realtime.lifespan():
        assert await realtime.publish("orders", "news", {})
        await newest.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await newest.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        with pytest.raises(Unavailable):
            await realtime.publish("orders", "news", {})
        await newest.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(Unavailable):
                    assert await realtime.publish("orders", "news", {})
                    break
                await asyncio.sleep(0.02)


# disconnect


async def test_who_is_disconnected_is_told_and_stays_away(demo: str) -> None:
    realtime = realtime_for(demo)
    async with serving(application(realtime), ws=realtime.websocket_class) as address, Puppet("scenario.mjs") as puppet:
        url = f"http://{address}"
        bobs: list[Client] = [
            SocketIo(puppet, url, transports=["websocket"]),
            SocketIo(puppet, url, transports=["polling"]),
            PythonSocketIo(url, ["polling"]),
            PythonSocketIo(url, ["websocket"]),
        ]
        for client in bobs:
            await client.connect()
        async with WireClient(websocket_url(address), {"token": token(ALICE)}) as alice:
            await alice.subscribe(f"chat:{ROOM}")
            assert realtime.disconnect("nobody") == 0
            assert realtime.disconnect(BOB) == len(bobs)
            for client in bobs:
                [ended] = await client.inbox.wait_for("disconnect")
                assert ended.data in ("io server disconnect", "server disconnect")
            await wait_until(lambda: len(_connections(realtime)) == 1)
            assert (await alice.publish(f"chat:{ROOM}", "said", {}))["ok"]  # others are not disturbed
            # As long as a client that came back by itself would wait before it does.
            await asyncio.sleep(2)
            assert len(_connections(realtime)) == 1
            assert realtime.disconnect(BOB) == 0
            for client in bobs:
                assert len(client.inbox.named("connect")) == 1
                await client.close()


# The application's own affairs


def run(script: str, **environment: str) -> str:
    """What a Python program of its own prints."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment | {"PYTHONWARNINGS": "error"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


LIFESPAN = """
    import asyncio, os
    from insforge_realtime import Realtime
    async def main():
        realtime = Realtime()
        async with realtime.lifespan():
            await realtime.publish("no such channel", "news", {})
    asyncio.run(main())
"""


def test_our_lines_go_to_the_applications_logging_which_stays_as_it_is(demo: str) -> None:
    script = """
    import logging, sys
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(name)s|%(levelname)s|%(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    before = [(logging.root.level, logging.root.handlers[:], logging.getLogger("uvicorn").level)]
    """
    after = """
    assert [(logging.root.level, logging.root.handlers[:], logging.getLogger("uvicorn").level)] == before
    """
    lines = run(script + LIFESPAN + after, DATABASE_URL=demo, REALTIME_JWT_SECRET=SECRET).splitlines()
    [line] = [line for line in lines if "no enabled channel" in line]
    assert line == "insforge_realtime.pg|WARNING|event='published to no enabled channel' channel='no such channel'"


def test_a_structlog_that_the_application_has_configured_is_used(demo: str) -> None:
    script = """
    import json, structlog
    structlog.configure(processors=[lambda logger, method, values: json.dumps(values | {"theirs": method})])
    """
    lines = run(script + LIFESPAN, DATABASE_URL=demo, REALTIME_JWT_SECRET=SECRET).splitlines()
    assert {"event": "published to no enabled channel", "channel": "no such channel", "theirs": "warning"} in [
        json.loads(line) for line in lines
    ]


def test_importing_the_package_imports_nothing_else() -> None:
    script = """
    import sys
    before = set(sys.modules)
    import insforge_realtime
    assert insforge_realtime.__version__
    print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)))
    from insforge_realtime import Realtime, create_app
    """
    assert run(script).split() == ["insforge_realtime"]
