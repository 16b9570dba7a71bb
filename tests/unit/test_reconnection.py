"""The table of client/reconnection.py. Its cases, clients/reconnection-cases.json, hold for the TypeScript SDK as well."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, get_args

import pytest

from insforge_realtime.client import ConnectError, create_client
from insforge_realtime.client.connection import Connection
from insforge_realtime.client.reconnection import Action, EventType, LinkEvent, LinkState, Phase, step

TABLE = json.loads((Path(__file__).parents[2] / "clients/reconnection-cases.json").read_text())


@pytest.mark.parametrize("case", TABLE["cases"], ids=lambda case: f"{case['state']}, {case['event']}")
def test_every_row_of_the_table(case: dict[str, Any]) -> None:
    action = case["action"] and Action(**case["action"])
    assert step(LinkState(**case["state"]), LinkEvent(**case["event"])) == (LinkState(**case["next"]), action)


def test_the_table_is_every_event_in_every_phase() -> None:
    pairs = {(case["state"]["phase"], case["event"]["type"]) for case in TABLE["cases"]}
    assert pairs == {(phase, event) for phase in get_args(Phase) for event in get_args(EventType)}


@pytest.mark.parametrize("run", TABLE["runs"], ids=lambda run: str(run["name"]))
def test_what_follows_from_it(run: dict[str, Any]) -> None:
    state, done = LinkState(**run["state"]), []
    for event in run["events"]:
        state, action = step(state, LinkEvent(**event))
        done.append(action and (f"wait {action.failures}" if action.do == "wait" else action.do))
    assert done == run["actions"]


@pytest.mark.parametrize("how", ["hangs", "backs off"])
async def test_another_token_cuts_short_what_goes_on_with_the_old_one(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()

    async def attempt(_: Connection) -> None:
        if begun.is_set():
            raise ConnectError("UNAUTHORIZED", "no")
        begun.set()
        if how == "hangs":
            await asyncio.Event().wait()
        raise ConnectError("UNAVAILABLE", "not now")

    monkeypatch.setattr(Connection, "_attempt", attempt)
    client = create_client("http://127.0.0.1:9", access_token="old", timeout=60, backoff=(60, 60))
    connecting = asyncio.ensure_future(client.connect())
    await begun.wait()
    await asyncio.sleep(0.01)
    assert not connecting.done()
    client.set_access_token("new")
    async with asyncio.timeout(10):
        with pytest.raises(ConnectError, match="UNAUTHORIZED"):
            await connecting
    assert client.connection_state == "disconnected"


async def test_a_first_connect_is_given_up_in_time_with_what_was_answered_last(monkeypatch: pytest.MonkeyPatch) -> None:
    failed: list[str] = []

    async def attempt(_: Connection) -> None:
        if len(failed) == 2:
            await asyncio.Event().wait()
        raise ConnectError("UNAVAILABLE", "not now")

    monkeypatch.setattr(Connection, "_attempt", attempt)
    client = create_client("http://127.0.0.1:9", timeout=0.2, backoff=(0.01, 0.01))
    client.on("connect_error", lambda error: failed.append(error.code))
    with pytest.raises(ConnectError, match="UNAVAILABLE"):
        await client.connect()
    assert failed == ["UNAVAILABLE"] * 2  # the third was cut short, and is nobody's answer
