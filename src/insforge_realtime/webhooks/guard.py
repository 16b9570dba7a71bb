"""Which addresses a webhook may be sent to. URLs come from anybody who may write `realtime.channels`; they must not be able
to make this server talk to its own machine, its private network or a cloud's metadata service.

The address that is checked is the one that is connected to. Names are resolved here, once; the resolver hands on only
allowed addresses, and nothing is looked up again. Hosts that are addresses already never meet a resolver, so the last
checkpoint is where sockets are made (`Guard.socket`): no connection bypasses it.

A lookup cannot be interrupted, and a hanging resolver takes half a minute. So lookups have their own threads,
one per name however many wait for it, and no more than `LOOKUPS` at a time.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any
from zlib import crc32

from aiohttp import AddrInfoType
from aiohttp.abc import AbstractResolver, ResolveResult

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Lookup = Callable[[str, int, socket.AddressFamily], list[str]]
"""What names are resolved with: host, port and family in, addresses out; blocks, and raises OSError."""

LOOKUPS = 16

LOOPBACK = tuple(map(ip_network, ("127.0.0.0/8", "::1/128")))

_REFUSED_V4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this machine, on Linux
            "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16",  # private
            "100.64.0.0/10",  # carriers' NAT, and some clouds' inner services
            "127.0.0.0/8",  # loopback
            "169.254.0.0/16",  # link-local: the clouds' metadata services
            "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
            "224.0.0.0/4", "240.0.0.0/4",  # multicast; reserved, and broadcast
        ),
    )
)  # fmt: skip
_PUBLIC_V6 = IPv6Network("2000::/3")
"""Everything that is assigned. Loopback, unique local, link-local, multicast and everything unassigned are outside."""
_REFUSED_V6 = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "3fff::/20")))
_NAT64 = tuple(map(IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48")))


class Refused(Exception):
    """The address may not be connected to; the message says which, for the record."""


def embedded(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for, by way of a gateway; else the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if any(address in network for network in _NAT64):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


class Guard:
    """Decides about addresses.

    Args:
        allowed: networks that may be reached although they are not public.
    """

    def __init__(self, allowed: Iterable[Network] = ()) -> None:
        self._allowed = tuple(allowed)

    @property
    def fingerprint(self) -> int:
        """A number that identifies the networks that may be reached: equal on servers with equal ones."""
        return crc32(",".join(sorted(map(str, self._allowed))).encode()) >> 1

    def allows(self, text: str) -> bool:
        """Return whether an address, as a resolver returns it, may be connected to."""
        try:
            address = embedded(ip_address(text.partition("%")[0]))
        except ValueError:
            return False  # a notation that only the operating system understands
        return any(address in network for network in self._allowed) or _is_public(address)

    def check(self, host: str, addresses: Sequence[str]) -> list[str]:
        """Return those of a host's addresses that may be connected to.

        Raises:
            Refused: none may be.
        """
        good = [address for address in addresses if self.allows(address)]
        if not good:
            shown = ", ".join(addresses[:3])
            raise Refused(
                f"refused: {host} is not a public address{f' ({shown})' if shown != host else ''}, "
                "nor in REALTIME_WEBHOOK_ALLOW_NETWORKS"
            )
        return good

    def socket(self, info: AddrInfoType) -> socket.socket:
        """Make a socket for a connection to this address. For aiohttp's `socket_factory`.

        Raises:
            Refused: it may not be connected to.
        """
        family, kind, protocol, _, sockaddr = info
        host = str(sockaddr[0])
        self.check(host, [host])
        return socket.socket(family, kind, protocol)


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _REFUSED_V4)
    return address in _PUBLIC_V6 and not any(address in network for network in _REFUSED_V6)


def system_lookup(host: str, port: int, family: socket.AddressFamily) -> list[str]:
    """Resolve a name with the operating system's resolver. Without descriptors for its files and sockets it claims that
    there is no such name: that is told apart."""
    _check_descriptors()
    try:
        found = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
    except socket.gaierror:
        _check_descriptors()
        raise
    return [str(sockaddr[0]) for _, _, _, _, sockaddr in found]


def _check_descriptors() -> None:
    """Raise OSError if there are not even two left."""
    for descriptor in os.pipe():
        os.close(descriptor)


class GuardedResolver(AbstractResolver):
    """For aiohttp: resolves names, and hands on only addresses that may be connected to.

    Args:
        guard: decides which.
        lookup: resolves them.
    """

    def __init__(self, guard: Guard, lookup: Lookup = system_lookup) -> None:
        self._guard = guard
        self._lookup = lookup
        self._under_way: dict[tuple[str, int, int], asyncio.Future[list[str]]] = {}
        self._room = asyncio.Semaphore(LOOKUPS)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a name.

        Raises:
            Refused: none of them may be connected to.
            OSError: it cannot be resolved.
        """
        addresses = self._guard.check(host, await self._look_up(host, port, family))
        return [_result(host, address, port) for address in addresses]

    async def close(self) -> None:
        """Do nothing: the threads are daemons."""

    async def _look_up(self, host: str, port: int, family: socket.AddressFamily) -> list[str]:
        """Join the lookup of this name in progress, or start one. A caller that gives up takes nobody else with it."""
        key = (host, port, int(family))
        if key not in self._under_way:
            task = asyncio.ensure_future(self._begin(host, port, family))
            self._under_way[key] = task
            task.add_done_callback(lambda done: (self._under_way.pop(key), done.cancelled() or done.exception()))
        return await asyncio.shield(self._under_way[key])

    async def _begin(self, host: str, port: int, family: socket.AddressFamily) -> list[str]:
        async with self._room:
            return await _in_a_thread(lambda: self._lookup(host, port, family))


async def _in_a_thread(work: Callable[[], list[str]]) -> list[str]:
    """Do as `asyncio.to_thread` does, but in a daemon: a hanging lookup keeps no process alive."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[str]] = loop.create_future()

    def settle(set_it: Callable[[Any], None], value: object) -> None:
        if not answer.done():
            set_it(value)

    def run() -> None:
        try:
            found = work()
        except Exception as error:
            outcome: tuple[Callable[[Any], None], object] = (answer.set_exception, error)
        else:
            outcome = (answer.set_result, found)
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, *outcome)

    try:
        threading.Thread(target=run, name="webhook-lookup", daemon=True).start()
    except RuntimeError as error:
        raise OSError(errno.ENOMEM, "no thread can be started for a lookup") from error
    return await answer


def _result(host: str, address: str, port: int) -> ResolveResult:
    return ResolveResult(
        hostname=host,
        host=address,
        port=port,
        family=socket.AF_INET6 if ":" in address else socket.AF_INET,
        proto=0,
        flags=socket.AI_NUMERICHOST,
    )
