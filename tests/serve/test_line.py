"""Whose turn it is, worked out by hand."""

from __future__ import annotations

from collections import Counter

import pytest

from serve.ask import Ask, BusyError, Ticket
from serve.line import Line, in_turn, share, to_pause
from serve.words import Words


def ticket(asker: str) -> Ticket:
    return Ticket(Ask((1,), None, 1, asker=asker), Words(str, ()), lambda piece: None)


def whose(line: Line) -> str:
    return "".join(ticket.asker for ticket in line)


def line_of(text: str, places: int) -> Line:
    line = Line(places)
    for asker in text:
        line.add(ticket(asker))
    return line


def running(text: str) -> dict[int, Ticket]:
    return {number: ticket(asker) for number, asker in enumerate(text)}


@pytest.mark.parametrize(
    ("places", "askers", "expected"),
    [(16, "a", 16), (16, "ab", 8), (16, "abc", 5), (2, "abc", 1), (16, "", 16)],
)
def test_a_share_is_equal_and_at_least_one(places: int, askers: str, expected: int) -> None:
    assert share(places, set(askers)) == expected


def test_alone_one_may_have_the_whole_line_and_no_more() -> None:
    line = line_of("aaaa", 4)
    with pytest.raises(BusyError, match="4 asks"):
        line.add(ticket("a"))
    assert whose(line) == "aaaa"


def test_who_has_less_than_a_share_takes_a_place_of_who_has_most() -> None:
    line = line_of("aaaa", 4)
    newest = list(line)[-1]
    assert line.add(ticket("b")) is newest
    line.add(ticket("b"))
    assert whose(line) == "aabb"
    for asker in "ab":
        with pytest.raises(BusyError):
            line.add(ticket(asker))
    lost = line.add(ticket("c"))  # a share is one place now
    assert lost is not None
    assert lost.asker == "a"
    assert whose(line) == "abbc"


def test_asks_that_are_over_leave_and_who_is_put_back_is_first() -> None:
    line = line_of("abc", 3)
    gone = list(line)[1]
    gone.cancel()
    assert line.sweep() == 1
    line.put_back([ticket("d"), ticket("e")])
    assert whose(line) == "deac"


def test_who_holds_fewest_rows_is_next_and_then_who_came_first() -> None:
    waiting = [ticket("a"), ticket("b"), ticket("c"), ticket("b")]
    assert in_turn(waiting, {"a": 2, "b": 1, "c": 1}) is waiting[1]
    assert in_turn(waiting, {"a": 2, "b": 1}) is waiting[2]
    assert in_turn(waiting, {}) is waiting[0]
    assert in_turn([], {}) is None


@pytest.mark.parametrize(
    ("held", "waiting", "rows", "expected"),
    [
        ("aaaa", "a", 4, []),  # nobody else wants any
        ("aaaa", "b", 4, [3]),  # as many as are wanted
        ("aaaa", "bbbb", 4, [3, 2]),  # but not below a share
        ("aaaa", "bbbb", 6, [3]),  # two are free
        ("aabb", "aabb", 4, []),
        ("aabb", "c", 4, [1]),  # a share is one row now
        ("aabb", "cccc", 4, [1]),
        ("baaaab", "c", 6, [4]),  # of who has most, the newest
        ("ab", "cd", 2, []),  # too many to share: they wait
        ("", "ab", 4, []),
        ("", "abc", 2, []),
    ],
)
def test_rows_beyond_a_share_pause(held: str, waiting: str, rows: int, expected: list[int]) -> None:
    assert to_pause(running(held), Counter(waiting), rows) == expected
