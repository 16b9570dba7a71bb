"""The Python SDK as programs use it, for type checkers: test_sdk_python_types.py has pyright and mypy read it, strictly.

It is never run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypedDict

from insforge_realtime.client import (
    ClientError,
    ConnectError,
    ErrorInfo,
    Member,
    Message,
    PresenceEvent,
    RealtimeClient,
    Subscribed,
    create_client,
    sync,
)


class Order(TypedDict):
    """A payload whose shape the application knows."""

    id: str
    status: Literal["new", "paid"]


async def fresh_token() -> str | None:
    return "token"


def plain_token() -> str:
    return "token"


def clients() -> list[RealtimeClient]:
    return [
        create_client("http://127.0.0.1", access_token="token"),
        create_client("http://127.0.0.1", access_token=fresh_token),
        create_client("http://127.0.0.1", access_token=plain_token, anon_key="anon_1"),
        create_client("http://127.0.0.1", access_token=lambda: "token", transports=("polling",)),
        create_client("http://127.0.0.1", api_key="ik_1", timeout=3, backoff=(0.5, 5)),
    ]


def listeners_as_calls(client: RealtimeClient) -> None:
    """Lambdas have no annotations: what they get must be known."""
    removers: list[Callable[[], None]] = [
        client.on("connect", lambda: print("connected")),
        client.on("connect_error", lambda error: print(error.code.lower(), error.message.lower())),
        client.on("disconnect", lambda reason: print(reason.upper())),
        client.on("realtime:subscribed", lambda news: print(news.channel.upper(), news.renewed)),
        client.once("realtime:subscribed", lambda news: print(news.channel.upper(), news.renewed)),
        client.on("error", lambda error: print(error.code.lower(), error.channel or "-")),
        client.on("presence:join", lambda event: print(event["member"]["presenceId"].lower())),
        client.on("presence:leave", lambda event: print(event["meta"]["channel"].lower())),
        client.on("UPDATE_order", lambda order: print(order["status"], order["meta"]["messageId"])),
        client.once("UPDATE_order", print),
        client.once("error", lambda error: print(error.message.lower())),
    ]
    for remove in removers:
        remove()


def listeners_of_all_kinds(client: RealtimeClient) -> None:
    def with_a_type(order: Order) -> None:
        print(order["status"])

    def with_a_dict(payload: dict[str, Any]) -> None:
        print(payload["status"])

    async def slow(payload: dict[str, Any]) -> None:
        await asyncio.sleep(payload["seconds"])

    async def slow_error(error: ErrorInfo) -> None:
        await asyncio.sleep(len(error.code))

    async def slow_connect() -> None:
        await asyncio.sleep(0)

    def says(payload: dict[str, Any]) -> str:
        return str(payload)

    client.on("UPDATE_order", with_a_type)
    client.on("UPDATE_order", with_a_dict)
    client.on("UPDATE_order", slow)
    client.on("UPDATE_order", says)
    client.on("error", slow_error)
    client.on("connect", slow_connect)
    client.off("UPDATE_order", with_a_type)
    client.off("connect", slow_connect)
    client.off("UPDATE_order")
    for event in ("said", "unsaid"):
        client.on(event, with_a_dict)
        client.on(event, lambda payload: print(payload["text"]))
        client.on(event, print)
        client.on(event, lambda payload=None, event=event: print(event, payload))


def listeners_as_decorators(client: RealtimeClient) -> Callable[[Order], Awaitable[None]]:
    @client.on("connect")
    def connected() -> None:
        print("connected")

    @client.on("connect_error")
    def failed(error: ConnectError) -> None:
        print(error.code)

    @client.on("error")
    async def refused(error: ErrorInfo) -> None:
        print(error.code)

    @client.on("presence:join")
    def joined(event: PresenceEvent) -> None:
        member: Member = event["member"]
        print(member["presenceId"])

    @client.on("UPDATE_order")
    async def updated(order: Order) -> None:
        print(order["status"])

    @client.once("said")
    def said(payload: dict[str, Any]) -> None:
        print(payload["text"])

    connected()
    client.off("said", said)
    client.off("error", refused)
    client.off("connect_error", failed)
    client.off("presence:join", joined)
    return updated  # a decorator gives back the function itself


async def verbs(client: RealtimeClient) -> int:
    async with client:
        await client.connect()
        answer = await client.subscribe("orders", on_subscribed=lambda news: print(news.channel.upper()))
        if answer.error is not None:
            print(answer.error.code.lower())
        ids: list[str] = [member["presenceId"] for member in answer.members]
        ids += [member["presenceId"] for member in client.get_presence_state("orders")]
        await client.publish("orders", "said", {"text": "hello", "list": [1, None]})
        sent = await client.publish("orders", "said", {}, ack=True)
        ids.append(sent.message_id or "-")
        state: Literal["disconnected", "connecting", "connected"] = client.connection_state
        client.set_access_token(fresh_token, reconnect=False)
        try:
            async for message in client.stream("orders", events=["said"], buffer=10, on_subscribed=read_state):
                count = stream(message)
                if count:
                    break
        except ClientError as error:
            print(error.code.lower())
        await client.unsubscribe("orders")
    return len(ids) + len(state)


async def read_state(news: Subscribed) -> None:
    print(news.channel.upper())


def stream(message: Message) -> int:
    when = message.timestamp.isoformat()
    text: str = message["text"]
    sender = message.meta.get("senderId", message.meta["senderType"])
    return len(message.event) + len(message.channel) + len(message.id) + len(when + text + sender)


def without_asyncio() -> None:
    with sync.create_client("http://127.0.0.1", access_token=plain_token) as client:
        client.on("error", lambda error: print(error.code.lower()))
        client.on("connect", lambda: None)
        client.once("said", lambda payload: print(payload["text"]))

        @client.on("UPDATE_order")
        def updated(order: Order) -> None:
            print(order["status"])

        client.off("UPDATE_order", updated)
        if client.subscribe("orders", on_subscribed=lambda news: print(news.channel.upper())).ok:
            client.publish("orders", "said", {"text": "hello"})
            print(client.publish("orders", "said", {}, ack=True).message_id)
        for message in client.stream("orders"):
            print(stream(message))
