"""The guard: which addresses webhooks may reach, and that what was checked is what is connected to."""

from __future__ import annotations

import asyncio
import socket
import threading
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insforge_realtime.webhooks.guard import LOOKUPS, Guard, GuardedResolver, Refused
from support.databases import wait_until

REFUSED = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.254", "169.254.169.254",
    "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.51.100.1",
    "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::127.0.0.1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "100::1",
    "2001::1", "2001:db8::1", "3fff::1", "4000::1", "5f00::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b::10.0.0.1", "64:ff9b:1::a9fe:a9fe", "2002:7f00:1::1", "2002:a00:1::", "2002:c0a8:101::1",
]  # fmt: skip
PUBLIC = [
    "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "172.15.255.255", "172.32.0.0",
    "192.167.255.255", "223.255.255.255", "2606:4700::1111", "2a00:1450::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8",
    "2002:808:808::1",
]  # fmt: skip
NOT_CANONICAL = [
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0177.0.0.1",
    "127.1",
    "127.0.0.01",
    "localhost",
    "",
    "1.2.3.4.5",
]


@pytest.mark.parametrize("address", REFUSED)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    assert not Guard().allows(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_allowed(address: str) -> None:
    assert Guard().allows(address)


@pytest.mark.parametrize("text", NOT_CANONICAL)
def test_what_is_not_a_canonical_address_is_refused_even_where_everything_is_allowed(text: str) -> None:
    assert not Guard([ip_network("0.0.0.0/0"), ip_network("::/0")]).allows(text)


@given(st.ip_addresses())
def test_nothing_that_python_calls_private_is_allowed(address: object) -> None:
    text = str(address)
    if Guard().allows(text):
        parsed = ip_address(text)
        assert not parsed.is_private
        assert not parsed.is_multicast


def test_an_allowed_network_may_be_reached_by_every_notation_and_no_other() -> None:
    guard = Guard([ip_network("10.0.0.0/8"), ip_network("::1/128")])
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3", "::1", "8.8.8.8"):
        assert guard.allows(address)
    for address in ("127.0.0.1", "192.168.1.1", "::ffff:127.0.0.1", "fe80::1"):
        assert not guard.allows(address)


def test_the_record_tells_which_host_is_what() -> None:
    with pytest.raises(
        Refused, match=r"^refused: inner\.example is not a public address \(10\.0\.0\.1, ::1\), nor in REALTIME_"
    ):
        Guard().check("inner.example", ["10.0.0.1", "::1"])
    with pytest.raises(
        Refused, match=r"^refused: 10\.0\.0\.1 is not a public address, nor in REALTIME_WEBHOOK_ALLOW_NETWORKS$"
    ):
        Guard().check("10.0.0.1", ["10.0.0.1"])


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "2130706433", "::ffff:127.0.0.1"])
def test_no_socket_is_made_for_an_address_that_is_refused(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with pytest.raises(Refused):
        Guard().socket((family, socket.SOCK_STREAM, 6, "", (host, 80)))
    if host == "127.0.0.1":
        Guard([ip_network("127.0.0.0/8")]).socket((family, socket.SOCK_STREAM, 6, "", (host, 80))).close()


async def test_a_name_with_public_and_private_addresses_is_reached_by_the_public_ones_only() -> None:
    resolver = GuardedResolver(Guard(), lambda host, port, family: ["10.0.0.1", "8.8.8.8", "::1"])
    [found] = await resolver.resolve("mixed.example", 443, socket.AF_UNSPEC)
    assert (found["host"], found["hostname"], found["port"]) == ("8.8.8.8", "mixed.example", 443)
    assert found["flags"] == socket.AI_NUMERICHOST


async def test_a_name_of_a_private_address_is_refused() -> None:
    resolver = GuardedResolver(Guard(), lambda host, port, family: ["169.254.169.254"])
    with pytest.raises(Refused, match=r"metadata\.example is not a public address \(169\.254\.169\.254\)"):
        await resolver.resolve("metadata.example", 80)


@pytest.mark.parametrize("name", ["localhost", "0x7f.1", "0177.0.0.1", "127.1"])
async def test_what_the_operating_system_takes_for_this_machine_is_refused(name: str) -> None:
    with pytest.raises((Refused, OSError)) as caught:
        await GuardedResolver(Guard()).resolve(name, 80, socket.AF_UNSPEC)
    assert isinstance(caught.value, Refused) or name != "localhost"


async def test_a_name_that_cannot_be_resolved_is_an_os_error_for_all_that_wait() -> None:
    def lookup(host: str, port: int, family: socket.AddressFamily) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    resolver = GuardedResolver(Guard(), lookup)
    errors = await asyncio.gather(*(resolver.resolve("no.example") for _ in range(3)), return_exceptions=True)
    assert [type(error) for error in errors] == [socket.gaierror] * 3


async def test_a_lookup_that_hangs_holds_one_thread_and_nobody_else() -> None:
    release = threading.Event()
    asked: list[str] = []

    def lookup(host: str, port: int, family: socket.AddressFamily) -> list[str]:
        asked.append(host)
        if host.startswith("slow"):
            release.wait(20)
        return ["8.8.8.8"]

    resolver = GuardedResolver(Guard(), lookup)
    try:
        slow = [asyncio.create_task(resolver.resolve("slow.example")) for _ in range(200)]
        await wait_until(lambda: asked)
        assert (await resolver.resolve("fast.example"))[0]["host"] == "8.8.8.8"
        slow[0].cancel()
        await asyncio.wait(slow[:1])
        assert sum(not task.done() for task in slow) == 199, "one that gave up took others with it"
        assert asked == ["slow.example", "fast.example"]
        assert await asyncio.to_thread(lambda: "the default executor is free") is not None
    finally:
        release.set()
    assert [(await task)[0]["host"] for task in slow[1:]] == ["8.8.8.8"] * 199


async def test_there_are_never_more_lookups_than_threads_for_them() -> None:
    release = threading.Event()
    running: list[str] = []

    def lookup(host: str, port: int, family: socket.AddressFamily) -> list[str]:
        running.append(host)
        release.wait(20)
        return ["8.8.8.8"]

    resolver = GuardedResolver(Guard(), lookup)
    tasks = [asyncio.create_task(resolver.resolve(f"host{number}.example")) for number in range(LOOKUPS + 10)]
    try:
        await wait_until(lambda: len(running) == LOOKUPS)
        await asyncio.sleep(0.05)
        assert len(running) == LOOKUPS
    finally:
        release.set()
    await asyncio.gather(*tasks)
    assert len(running) == LOOKUPS + 10
