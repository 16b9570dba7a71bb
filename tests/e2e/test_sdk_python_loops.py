"""One Python client in several event loops, one after the other: what a script does that calls `asyncio.run` twice."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import pytest

from insforge_realtime.client import NotConnected, RealtimeClient, create_client
from insforge_realtime.pg.demo import BOB, ROOM
from support.client import until_load
from support.servers import Server, token

Start = Callable[..., Server]

CHAT = f"chat:{ROOM}"
LAST = -1
"""What a run publishes last, and does not wait for."""


async def one_run(client: RealtimeClient, heard: list[Any]) -> None:
    """Subscribe, publish, and hear it, by a listener of each kind and by a stream."""
    assert client.connection_state == "disconnected"
    assert client.get_subscribed_channels() == []
    already = len(heard)
    with pytest.raises(NotConnected):
        await client.publish(CHAT, "said", {})
    assert (await client.subscribe(CHAT)).ok
    stream = client.stream(CHAT)
    reading = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    assert (await client.publish(CHAT, "said", {"n": already}, ack=True)).ok
    first = await asyncio.wait_for(reading, 20)
    if first["n"] == LAST:  # of the run before, delivered after this run has subscribed
        first = await asyncio.wait_for(anext(stream), 20)
    assert first["n"] == already
    async with asyncio.timeout(20):
        while len(heard) < already + 2:
            await asyncio.sleep(0.01)
    assert [n for _, n in heard[already:]] == [already] * 2


def listening(client: RealtimeClient) -> list[Any]:
    heard: list[Any] = []

    async def slowly(payload: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        heard.append(("async", payload["n"]))

    client.on("said", lambda payload: heard.append(("plain", payload["n"])))
    client.on("said", slowly)
    return heard


def in_a_block(client: RealtimeClient, heard: list[Any]) -> None:
    async def main() -> None:
        async with client:
            await one_run(client, heard)

    asyncio.run(main())


def without_a_good_bye(client: RealtimeClient, heard: list[Any]) -> None:
    asyncio.run(one_run(client, heard))


def while_a_listener_works(client: RealtimeClient, heard: list[Any]) -> None:
    """The loop ends in the middle of a call of an async listener, with others in its line."""

    async def main() -> None:
        hang = asyncio.Event()

        async def stuck(payload: dict[str, Any]) -> None:
            heard_stuck.append(payload["n"])
            await hang.wait()

        heard_stuck: list[int] = []
        remove = client.on("said", stuck)
        await one_run(client, heard)
        await client.publish(CHAT, "more", {"n": LAST}, ack=True)
        remove()

    asyncio.run(main())


def in_a_loop_that_is_closed_at_once(client: RealtimeClient, heard: list[Any]) -> None:
    """By hand, and rudely: no task is cancelled. What python-engineio leaves behind then is not our business."""
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)
    loop.run_until_complete(one_run(client, heard))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


WAYS = [in_a_block, without_a_good_bye, while_a_listener_works]


@pytest.mark.parametrize("transports", [("websocket",), ("polling",)], ids="-".join)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_a_client_works_in_one_run_after_the_other(
    demo: str, start: Start, way: Callable[..., None], transports: tuple[str, ...]
) -> None:
    # A long-polling session whose client has gone between two polls is found by its heartbeat.
    server = start(demo, ping_interval=2, ping_timeout=2)

    def script() -> None:
        client = create_client(server.url, access_token=token(BOB), transports=transports)
        heard = listening(client)
        for _ in range(3):
            way(client, heard)
            assert (client.connection_state, client.is_connected, client.socket_id) == ("disconnected", False, None)
            assert client.get_subscribed_channels() == []
            assert client.get_presence_state(CHAT) == []

    await asyncio.to_thread(script)
    await until_load(server, 0, 0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
async def test_a_client_works_after_a_loop_that_was_closed_rudely(demo: str, start: Start) -> None:
    server = start(demo)

    def script() -> None:
        client = create_client(server.url, access_token=token(BOB))
        heard = listening(client)
        in_a_loop_that_is_closed_at_once(client, heard)
        assert client.connection_state == "disconnected"
        client.set_access_token(token(BOB))
        in_a_block(client, heard)
        gc.collect()

    await asyncio.to_thread(script)


async def test_a_client_that_is_connected_in_another_loop_says_so(demo: str, start: Start) -> None:
    server = start(demo)
    async with create_client(server.url, access_token=token(BOB)) as client:
        assert (await client.subscribe(CHAT)).ok

        async def elsewhere() -> None:
            for use in (
                client.connect(),
                client.subscribe(CHAT),
                client.publish(CHAT, "said", {}),
                client.disconnect(),
            ):
                with pytest.raises(RuntimeError, match="another event loop"):
                    await use
            with pytest.raises(RuntimeError, match="another event loop"):
                await anext(client.stream(CHAT))

        await asyncio.to_thread(asyncio.run, elsewhere())
        assert (await client.publish(CHAT, "said", {}, ack=True)).ok
    # Once it has been disconnected it is anybody's.
    heard = listening(client)
    await asyncio.to_thread(in_a_block, client, heard)


async def test_a_script_that_says_no_good_bye_ends_quietly_and_at_once(demo: str, start: Start) -> None:
    server = start(demo)
    script = f"""
        import asyncio, time
        from insforge_realtime.client import create_client
        client = create_client({server.url!r}, access_token={token(BOB)!r})
        async def main():
            assert (await client.subscribe({CHAT!r})).ok
        for _ in range(2):
            asyncio.run(main())
        print(client.connection_state)
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "dev", "-c", textwrap.dedent(script)), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, out.decode(), err.decode()) == (0, "disconnected\n", "")
