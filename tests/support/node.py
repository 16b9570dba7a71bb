"""Node processes that run the scripts in `tests/e2e/js`, and the official SDK as something that Python can hold."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tarfile
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

FOLDER = Path(__file__).parents[1] / "e2e" / "js"
"""Where the scripts are, and the packages that they import."""


CLIENT = Path(__file__).parents[2] / "clients" / "js"
"""Our TypeScript SDK."""


def install_client(folder: Path) -> Path:
    """Into the node_modules of a folder: what `npm publish` would publish, and what that depends on. Where it is then."""
    modules = folder / "node_modules"
    ours = modules / "@insforge-realtime"
    ours.mkdir(parents=True, exist_ok=True)
    pack = ["npm", "pack", "--silent", "--pack-destination", str(ours)]
    subprocess.run(pack, cwd=CLIENT, check=True, capture_output=True, timeout=100)
    [archive] = ours.glob("*.tgz")
    with tarfile.open(archive) as package:
        package.extractall(ours, filter="data")
    archive.unlink()
    for dependency in ("socket.io-client", "engine.io-client", "@socket.io"):
        (modules / dependency).symlink_to(CLIENT / "node_modules" / dependency)
    return Path(shutil.move(ours / "package", ours / "client"))


class Failed(Exception):
    """A method of the SDK threw; `error` is what it threw."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error.get("message"))
        self.error = error


class Script:
    """One script, for the length of a block. It reads commands, or nothing; each line it prints is JSON.

    Args:
        name: of the file: one of Node's in `js`, or one of Python's beside it.
        arguments: for the script.
        trusted: a file with the certificates of authorities that it believes.
        environment: further variables.
    """

    def __init__(self, name: str, *arguments: str, trusted: Path | None = None, **environment: str) -> None:
        program = ("node", str(FOLDER / name)) if name.endswith(".mjs") else (sys.executable, str(FOLDER.parent / name))
        self._command = (*program, *arguments)
        self._environment = os.environ | environment
        if trusted is not None:
            self._environment["NODE_EXTRA_CA_CERTS"] = str(trusted)
        self.process: Process = None  # type: ignore[assignment]

    async def __aenter__(self) -> Self:
        self.process = await asyncio.create_subprocess_exec(
            *self._command, stdin=PIPE, stdout=PIPE, cwd=FOLDER, limit=2**24, env=self._environment
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    async def line(self, seconds: float = 30.0) -> Any:
        """What it prints next.

        Raises:
            EOFError: it has ended.
        """
        assert self.process.stdout is not None
        async with asyncio.timeout(seconds):
            text = await self.process.stdout.readline()
        if not text:
            raise EOFError(f"{self._command[1]} has ended")
        return json.loads(text)

    async def lines(self, seconds: float = 30.0) -> list[Any]:
        """Everything it prints until it ends, which must be a good end."""
        lines = []
        try:
            while True:
                lines.append(await self.line(seconds))
        except EOFError:
            assert await self.process.wait() == 0, lines
        return lines


class Puppet(Script):
    """A script that does what it is told, line by line, for several clients. Arguments: as `Script`."""

    def __init__(self, name: str, *arguments: str, trusted: Path | None = None) -> None:
        super().__init__(name, *arguments, trusted=trusted)
        self._ids = count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._hears: dict[str, Callable[[dict[str, Any]], None]] = {}

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await super().__aexit__(kind, error, trace)
        await self._reader

    def name(self, hear: Callable[[dict[str, Any]], None]) -> str:
        """The name of a new client, whose events go to `hear`."""
        name = f"client {len(self._hears) + 1}"
        self._hears[name] = hear
        return name

    async def ask(self, client: str, call: str, args: tuple[Any, ...], seconds: float = 30.0) -> Any:
        """Send one command, and return its answer.

        Raises:
            Failed: it threw.
        """
        number = next(self._ids)
        future = self._answers[number] = asyncio.get_running_loop().create_future()
        assert self.process.stdin is not None
        command = {"id": number, "client": client, "call": call, "args": args}
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        async with asyncio.timeout(seconds):
            return await future

    async def _read(self) -> None:
        try:
            while True:
                self._take(await self.line(seconds=600))
        except EOFError:
            for future in self._answers.values():
                future.cancel()

    def _take(self, said: dict[str, Any]) -> None:
        if "event" in said:
            self._hears[said["client"]](said)
        elif "error" in said:
            self._answers.pop(said["id"]).set_exception(Failed(said["error"]))
        else:
            self._answers.pop(said["id"]).set_result(said["result"])


class Sdk(Puppet):
    """A process in which clients live: of the official SDK, or, with another script that obeys the same commands, of ours.

    Args:
        script: `sdk.mjs`, `ours.mjs` or `python_puppet.py`.
        arguments, trusted: as for `Script`.
    """

    def __init__(self, script: str = "sdk.mjs", *arguments: str, trusted: Path | None = None) -> None:
        super().__init__(script, *arguments, trusted=trusted)

    async def client(
        self, url: str, token: str | None = None, *events: str, anon_key: str | None = None, **options: Any
    ) -> SdkClient:
        """A new client, not connected yet, that listens to `events`. `options` are further ones of `createClient`."""
        client = SdkClient(self)
        config = {"baseUrl": url, "accessToken": token, "anonKey": anon_key, **options}
        await client.call("create", {key: value for key, value in config.items() if value is not None})
        for event in events:
            await client.call("on", event)
        return client


class SdkClient:
    """One `createClient(…).realtime`."""

    def __init__(self, sdk: Sdk) -> None:
        self._sdk = sdk
        self.name = sdk.name(lambda said: self.events.append((said["event"], said.get("data"))))
        self.events: list[tuple[str, Any]] = []
        """The events that arrived, of those that it listens to, in order."""

    async def call(self, method: str, *args: Any, seconds: float = 30.0) -> Any:
        """Call a method, and return what it returns, or what its promise resolves to.

        Raises:
            Failed: it threw.
        """
        return await self._sdk.ask(self.name, method, args, seconds)

    async def subscribe(self, channel: str) -> Any:
        return await self.call("subscribe", channel)

    async def state(self) -> Any:
        """isConnected, connectionState, socketId and the subscribed channels."""
        return await self.call("state")

    def named(self, event: str) -> list[Any]:
        """The data of every event of this name so far."""
        return [data for name, data in self.events if name == event]

    async def wait_for(self, event: str, number: int = 1, seconds: float = 30.0) -> list[Any]:
        """Until so many events of this name have come."""
        async with asyncio.timeout(seconds):
            while len(self.named(event)) < number:
                await asyncio.sleep(0.003)
        return self.named(event)
