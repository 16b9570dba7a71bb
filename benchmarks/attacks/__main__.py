"""`python -m benchmarks.attacks [NAME …] [--seconds 8]`: one attack after the other, each on a server of its own.

The settings are the defaults. On stdout is a line of JSON for each attack; `BENCHMARK_SERVER="command …"` in the environment
attacks another server.

    receipt_max_ms   the longest time from a commit to its receipt by a subscriber of another room
    connect_max_ms   the longest time that somebody needed to connect, prove who they are, and subscribe
    connects_failed  how many could not, of `connects`, or waited longer than 20 s
    grown_mb         by how much the server's memory grew at most
    sockets_held     how many more sockets the server holds at the end
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.attacks.witness import witness
from benchmarks.database import Database, database
from benchmarks.load.launch import greeted
from benchmarks.machine import many_files
from benchmarks.processes import Child, temporary_folder
from benchmarks.server import Server, server, server_with_unread_log

POLICIES = Path(__file__).with_name("policies.sql")


@dataclass(frozen=True)
class Attack:
    """How an attack is prepared.

    Args:
        settings: of the server.
        log_is_read: or its stderr is a pipe that nobody reads.
        webhook: the attacker is the receiver of a channel's webhook.
    """

    settings: dict[str, object] = field(default_factory=dict)
    log_is_read: bool = True
    webhook: bool = False


ATTACKS = {
    "endless_head": Attack(),
    "pipelined": Attack(),
    "dribbled": Attack(),
    "silent": Attack(),
    "silent_websockets": Attack(),
    "wrong_tokens": Attack(),
    "handshakes": Attack(),
    "large_before_connect": Attack(),
    "unread_log": Attack({"log_level": "debug"}, log_is_read=False),
    "slow_policy": Attack(),
    "fifty_sockets": Attack(),
    "restless": Attack(),
    "endless_103": Attack({"webhook_allow_networks": "127.0.0.0/8"}, webhook=True),
}


async def attack(name: str, there: Database, folder: Path, seconds: float) -> dict[str, Any]:
    """Attack for so many seconds, and return what came of it."""
    how = ATTACKS[name]
    serving = server if how.log_is_read else server_with_unread_log
    async with (
        serving(folder, there.url, defaults=True, **how.settings) as ours,
        witness(there, ours) as honest,
        attacker(name, there, ours, folder, how) as attacking,
    ):
        await asyncio.sleep(seconds)
        return {"attack": name, **honest.report(), **await attacking.do("stop")}


@contextlib.asynccontextmanager
async def attacker(name: str, there: Database, ours: Server, folder: Path, how: Attack) -> AsyncIterator[Child]:
    """Run the attacking process for the length of a block."""
    port = ours.port
    if how.webhook:
        with socket.create_server(("127.0.0.1", 0)) as found:
            port = found.getsockname()[1]
    kind = name if how.log_is_read else "wrong_tokens"
    async with greeted("attacks.attacker", folder, kind, str(port)) as attacking:
        if how.webhook:
            await there.execute(
                f"INSERT INTO realtime.channels (pattern, webhook_urls) VALUES ('hook', ARRAY['http://127.0.0.1:{port}/']);"
                "SELECT realtime.publish('hook', 'tick', '{}'::jsonb)"
            )
        yield attacking


async def run(names: list[str], seconds: float) -> None:
    """Attack in each of these ways, and print what came of it."""
    with temporary_folder() as folder:
        async with database(folder, 18) as there:
            await there.execute(POLICIES.read_text())
            for name in names:
                print(f"{name} …", file=sys.stderr, flush=True)
                print(json.dumps(await attack(name, there, folder, seconds)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attacks", description="Attack a server, and measure.")
    parser.add_argument("name", nargs="*", metavar="NAME", help=f"{', '.join(ATTACKS)}; all of them by default")
    parser.add_argument("--seconds", type=float, default=8.0, help="how long each attack lasts")
    arguments = parser.parse_args()
    if unknown := set(arguments.name) - set(ATTACKS):
        parser.error(f"no such attack: {', '.join(sorted(unknown))}")
    many_files()
    asyncio.run(run(arguments.name or list(ATTACKS), arguments.seconds))


if __name__ == "__main__":
    main()
