"""A page whose bundler finds a second React in our linked folder says so, and how to mend it; an installed package has one.

A real Vite builds examples/react-orders without the `dedupe` of its configuration, and a real Chromium shows it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

import pytest

from insforge_realtime.pg.demo import ALICE, ALICES_ORDER
from support.browser import MISSING, Browser, Page, static_files
from support.node import CLIENT, Script, install_client
from support.servers import Server, token

Start = Callable[..., Server]

EXAMPLE = Path(__file__).parents[2] / "examples" / "react-orders"

pytestmark = pytest.mark.skipif(MISSING, reason="Chromium is not installed")


def link_client(folder: Path) -> None:
    """As `npm link` and `npm install ../clients/js` leave it; `install_client`: with `--install-links`, or a registry."""
    (folder / "node_modules" / "@insforge-realtime").mkdir()
    (folder / "node_modules" / "@insforge-realtime" / "client").symlink_to(CLIENT)


async def built(folder: Path, install: Callable[[Path], object], mode: str) -> Path:
    """The page of an application of its own, with React and, in some way, our client."""
    page, output = folder / "page", folder / "built"
    page.mkdir()
    shutil.copytree(EXAMPLE / "src", page / "src")
    shutil.copy(EXAMPLE / "index.html", page)
    (page / "node_modules").mkdir()
    for name in ("react", "react-dom", "scheduler"):
        (page / "node_modules" / name).symlink_to(EXAMPLE / "node_modules" / name)
    install(page)
    async with Script("react_page.mjs", str(page), str(output), mode) as script:
        said, _ = await script.process.communicate()
    assert script.process.returncode == 0, said.decode()
    return output


async def shown(browser: Browser, root: str, server: Server) -> Page:
    settings = urlencode({"url": server.url, "token": token(ALICE), "orders": ALICES_ORDER})
    return await browser.page(f"{root}/index.html#{settings}")


@pytest.mark.parametrize("mode", ["production", "development"])
async def test_a_linked_folder_brings_a_message_in_place_of_a_blank_page(
    demo: str, start: Start, tmp_path: Path, mode: str
) -> None:
    server = start(demo)
    with static_files(await built(tmp_path, link_client, mode)) as root:
        async with Browser() as browser:
            page = await shown(browser, root, server)
            await page.see("#root", "@insforge-realtime/client/react uses another copy of React than this page")
            await page.see("#root", "dedupe: ['react', 'react-dom']")
            assert any("another copy of React" in problem for problem in page.problems)


async def test_an_installed_package_has_the_react_of_the_page(demo: str, start: Start, tmp_path: Path) -> None:
    server = start(demo)
    with static_files(await built(tmp_path, install_client, "production")) as root:
        async with Browser() as browser:
            page = await shown(browser, root, server)
            await page.see(".connection", "subscribed · 1 watching")
            assert page.problems == []
