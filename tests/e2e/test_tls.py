"""TLS in our own server: every transport over it, and what wrong files get."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from websockets.asyncio.client import connect

from support.scenario import ALL, Scenario, check, clients
from support.servers import SECRET, Server
from support.tls import Certificate, certificate

Start = Callable[..., Server]


async def test_every_client_passes_the_common_scenario_over_tls(demo: str, start: Start, tmp_path: Path) -> None:
    tls = certificate(tmp_path)
    server = start(demo, ssl_certfile=tls.certificate, ssl_keyfile=tls.key)
    url = server.url.replace("http", "https")

    async def restart() -> None:
        assert await asyncio.to_thread(server.stop) == 0
        await asyncio.to_thread(server.start)

    async with clients(url, *ALL, trusted=tls.authority) as made:
        check(await Scenario(demo, made).play(restart))
    assert server.errors() == []
    assert server.wait_for_log("serving")["tls"] is True


async def test_the_key_may_be_in_the_file_of_the_certificate(demo: str, start: Start, tmp_path: Path) -> None:
    tls = certificate(tmp_path)
    tls.certificate.write_bytes(tls.key.read_bytes() + tls.certificate.read_bytes())
    server = start(demo, ssl_certfile=tls.certificate)
    context = ssl.create_default_context(cafile=tls.authority)
    async with connect(server.ws_url.replace("ws:", "wss:"), ssl=context, proxy=None) as websocket:
        assert str(await websocket.recv()).startswith('0{"sid"')


async def test_whoever_does_not_speak_tls_disturbs_nobody(demo: str, start: Start, tmp_path: Path) -> None:
    tls = certificate(tmp_path)
    server = start(demo, ssl_certfile=tls.certificate, ssl_keyfile=tls.key)
    for nonsense in (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\x16\x03\x01\xff\xff" + bytes(100), b""):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(nonsense)
        writer.write_eof()
        await reader.read()
        writer.close()
    context = ssl.create_default_context(cafile=tls.authority)
    async with connect(server.ws_url.replace("ws:", "wss:"), ssl=context, proxy=None) as websocket:
        assert str(await websocket.recv()).startswith('0{"sid"')
    assert server.errors() == []


def no_certificate(tls: Certificate) -> str:
    tls.certificate.unlink()
    return f"REALTIME_SSL_CERTFILE: {tls.certificate}: No such file or directory"


def no_key(tls: Certificate) -> str:
    tls.key.unlink()
    return f"REALTIME_SSL_KEYFILE: {tls.key}: No such file or directory"


def no_pem(tls: Certificate) -> str:
    tls.certificate.write_text("hello")
    return f"REALTIME_SSL_CERTFILE: {tls.certificate}: has no CERTIFICATE in it (PEM)"


def half_a_pem(tls: Certificate) -> str:
    tls.certificate.write_text(tls.certificate.read_text()[:300] + "\n-----END CERTIFICATE-----\n")
    return f"REALTIME_SSL_CERTFILE: {tls.certificate}: cannot be used: "


def an_empty_key(tls: Certificate) -> str:
    tls.key.write_text("")
    return f"REALTIME_SSL_KEYFILE: {tls.key}: has no PRIVATE KEY in it (PEM)"


def a_folder(tls: Certificate) -> str:
    tls.certificate.unlink()
    tls.certificate.mkdir()
    return f"REALTIME_SSL_CERTFILE: {tls.certificate}: Is a directory"


def the_key_of_another(tls: Certificate) -> str:
    tls.key.write_bytes(certificate(tls.key.parent / "another").key.read_bytes())
    return f"REALTIME_SSL_CERTFILE: {tls.certificate}: the key does not belong to the certificate"


def an_encrypted_key(tls: Certificate) -> str:
    key = load_pem_private_key(tls.key.read_bytes(), None)
    encrypted = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"a password"))
    tls.key.write_bytes(encrypted)
    return f"REALTIME_SSL_KEYFILE: {tls.key}: the key is encrypted, and nobody is there to type its password"


@pytest.mark.parametrize(
    "spoil",
    [no_certificate, no_key, no_pem, half_a_pem, an_empty_key, a_folder, the_key_of_another, an_encrypted_key],
)
def test_files_that_cannot_be_used_end_the_command_with_one_line(
    spoil: Callable[[Certificate], str], tmp_path: Path
) -> None:
    tls = certificate(tmp_path / "tls")
    said = spoil(tls)
    ended = serve("--ssl-certfile", str(tls.certificate), "--ssl-keyfile", str(tls.key))
    assert ended.returncode == 2, ended.stderr
    [line] = ended.stderr.splitlines()
    assert line.startswith(f"error: {said}"), line


def test_a_key_without_a_certificate_is_refused(tmp_path: Path) -> None:
    ended = serve("--ssl-keyfile", str(certificate(tmp_path).key))
    assert ended.returncode == 2
    assert "REALTIME_SSL_CERTFILE" in ended.stderr


def serve(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`serve`, which must end by itself, and must not ask the terminal for anything."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("REALTIME_")}
    environment |= {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nowhere", "REALTIME_JWT_SECRET": SECRET}
    command = [sys.executable, "-m", "insforge_realtime", "serve", "--port", "0", *arguments]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, cwd="/", stdin=subprocess.DEVNULL
    )


async def test_a_head_that_has_no_end_is_answered_and_the_connection_ends(
    demo: str, start: Start, tmp_path: Path
) -> None:
    """TLS cannot be closed by half: the server does not wait for what is still on its way."""
    tls = certificate(tmp_path)
    server = start(demo, ssl_certfile=tls.certificate, ssl_keyfile=tls.key, request_timeout=1)
    context = ssl.create_default_context(cafile=tls.authority)
    for said, status in ((b"X-A: 1\r\n" * 5_000, b"431"), (b"X-A: ", b"408")):
        async with asyncio.timeout(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
            writer.write(b"GET /api/health HTTP/1.1\r\nHost: x\r\n" + said)
            assert (await reader.readline()).split()[1] == status
            await reader.read()
            writer.close()
    assert server.errors() == []
