"""Debian's nginx in a process of its own, with the configuration that docs/deployment.md prints."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.databases import free_port
from support.tls import Certificate

PAGE = Path(__file__).parents[2] / "docs" / "deployment.md"
MAIN = """\
daemon off;
master_process off;
pid nginx.pid;
error_log stderr warn;
events {}
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include realtime.conf;
}
"""


def documented() -> list[str]:
    """The blocks of nginx configuration on the page, in order."""
    return re.findall(r"```nginx\n(.*?)```", PAGE.read_text(), re.DOTALL)


def replaced(text: str, **changes: str) -> str:
    """The text with other ports and files in it. Each must be there, once."""
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def adapted(configuration: str, port: int, certificate: Certificate) -> str:
    """The documented configuration for this machine."""
    return replaced(
        configuration,
        **{
            "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
            "/etc/ssl/certs/app.example.com.pem": str(certificate.certificate),
            "/etc/ssl/private/app.example.com.key": str(certificate.key),
        },
    )


def binary() -> str:
    """Where nginx is; without it the test is skipped, but never in continuous integration."""
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        assert not os.environ.get("CI"), "nginx is not installed"
        pytest.skip("nginx is not installed")
    return found


@dataclass(frozen=True)
class Nginx:
    """An nginx that runs."""

    url: str
    process: subprocess.Popen[str]

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """It does nothing for the length of a block: who connects waits in the kernel's queue."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def running(folder: Path, certificate: Certificate, *configurations: str) -> Iterator[Nginx]:
    """nginx for the length of a block.

    Args:
        folder: for its files.
        certificate: what it shows.
        configurations: what goes into `http`; the last one has the server.

    Yields:
        what runs.
    """
    port = free_port()
    (folder / "nginx.conf").write_text(MAIN)
    (folder / "realtime.conf").write_text(adapted("\n".join(configurations), port, certificate))
    process = subprocess.Popen([binary(), "-p", str(folder), "-c", "nginx.conf"], stderr=subprocess.PIPE, text=True)
    try:
        _wait_until_it_listens(process, port)
        yield Nginx(f"https://127.0.0.1:{port}", process)
    finally:
        process.terminate()
        print(process.communicate(timeout=10)[1])
    assert process.returncode == 0


def _wait_until_it_listens(process: subprocess.Popen[str], port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return
        time.sleep(0.02)
