"""The line `refused` in the log: who, which channel, and why, for the operator; on the wire all of it looks alike."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from insforge_realtime.pg.demo import ALICE, ALICES_ORDER, BOB, BOBS_ORDER, ROOM
from support.client import run_sql
from support.servers import ANON_KEY, Server, token
from support.wire import Refused, WireClient

Start = Callable[..., Server]
CLOSED = "INSERT INTO realtime.channels (pattern, enabled) VALUES ('closed:%', false)"
OLDER = """
CREATE OR REPLACE FUNCTION realtime.explain_no(
    p_verdict text, p_table regclass, p_commands "char"[], p_role text, p_channel text
) RETURNS text LANGUAGE sql AS 'SELECT p_verdict'
"""


async def refusal(server: Server, start: int) -> dict[str, Any]:
    return await asyncio.to_thread(server.wait_for_log, "refused", start=start)


async def test_a_refused_subscribe_says_who_which_channel_and_why_and_the_client_learns_nothing(
    demo: str, start: Start
) -> None:
    await run_sql(demo, CLOSED)
    server = start(demo)
    expected = {
        "nowhere": ("no such channel", None),
        "closed:1": ("the channel is disabled", "closed:%"),
        f"order:{BOBS_ORDER}": ("the policies say no", "order:%"),
        "order:abc": ("a policy could not read a value", "order:%"),
    }
    answers = []
    async with WireClient(server.ws_url, {"token": token(ALICE)}) as alice:
        for channel, (reason, pattern) in expected.items():
            before = len(server.lines)
            answer = await alice.subscribe(channel)
            assert answer.pop("channel") == channel
            answers.append(answer)
            line = await refusal(server, before)
            assert (line["level"], line["command"], line["sub"]) == ("info", "realtime:subscribe", ALICE)
            assert (line["channel"], line["code"], line["reason"]) == (channel, "UNAUTHORIZED", reason)
            assert line.get("pattern") == pattern
    refused = {"code": "UNAUTHORIZED", "message": "Not allowed to subscribe to this channel"}
    assert answers == [{"ok": False, "error": refused}] * len(expected)
    async with WireClient(server.ws_url, {"token": ANON_KEY}) as nobody:
        before = len(server.lines)
        await nobody.subscribe("orders")
        line = await refusal(server, before)
        assert (line["sub"], line["reason"], line["pattern"]) == ("anonymous", "no policy for the role anon", "orders")
    assert not [line for line in server.lines if "could not read a value" in line["event"]]  # a line for each is enough


async def test_a_refused_publish_says_who_which_channel_and_why(demo: str, start: Start) -> None:
    server = start(demo)
    async with WireClient(server.ws_url, {"token": token(BOB)}) as bob:
        for channel in ("orders", f"order:{BOBS_ORDER}", f"chat:{ROOM}"):
            assert (await bob.subscribe(channel))["ok"]
        cases: list[tuple[dict[str, Any], str, str]] = [
            ({"channel": f"order:{BOBS_ORDER}", "event": "e", "payload": {}}, "UNAUTHORIZED", "the policies say no"),
            (
                {"channel": "chat:other", "event": "e", "payload": {}},
                "NOT_SUBSCRIBED",
                "Subscribe to the channel before",
            ),
            ({"channel": f"chat:{ROOM}", "event": "e"}, "INVALID_REQUEST", "The payload must be an object"),
        ]
        for data, code, reason in cases:
            before = len(server.lines)
            await bob.emit("realtime:publish", data)
            line = await refusal(server, before)
            assert (line["command"], line["sub"], line["channel"]) == ("realtime:publish", BOB, data["channel"])
            assert line["code"] == code
            assert line["reason"].startswith(reason)
            assert ("pattern" in line) == (code == "UNAUTHORIZED")


async def test_who_sends_too_much_is_named_now_and_then(demo: str, start: Start) -> None:
    server = start(demo, max_messages_per_second=1)
    async with WireClient(server.ws_url, {"token": token(ALICE)}) as alice:
        answers = await asyncio.gather(*(alice.subscribe(f"order:{ALICES_ORDER}") for _ in range(50)))
    assert len([answer for answer in answers if not answer["ok"]]) >= 40
    line = await refusal(server, 0)
    assert (line["code"], line["sub"], line["channel"]) == ("RATE_LIMITED", ALICE, f"order:{ALICES_ORDER}")
    assert len([line for line in server.lines if line["event"] == "refused"]) < 10


@pytest.mark.parametrize(
    ("auth", "sub", "reason"),
    [
        ({}, "anonymous", "A token is needed"),
        ({"token": "nonsense"}, "anonymous", "The token is not a valid JWT"),
        ({"token": token(ALICE, ttl=-10)}, ALICE, "The token has expired"),
        ({"token": token(ALICE, ttl=-10)[:-8] + "AAAAAAAA"}, "anonymous", "The token's signature is wrong"),
    ],
    ids=["no token", "no JWT", "expired", "forged and expired"],
)
async def test_a_refused_connect_says_whose_token_it_was_if_it_was_theirs(
    demo: str, start: Start, auth: dict[str, str], sub: str, reason: str
) -> None:
    server = start(demo)
    with pytest.raises(Refused) as refused:
        async with WireClient(server.ws_url, auth):
            pass
    assert ALICE not in str(refused.value)
    line = await asyncio.to_thread(server.wait_for_log, "connect refused")
    assert (line["code"], line["sub"]) == ("UNAUTHORIZED", sub)
    assert line["reason"].startswith(reason)
    assert auth.get("token", "?") not in "\n".join(server.raw)


async def test_a_database_whose_functions_give_no_reason_still_answers(demo: str, start: Start) -> None:
    await run_sql(demo, OLDER)
    server = start(demo)
    async with WireClient(server.ws_url, {"token": token(ALICE)}) as alice:
        assert (await alice.subscribe("nowhere"))["error"]["code"] == "UNAUTHORIZED"
    assert (await refusal(server, 0))["reason"] == "Not allowed to subscribe to this channel"
