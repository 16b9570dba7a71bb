"""Our Python client as a puppet, with the protocol of js/puppet.mjs: one command a line in, one JSON object a line out.

    in   {id, client, call, args}          a method of the client, by its name in SPEC.md, or one of the verbs below
    out  {id, result} | {id, error}        its answer
    out  {client, event, data}             an event that the client listens to

It ends with its standard input, so it never outlives the test.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
import re
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from insforge_realtime.client import (
    ClientError,
    ErrorInfo,
    PublishResponse,
    RealtimeClient,
    Subscribed,
    SubscribeResponse,
    create_client,
)

clients: dict[str, RealtimeClient] = {}
handlers: dict[str, Callable[..., None]] = {}
watched: set[asyncio.Task[None]] = set()


def say(**line: Any) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def snake(name: str) -> str:
    return re.sub("[A-Z]", lambda letter: "_" + letter[0].lower(), name)


def plain(value: Any) -> Any:
    """As the same thing looks in JavaScript."""
    match value:
        case ClientError():
            return {"message": value.message, "data": {"code": value.code}}
        case Exception():
            return {"message": f"{type(value).__name__}: {value}"}
        case Subscribed():
            return dataclasses.asdict(value)
        case ErrorInfo():
            return {key: item for key, item in dataclasses.asdict(value).items() if item is not None}
        case SubscribeResponse(ok=True):
            return {"ok": True, "channel": value.channel, "presence": {"members": value.members}}
        case SubscribeResponse():
            return {"ok": False, "channel": value.channel, "error": plain(value.error)}
        case PublishResponse(ok=True):
            return {"ok": True, "messageId": value.message_id}
        case PublishResponse():
            return {"ok": False, "error": plain(value.error)}
    return value


def create(name: str, config: dict[str, Any]) -> None:
    """`tokens`: a list, of which each handshake takes the next, and the last one for ever. Times are milliseconds."""
    options = {snake(key): value for key, value in config.items()}
    if "timeout" in options:
        options["timeout"] /= 1000
    first, limit = options.pop("reconnect_delay", 1000), options.pop("reconnect_delay_max", 20_000)
    options["backoff"] = (first / 1000, limit / 1000)
    if tokens := options.pop("tokens", None):
        options["access_token"] = lambda: tokens.pop(0) if len(tokens) > 1 else tokens[0]
    clients[name] = create_client(options.pop("base_url"), **options)


def listen(name: str, event: str) -> None:
    def handler(data: Any = None) -> None:
        # JSON.stringify leaves out what is undefined; so here.
        say(client=name, event=event, **({} if data is None else {"data": plain(data)}))

    handlers[f"{name} {event}"] = handler
    clients[name].on(event, handler)


def listen_once(name: str, event: str) -> None:
    clients[name].once(event, lambda data=None: say(client=name, event=event, data=plain(data)))


async def subscribe_told(name: str, channel: str) -> Any:
    """`subscribe`, which says `told` at each confirmation."""
    return await clients[name].subscribe(
        channel, on_subscribed=lambda news: say(client=name, event="told", data=plain(news))
    )


def state(name: str) -> dict[str, Any]:
    client = clients[name]
    return {
        "isConnected": client.is_connected,
        "connectionState": client.connection_state,
        "socketId": client.socket_id,
        "channels": client.get_subscribed_channels(),
    }


async def connect_watched(name: str) -> list[str]:
    """Every state that `connect` goes through."""
    client = clients[name]
    seen: list[str] = [client.connection_state]
    connecting = asyncio.create_task(client.connect())
    while not connecting.done():
        await asyncio.sleep(0)
        if seen[-1] != client.connection_state:
            seen.append(client.connection_state)
    await connecting
    return seen


async def publish(name: str, *args: Any) -> Any:
    options = args[3] if len(args) > 3 else {}
    return await clients[name].publish(*args[:3], **options)


async def publish_unsayable(name: str, channel: str, what: str, ack: bool) -> Any:
    """A publish of what no command line could say either."""
    cycle: dict[str, Any] = {}
    cycle["self"] = cycle
    payloads: dict[str, dict[str, Any]] = {
        "NaN": {"deep": [{"n": math.nan}]},
        "Infinity": {"n": math.inf},
        "-Infinity": {"n": -math.inf},
        "half": {"text": "a\ud83d"},
        "key": {"a\ude00": 1},
        "cycle": cycle,
        "alien": {"call": print},
    }
    half = "\ud800"
    channel, event = (half if what == "channel" else channel), (half if what == "event" else "said")
    if ack:
        return await clients[name].publish(channel, event, payloads.get(what, {}), ack=True)
    return await clients[name].publish(channel, event, payloads.get(what, {}))


async def subscribe_unsayable(name: str) -> dict[str, Any]:
    answer = plain(await clients[name].subscribe("chat:\ud800"))
    assert "\ud800" in answer.pop("channel")
    answer["error"].pop("channel")
    return dict(answer)


def set_access_token(name: str, token: str, options: dict[str, Any] | None = None) -> None:
    clients[name].set_access_token(token, **(options or {}))


verbs: dict[str, Callable[..., Any]] = {
    "create": create,
    "on": listen,
    "once": listen_once,
    "off": lambda name, event: clients[name].off(event, handlers[f"{name} {event}"]),
    "state": state,
    "subscribeTold": subscribe_told,
    "connectWatched": connect_watched,
    "publish": publish,
    "publishUnsayable": publish_unsayable,
    "subscribeUnsayable": subscribe_unsayable,
    "setAccessToken": set_access_token,
}


async def obey(id: int, client: str, call: str, args: list[Any]) -> None:
    try:
        result = verbs[call](client, *args) if call in verbs else getattr(clients[client], snake(call))(*args)
        if isinstance(result, Awaitable):
            result = await result
        say(id=id, result=plain(result))
    except Exception as error:
        say(id=id, error=plain(error))


async def main() -> None:
    reader = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        task = asyncio.create_task(obey(**json.loads(line)))
        watched.add(task)
        task.add_done_callback(watched.discard)
    for client in clients.values():
        await client.disconnect()


if __name__ == "__main__":
    asyncio.run(main())
