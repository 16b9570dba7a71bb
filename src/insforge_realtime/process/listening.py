"""The sockets that the server listens on: one for each address of the configured host.

Two families are two sockets, not one for both: so a client of IPv4 has an address of IPv4 in the log and to
REALTIME_TRUSTED_PROXIES, whatever the system's default is.
"""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack

from insforge_realtime.errors import ConfigError

BOTH = {"localhost": ("127.0.0.1", "::1"), "::": ("0.0.0.0", "::")}  # noqa: S104
"""Hosts that are one address in each family, whatever /etc/hosts says."""
ABSENT = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT)
"""The errors for a family, or an address, that a machine does not have."""
ATTEMPTS = 20
"""How often a free port is picked until it is free in both families."""
BACKLOG = 2048
TAKEN = "; choose another port with --port or REALTIME_PORT (make dev PORT=…), or stop what listens there"


def listen(host: str, port: int) -> list[socket.socket]:
    """Open sockets that listen, at least one, all on the same port.

    Args:
        host: an address, or a name; of its addresses those are left out that this machine does not have.
        port: 0 picks a free one.

    Raises:
        ConfigError: the address cannot be listened on.
    """
    for attempt in range(ATTEMPTS):
        try:
            return _listen(host.removeprefix("[").removesuffix("]"), port)
        except OSError as error:
            if port == 0 and error.errno == errno.EADDRINUSE and attempt < ATTEMPTS - 1:
                continue
            # Python appends what it attempted, which we say ourselves.
            reason = str(error.strerror or error).partition(" (while")[0]
            reason += TAKEN if error.errno == errno.EADDRINUSE else ""
            raise ConfigError(f"cannot listen on {_shown(host, port)}: {reason}") from error
        except UnicodeError as error:
            raise ConfigError(f"cannot listen on {_shown(host, port)}: not a valid host name") from error
    raise AssertionError("unreachable")


def _listen(host: str, port: int) -> list[socket.socket]:
    with ExitStack() as opened:
        sockets: list[socket.socket] = []
        absent: OSError | None = None
        for family, address in _addresses(host):
            bound = sockets[0].getsockname()[1] if sockets else port
            try:
                one = socket.create_server((address, bound), family=family, backlog=BACKLOG)
            except OSError as error:
                if error.errno not in ABSENT:
                    raise
                absent = error
                continue
            sockets.append(opened.enter_context(one))
        if absent is not None and not sockets:
            raise absent
        opened.pop_all()
        return sockets


def _addresses(host: str) -> list[tuple[socket.AddressFamily, str]]:
    """Return each address once, with its family."""
    found = [
        info
        for one in BOTH.get(host.lower(), (host,))
        for info in socket.getaddrinfo(one, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    ]
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))


def places(sockets: list[socket.socket]) -> list[str]:
    """Return where they listen: `127.0.0.1:7130`, `[::1]:7130`."""
    return [_shown(*one.getsockname()[:2]) for one in sockets]


def reachable(sockets: list[socket.socket]) -> str:
    """Return where a program on this machine finds them: host and port."""
    host, port = sockets[0].getsockname()[:2]
    return _shown({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port)  # noqa: S104


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"
