"""The commands `tail` and `publish`, on the Python client. What lives here: their arguments, and what they print.

Messages go to standard output, everything else to standard error, so that a pipe gets messages only.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from insforge_realtime.cli.terminal import ascii_json, harmless, say
from insforge_realtime.errors import ConfigError, RealtimeError

if TYPE_CHECKING:
    from insforge_realtime.client import ErrorInfo, Message, RealtimeClient

_err = Console(stderr=True, highlight=False, soft_wrap=True)

Url = Annotated[str, typer.Option(envvar="REALTIME_URL", help="The server.", metavar="URL")]
Token = Annotated[
    str | None, typer.Option(envvar="REALTIME_TOKEN", help="The user's token, or the anonymous key.", metavar="JWT")
]
ApiKey = Annotated[str | None, typer.Option(help="The project admin's key, instead of a token.", metavar="KEY")]


def tail(
    channels: Annotated[list[str], typer.Argument(help="The channels to follow.", metavar="CHANNEL")],
    event: Annotated[list[str] | None, typer.Option("--event", help="Only this event. Can be repeated.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object per line: event, channel, payload, meta.")
    ] = False,
    url: Url = "http://127.0.0.1:7130",
    token: Token = None,
    api_key: ApiKey = None,
) -> None:
    """Follow channels: print their messages as they come, until Ctrl-C.

    Reconnects by itself; messages published meanwhile are not repeated. Exit status 1 when a channel is refused, at the
    start or after a reconnect; 130 after Ctrl-C; 0 when the reader of the output has had enough.
    """
    client = _client(url, token, api_key)
    show = _show_json if as_json else _Pretty().show
    try:
        asyncio.run(_tail(client, channels, event, show))
    except BrokenPipeError:
        # So that Python does not stumble over the same pipe once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def publish(
    channel: Annotated[str, typer.Argument(help="The channel.", metavar="CHANNEL")],
    event: Annotated[str, typer.Argument(help="The event's name.", metavar="EVENT")],
    payload: Annotated[
        str, typer.Argument(help="The payload, a JSON object; - reads it from standard input.", metavar="JSON")
    ],
    url: Url = "http://127.0.0.1:7130",
    token: Token = None,
    api_key: ApiKey = None,
) -> None:
    """Publish one message, and print its id once it is committed.

    Subscribes first, as every publisher must, so both policies are asked.
    """
    body = _payload(sys.stdin.read() if payload == "-" else payload)
    say(asyncio.run(_publish(_client(url, token, api_key), channel, event, body)))


async def _tail(
    client: RealtimeClient, channels: list[str], events: list[str] | None, show: Callable[[Message], None]
) -> None:
    async with client:
        client.on("disconnect", lambda reason: _note_loss(client, reason))
        client.on("error", _report)
        for channel in dict.fromkeys(channels):
            await _subscribed(client, channel)
            _note(f"following {channel}")
        client.on("connect", lambda: _note("connected again"))
        await _first_to_end([_follow(client, channel, events, show) for channel in dict.fromkeys(channels)])


async def _follow(
    client: RealtimeClient, channel: str, events: list[str] | None, show: Callable[[Message], None]
) -> None:
    from insforge_realtime.client import ClientError

    try:
        async for message in client.stream(channel, events=events or None, buffer=100_000):
            show(message)
    except ClientError as error:
        raise RealtimeError(str(error)) from error


async def _first_to_end(followers: list[Coroutine[Any, Any, None]]) -> None:
    """Run until one of them ends, which only an error makes it do, and raise that error."""
    tasks = [asyncio.ensure_future(follower) for follower in followers]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        done.pop().result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _publish(client: RealtimeClient, channel: str, event: str, payload: dict[str, Any]) -> str:
    from insforge_realtime.client import ClientError, InvalidRequest

    async with client:
        await _subscribed(client, channel)
        try:
            answer = await client.publish(channel, event, payload, ack=True)
        except InvalidRequest as error:
            raise ConfigError(str(error)) from error
        except ClientError as error:
            raise RealtimeError(str(error)) from error
    if answer.error is not None:
        raise RealtimeError(f"{channel}: {answer.error.message} ({answer.error.code})")
    return str(answer.message_id)


async def _subscribed(client: RealtimeClient, channel: str) -> None:
    answer = await client.subscribe(channel)
    if answer.error is not None:
        raise RealtimeError(f"{channel}: {answer.error.message} ({answer.error.code})")


def _client(url: str, token: str | None, api_key: str | None) -> RealtimeClient:
    """Make a client; a key that is given wins over a token, which may be in the environment for other reasons."""
    from insforge_realtime.client import create_client

    try:
        return create_client(url, api_key=api_key) if api_key else create_client(url, access_token=token or None)
    except ValueError as error:
        raise ConfigError(f"--url: {error}") from None


def _payload(text: str) -> dict[str, Any]:
    from insforge_realtime.client.codec import integer

    try:
        payload = json.loads(text, parse_int=integer)
    except ValueError as error:
        raise ConfigError(f"JSON: {error}") from None
    except RecursionError:
        raise ConfigError("JSON: the payload is nested too deeply") from None
    if not isinstance(payload, dict):
        raise ConfigError("JSON: the payload must be an object, {…}")
    return payload


def _note_loss(client: RealtimeClient, reason: str) -> None:
    if client.connection_state == "connecting":  # else it is we who leave
        _note(f"connection lost ({reason}); reconnecting")


def _note(text: str) -> None:
    _err.print(Text(harmless(text), style="dim"))


def _report(error: ErrorInfo) -> None:
    _err.print(Text(harmless(f"{error.message} ({error.code})"), style="yellow"))


def _show_json(message: Message) -> None:
    from insforge_realtime.client.codec import encoded

    payload = {key: value for key, value in message.payload.items() if key != "meta"}
    line = {"event": message.event, "channel": message.channel, "payload": payload, "meta": message.meta}
    say(ascii_json(encoded(line)))


def _readable(payload: dict[str, Any]) -> str:
    """Write JSON with spaces; without them where Python's own writer gives up: long integers, deep nests."""
    from insforge_realtime.client.codec import encoded

    try:
        return json.dumps(payload, ensure_ascii=False)
    except (ValueError, RecursionError):
        return encoded(payload)


class _Pretty(Console):
    """Messages for people."""

    def __init__(self) -> None:
        super().__init__(highlight=False, soft_wrap=True)

    def show(self, message: Message) -> None:
        """Print one message, on one line."""
        payload = {key: value for key, value in message.payload.items() if key != "meta"}
        self.print(
            Text.assemble(
                (f"{message.timestamp.astimezone():%H:%M:%S.%f}"[:-3], "dim"),
                " ",
                (harmless(message.channel), "cyan"),
                " ",
                (harmless(message.event), "bold green"),
                f" {harmless(_readable(payload))}",
                (harmless(f" {message.meta.get('senderId', message.meta['senderType'])}"), "dim"),
            )
        )

    def on_broken_pipe(self) -> None:
        """Raise, instead of ending the process."""
        raise BrokenPipeError
