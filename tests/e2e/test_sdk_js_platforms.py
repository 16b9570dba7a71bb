"""Our TypeScript SDK where it is not at home: React Native's globals, and TypeScript's ways of finding a package's types."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from insforge_realtime.pg.demo import BOB, ROOM
from support.node import CLIENT, Script, install_client
from support.servers import Server, token

Start = Callable[..., Server]

CHAT = f"chat:{ROOM}"


@pytest.mark.parametrize("kind", ["before 0.80", "from 0.80", "no URL", "no navigator", "half a document"])
async def test_the_sdk_connects_in_react_native(demo: str, start: Start, kind: str) -> None:
    server = start(demo)
    async with Script("react_native.mjs", kind, server.url, token(BOB), CHAT) as script:
        assert await script.lines() == [
            {"connected": True},
            {"subscribed": True},
            {"published": True},
            {"heard": "hello"},
            {"disconnect": "io client disconnect"},
            {"state": "disconnected"},
        ]


PROGRAM = """
import { createClient, type Realtime } from '@insforge-realtime/client'
import { RealtimeProvider, useRealtime, usePresence } from '@insforge-realtime/client/react'

const client = createClient<{ UPDATE_order: { status: string } }>({ baseUrl: 'http://127.0.0.1' })
const realtime: Realtime<{ UPDATE_order: { status: string } }> = client.realtime
realtime.on('UPDATE_order', (order) => order.status.toUpperCase() + order.meta.messageId)

export const provider = RealtimeProvider({ client })
export function Order() {
  const { status } = useRealtime<{ UPDATE_order: { status: string } }>('order:1', {
    UPDATE_order: (order) => console.log(order.status.toUpperCase())
  })
  return status + usePresence('order:1').length
}
// @ts-expect-error it is no number: so the types have been found
export const wrong: number = useRealtime('order:1').status
"""

WAYS = {
    "node10": {"module": "CommonJS", "moduleResolution": "node10"},
    "node10 of modules": {"module": "ES2022", "moduleResolution": "node10"},
    "node16": {"module": "Node16", "moduleResolution": "Node16"},
    "nodenext": {"module": "NodeNext", "moduleResolution": "NodeNext"},
    "bundler": {"module": "ES2022", "moduleResolution": "Bundler"},
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose node_modules has what `npm publish` would publish, and React."""
    folder = tmp_path_factory.mktemp("application")
    install_client(folder)
    for name in ("@types", "csstype", "react"):
        (folder / "node_modules" / name).symlink_to(CLIENT / "node_modules" / name)
    (folder / "program.ts").write_text(PROGRAM)
    (folder / "package.json").write_text("{}")
    return folder


@pytest.mark.parametrize("way", WAYS)
def test_typescript_finds_the_types_of_both_entries(installed: Path, way: str) -> None:
    options = {"strict": True, "noEmit": True, "target": "ES2022", "lib": ["ES2022", "DOM"], "types": []}
    config = installed / f"tsconfig.{way.replace(' ', '-')}.json"
    config.write_text(json.dumps({"compilerOptions": {**options, **WAYS[way]}, "files": ["program.ts"]}))
    done = subprocess.run(
        [str(CLIENT / "node_modules/.bin/tsc"), "-p", str(config)],
        capture_output=True,
        text=True,
        cwd=installed,
        timeout=110,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("entry", ["@insforge-realtime/client", "@insforge-realtime/client/react"])
def test_who_does_not_know_exports_finds_the_code_of_both_entries(installed: Path, entry: str) -> None:
    """Metro before React Native 0.79 reads `main` in the folder's package.json, and nothing else."""
    folder = installed / "node_modules" / entry
    manifest = json.loads((folder / "package.json").read_text())
    for field in ("main", "module", "types"):
        assert (folder / manifest[field]).is_file(), field
