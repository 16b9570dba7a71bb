"""A real Chromium, and the pages in it; and a web server on loopback for what they show."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from support.node import Sdk, SdkClient

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = CHROMIUM is None and not os.environ.get("CI")
"""Whether tests that need Chromium are skipped: never in CI, where it is part of what is tested."""

ARTIFACTS = Path(__file__).parents[1] / "artifacts"
"""Where tests leave what a person may want to look at. Not in git."""


class Page:
    """One page in a browser of its own, as far as cookies and storage go."""

    def __init__(self, client: SdkClient) -> None:
        self._client = client

    @property
    def problems(self) -> list[Any]:
        """What the page threw, and the errors in its console."""
        return self._client.named("problem")

    async def goto(self, url: str) -> None:
        await self._client.call("goto", url)

    async def text(self, selector: str) -> list[str]:
        """Of each element that fits."""
        texts: list[str] = await self._client.call("text", selector)
        return texts

    async def see(self, selector: str, text: str) -> None:
        """Until an element that fits has this text in it."""
        await self._client.call("see", selector, text)

    async def click(self, selector: str) -> None:
        await self._client.call("click", selector)

    async def say(self, selector: str, text: str) -> None:
        """Write into a field, and press Enter."""
        await self._client.call("say", selector, text)

    async def screenshot(self, name: str) -> None:
        """Into `ARTIFACTS`."""
        ARTIFACTS.mkdir(exist_ok=True)
        await self._client.call("screenshot", str(ARTIFACTS / name))

    async def close(self) -> None:
        await self._client.call("close")


class Browser(Sdk):
    """One Chromium, for the length of a block."""

    def __init__(self) -> None:
        assert CHROMIUM is not None, "Chromium is not installed"
        super().__init__("browser.mjs", CHROMIUM)

    async def page(self, url: str) -> Page:
        """A new page, once `url` has loaded in it."""
        client = SdkClient(self)
        await client.call("create", url)
        return Page(client)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def static_files(folder: Path) -> Iterator[str]:
    """Serve a folder for the length of a block; the URL of its root."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
