"""The sockets that the server listens on: real ones, on loopback."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from insforge_realtime.errors import ConfigError
from insforge_realtime.process import listening
from insforge_realtime.process.listening import listen, places, reachable


@contextmanager
def listeners(host: str, port: int = 0) -> Iterator[list[socket.socket]]:
    sockets = listen(host, port)
    try:
        yield sockets
    finally:
        for one in sockets:
            one.close()


def answers(host: str, port: int) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection((host, port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.parametrize(
    ("host", "reached"),
    [
        ("127.0.0.1", {"127.0.0.1"}),
        ("0.0.0.0", {"127.0.0.1"}),
        ("::1", {"::1"}),
        ("[::1]", {"::1"}),
        ("::", {"127.0.0.1", "::1"}),
        ("[::]", {"127.0.0.1", "::1"}),
        ("localhost", {"127.0.0.1", "::1"}),
        ("LocalHost", {"127.0.0.1", "::1"}),
    ],
)
def test_a_host_is_listened_on_in_the_families_that_it_names(host: str, reached: set[str]) -> None:
    with listeners(host) as sockets:
        [port] = {one.getsockname()[1] for one in sockets}
        assert {address for address in ("127.0.0.1", "::1") if answers(address, port)} == reached
        assert all(place.rsplit(":", 1)[1] == str(port) for place in places(sockets))
        assert ", ".join(places(sockets)).rsplit(":", 1)[1] == str(port)
        local, told = reachable(sockets).rsplit(":", 1)
        assert (local.strip("[]") in reached, told) == (True, str(port))


def test_a_client_of_ipv4_has_an_address_of_ipv4() -> None:
    with listeners("::") as sockets:
        port = sockets[0].getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            connection, peer = sockets[0].accept()
            connection.close()
        assert peer[0] == "127.0.0.1"
        assert places(sockets) == [f"0.0.0.0:{port}", f"[::]:{port}"]


@pytest.mark.parametrize("host", ["localhost", "::"])
def test_a_machine_that_has_one_family_only_listens_on_that(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that is nobody's: what a machine without IPv6 says of ::1, too."""
    monkeypatch.setattr(listening, "BOTH", {host: ("127.0.0.1", "2001:db8::1")})
    with listeners(host) as sockets:
        assert [one.family for one in sockets] == [socket.AF_INET]
    monkeypatch.setattr(listening, "BOTH", {host: ("192.0.2.1", "::1")})
    with listeners(host) as sockets:
        assert [one.family for one in sockets] == [socket.AF_INET6]


def test_a_port_that_is_picked_is_free_in_both_families() -> None:
    """With most ports of one family taken, a free one of the other is taken as a rule."""
    taken = [socket.create_server(("::1", 0), family=socket.AF_INET6) for _ in range(300)]
    try:
        for _ in range(30):
            with listeners("localhost") as sockets:
                assert len(sockets) == 2
                assert len({one.getsockname()[1] for one in sockets}) == 1
    finally:
        for one in taken:
            one.close()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("host", ["localhost", "::"])
def test_an_address_that_is_taken_in_one_family_is_said_in_one_line_and_nothing_is_left_open(
    host: str, family: socket.AddressFamily
) -> None:
    other = "127.0.0.1" if family == socket.AF_INET6 else "::1"
    with socket.create_server(("127.0.0.1" if family == socket.AF_INET else "::1", 0), family=family) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError) as caught:
            listen(host, port)
        assert not answers(other, port)
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    assert str(caught.value).startswith(
        f"cannot listen on {place}: Address already in use; choose another port with --port"
    )


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("192.0.2.1", "cannot listen on 192.0.2.1:7999: Cannot assign requested address"),
        ("2001:db8::1", "cannot listen on [2001:db8::1]:7999: Cannot assign requested address"),
        ("no-such-host.invalid", "cannot listen on no-such-host.invalid:7999: "),
        ("a..b", "cannot listen on a..b:7999: not a valid host name"),
        (f"{'x' * 64}.example", "not a valid host name"),
    ],
)
def test_an_address_that_is_not_this_machine_s_is_said_in_one_line(host: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        listen(host, 7999)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
