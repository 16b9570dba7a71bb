"""Where the fuzzer begins: every text and every bytes that the tests have a literal of. What an engineer thought of is a
better beginning than nothing, and a new test is a new seed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent.parent
SOURCES = ("unit/test_[efhjps]*.py", "e2e/test_*protocol.py", "e2e/test_hostile*.py", "e2e/test_handshake.py")
"""The tests of what reads bytes or text off the wire."""
LONGEST = 4096
"""A longer seed only makes the fuzzer slow."""

_HANDSHAKE = (
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
_POST = b"POST /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\n"
REQUESTS = [
    _HANDSHAKE + b"\r\n",
    _HANDSHAKE + b"Sec-WebSocket-Protocol: a, b\r\nOrigin: http://x\r\n\r\n\x81\x80\0\0\0\0",
    b"GET / HTTP/1.1\r\n\r\n" * 3,
    b"GET /api/health HTTP/1.0\r\nConnection: keep-alive\r\n\r\nHEAD /api/health HTTP/1.1\r\nHost: x\r\n\r\n",
    _POST + b"Content-Length: 1\r\n\r\n2" + _POST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n40{",
    _POST + b"Transfer-Encoding: chunked\r\n\r\n3;a=b\r\n40{\r\n1\r\n}\r\n0\r\nTrailer: x\r\n\r\n",
    b"GET http://x/ HTTP/1.1\r\nHost: y\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
    b"CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
]
FRAMES = [
    b"\x81\x85\1\2\3\4\x69\x67\x6f\x68\x6e\x89\x82\0\0\0\0hi\x88\x82\0\0\0\0\x03\xe8",
    b"\x01\xfe\0\xc8\0\0\0\0" + b"a" * 200 + b"\x8a\x80\0\0\0\0\x80\xe4\0\0\0\0" + b"b" * 100,
    b"\x02\xff\0\0\0\0\0\0\0\x80\0\0\0\0" + b"c" * 128 + b"\x00\xfe\0\x80\0\0\0\0" + b"d" * 128,
]
"""Whole ones, which the tests put together when they run: here, and of requests."""


def seeds() -> list[bytes]:
    """Each once, in a fixed order. Whole ones also with a first byte that says how they are cut (targets.py)."""
    whole = REQUESTS + FRAMES
    literals = {seed for file in _files() for seed in _literals(file) if 0 < len(seed) <= LONGEST}
    return sorted(literals | set(whole) | {bytes([size]) + one for one in whole for size in (7, 255)})


def _files() -> Iterator[Path]:
    for pattern in SOURCES:
        yield from TESTS.glob(pattern)


def _literals(file: Path) -> Iterator[bytes]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, bytes):
            yield node.value
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value.encode(errors="surrogatepass")
