"""The soak's ledger notices what it is there to notice: a checker that never complains would prove nothing."""

from __future__ import annotations

import json

from benchmarks.soak.ledger import Ledger


def ledger(*numbers: int, all_along: bool = True) -> Ledger:
    """Return one that is in a room and gets these messages of one writer."""
    made = Ledger(all_along=all_along)
    made.enter("room")
    for number in numbers:
        take(made, number)
    return made


def take(made: Ledger, number: int, writer: int = 0, room: str = "room") -> None:
    made.take(json.dumps(["tick", {"w": writer, "n": number, "meta": {"channel": room}}]).encode())


def wrong(made: Ledger) -> tuple[int, int, int]:
    return made.lost, made.doubled, made.disordered


def test_what_is_complete_and_in_order_is_right() -> None:
    made = ledger(1, 2, 3)
    take(made, 1, writer=7)
    made.take(b'["presence:join",{"member":{}}]')
    assert wrong(made) == (0, 0, 0)
    assert made.received == 4
    assert made.missing({"room": 4, "elsewhere": 9}) == 0


def test_a_gap_is_a_loss() -> None:
    assert wrong(ledger(1, 2, 5)) == (2, 0, 0)


def test_a_first_message_that_is_not_the_first_is_a_loss_for_clients_that_were_there_all_along() -> None:
    assert wrong(ledger(3, 4)) == (2, 0, 0)
    assert wrong(ledger(3, 4, all_along=False)) == (0, 0, 0)


def test_what_is_missing_at_the_end_is_missed() -> None:
    assert ledger(1, 2).missing({"room": 5}) == 3


def test_the_same_again_is_a_double_and_an_older_one_is_out_of_order() -> None:
    assert wrong(ledger(1, 2, 2, 3)) == (0, 1, 0)
    assert wrong(ledger(1, 2, 3, 1)) == (0, 0, 1)
    assert wrong(ledger(2, 1, all_along=False)) == (0, 0, 1)


def test_what_comes_after_leaving_is_wrong_and_a_second_stay_begins_anew() -> None:
    made = ledger(4, 5, all_along=False)
    made.leave("room")
    take(made, 6)
    assert wrong(made) == (0, 0, 1)
    made.enter("room")
    take(made, 9)
    assert wrong(made) == (0, 0, 1)
