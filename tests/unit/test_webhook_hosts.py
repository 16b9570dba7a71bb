"""Fairness between hosts, and the circuit breaker of each."""

from __future__ import annotations

import pytest

from insforge_realtime.webhooks.hosts import Hosts


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


def make(per_host: int = 4, failures: int = 3) -> tuple[Hosts, Clock]:
    clock = Clock()
    return Hosts(per_host=per_host, failures=failures, now=clock), clock


def go(hosts: Hosts, host: str, failed: bool | None) -> None:
    hosts.begin(host)
    hosts.end(host, failed)


def test_what_is_under_way_takes_a_hosts_places_and_nobody_elses() -> None:
    hosts, _ = make(per_host=2)
    assert hosts.limits() == {}
    hosts.begin("a")
    assert hosts.limits() == {"a": 1}
    hosts.begin("a")
    hosts.begin("b")
    assert hosts.limits() == {"a": 0, "b": 1}
    hosts.end("a", False)
    hosts.end("a", None)
    hosts.end("b", True)
    assert hosts.limits() == {}


def test_so_many_failures_in_a_row_open_the_breaker_and_then_one_probe_goes() -> None:
    hosts, clock = make()
    go(hosts, "a", True)
    go(hosts, "a", True)
    assert hosts.limits() == {}
    go(hosts, "a", True)
    assert (hosts.limits(), hosts.next_probe(), hosts.left_alone) == ({"a": 0}, 5, ["a"])
    clock.time += 5
    assert (hosts.limits(), hosts.next_probe()) == ({"a": 1}, None)
    hosts.begin("a")
    assert hosts.limits() == {"a": 0}
    hosts.end("a", True)
    assert hosts.next_probe() == 10
    clock.time += 10
    go(hosts, "a", False)
    assert (hosts.limits(), hosts.left_alone) == ({}, [])


def test_an_answer_between_failures_begins_the_count_anew() -> None:
    hosts, _ = make()
    for _ in range(10):
        go(hosts, "a", True)
        go(hosts, "a", True)
        go(hosts, "a", False)
    assert hosts.left_alone == []


def test_what_tells_nothing_about_the_host_changes_nothing() -> None:
    hosts, _ = make()
    for failed in (True, None, True, None, True):
        go(hosts, "a", failed)
    assert hosts.left_alone == ["a"]
    go(hosts, "a", None)
    assert hosts.left_alone == ["a"]


def test_the_pauses_double_up_to_a_minute() -> None:
    hosts, clock = make(failures=1)
    pauses = []
    for _ in range(7):
        go(hosts, "a", True)
        pause = hosts.next_probe()
        assert pause is not None
        pauses.append(pause)
        clock.time += pause
    assert pauses == [5, 10, 20, 40, 60, 60, 60]


def test_stragglers_of_before_do_not_prolong_the_pause_and_an_answer_among_them_ends_it() -> None:
    hosts, clock = make(per_host=9)
    for _ in range(9):
        hosts.begin("a")
    for _ in range(8):
        hosts.end("a", True)
        clock.time += 0.1
    assert hosts.next_probe() == pytest.approx(5 - 6 * 0.1)  # from the third failure on
    hosts.end("a", False)
    assert hosts.left_alone == []


def test_a_breaker_of_zero_never_opens_and_hosts_are_told_apart() -> None:
    hosts, _ = make(failures=0)
    for _ in range(100):
        go(hosts, "a", True)
    assert (hosts.left_alone, hosts.limits()) == ([], {})
    hosts, _ = make(failures=1)
    go(hosts, "a", True)
    assert hosts.limits() == {"a": 0}


def test_a_host_that_we_cannot_send_to_rests_longer_each_time_until_something_comes_of_a_request() -> None:
    hosts, clock = make()
    for pause in (1, 2, 4, 8, 16, 30, 30):
        hosts.begin("a")
        hosts.end("a", None)
        hosts.rest("a")
        hosts.rest("a")  # others that were under way say the same
        assert hosts.limits() == {"a": 0}
        assert hosts.next_probe() == pause
        clock.time += pause
        assert hosts.limits() == {"a": 4}
    go(hosts, "a", failed=True)
    assert hosts.limits() == {}
    hosts.rest("a")
    assert hosts.next_probe() == 1
