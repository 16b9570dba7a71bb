"""The registry: what is done to all connections, or to one user's."""

from __future__ import annotations

from insforge_realtime.errors import MESSAGES_MISSED, RESTARTING, Close
from insforge_realtime.web.gateway import Gateway
from insforge_realtime.web.transport import CLOSE_SECONDS, SHUTDOWN_SECONDS


class Connection:
    """Notes how it ended; leaves at once, as one does whose client has gone already."""

    def __init__(self, gateway: Gateway, sid: str, subject: str | None = None) -> None:
        self.gateway, self.sid, self.subject = gateway, sid, subject
        self.ends: list[Close | str] = []
        gateway.connections.add(self)

    def close(self, end: Close) -> None:
        self.ends.append(end)
        self.gateway.forget(self)

    def disconnect(self) -> None:
        self.ends.append("disconnected")
        self.gateway.forget(self)


def test_all_are_closed_although_they_leave_meanwhile() -> None:
    gateway = Gateway(0)
    connections = [Connection(gateway, str(number)) for number in range(3)]
    gateway.recall()
    assert [connection.ends for connection in connections] == [[MESSAGES_MISSED]] * 3
    assert (gateway.connections, gateway.closing, gateway.close_seconds) == (set(), False, CLOSE_SECONDS)
    late = Connection(gateway, "late")
    gateway.shut()
    assert late.ends == [RESTARTING]
    assert (gateway.closing, gateway.close_seconds) == (True, SHUTDOWN_SECONDS)


def test_a_users_connections_are_ended_and_no_others() -> None:
    gateway = Gateway(0)
    theirs = [Connection(gateway, sid, "alice") for sid in "ab"]
    others = [Connection(gateway, "c", "bob"), Connection(gateway, "d")]
    assert gateway.disconnect("alice") == 2
    assert gateway.disconnect("alice") == 0
    assert [connection.ends for connection in theirs + others] == [["disconnected"], ["disconnected"], [], []]
    assert gateway.connections == set(others)


def test_it_is_full_when_so_many_clients_were_let_in() -> None:
    unlimited, one = Gateway(0), Gateway(1)
    assert not one.is_full
    unlimited.clients = one.clients = 1
    assert (unlimited.is_full, one.is_full) == (False, True)
