"""Who gets the next trial: floors first, then where most is promised, never more than there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from cluster.budget import PENDING_PER_USER, QUIET, Budget, Rules, Share, parted

FLOOR, CEILING = 4, 12


def budget(gains: Mapping[str, Sequence[float | None]], **rules: Any) -> Budget:
    """Users who were asked trials of these gains, all of them told."""
    given = {"ceiling": CEILING, "floor": FLOOR, **rules}
    return Budget(Rules(**given), dict.fromkeys(gains, 0), gains)


def run(made: Budget, promises: Mapping[str, float | None]) -> list[str]:
    """Who gets what is left, one trial at a time; every proposal of a user promises the same."""
    order = []
    while wanted := made.request():
        digest, count = wanted
        made.arrived(digest, [promises[digest]] * count)
        for _ in range(count):
            made.ended(digest)
        order += [digest] * count
    assert made.is_over
    return order


def test_without_a_total_everyone_gets_the_ceiling() -> None:
    order = run(budget({"a": [], "b": [None] * 3}), {"a": 0.9, "b": 0.0})
    assert (order.count("a"), order.count("b")) == (CEILING, CEILING - 3)


def test_beyond_the_floors_trials_go_in_proportion_to_what_is_promised() -> None:
    order = run(budget({"a": [], "b": [], "c": []}, total=24), {"a": 0.3, "b": 0.2, "c": 0.1})
    first, later = order[: 3 * FLOOR], order[3 * FLOOR :]
    assert {digest: first.count(digest) for digest in "abc"} == dict.fromkeys("abc", FLOOR)
    assert [later.count(digest) for digest in "abc"] == [6, 4, 2]


def test_what_the_ceiling_keeps_from_one_goes_to_the_others() -> None:
    order = run(budget({"a": [], "b": [], "c": []}, total=30), {"a": 0.9, "b": 0.002, "c": 0.001})
    assert [order.count(digest) for digest in "abc"] == [CEILING, 11, 7]


def test_the_last_promises_count_and_one_alone_decides_little() -> None:
    told = {"a": [None] * 4 + [0.9] * 3 + [0.1] * 3, "b": [None] * 4 + [0.1, 0.1, 0.2] * 2}
    assert (budget(told, total=24).request() or [])[0] == "b"
    told["a"][-1] = 0.9
    assert (budget(told, total=24).request() or [])[0] == "a"


def test_who_was_not_asked_since_the_floor_comes_first() -> None:
    made = budget({"a": [None] * 4 + [0.9], "b": [None] * 4}, total=20)
    assert made.request() == ("b", 1)


def test_samplers_that_promise_nothing_share_alike() -> None:
    order = run(budget({"a": [], "b": [], "c": []}, total=23), {"a": None, "b": None, "c": None})
    counts = sorted(order.count(digest) for digest in "abc")
    assert counts == [7, 8, 8]


def test_enough_is_left_for_every_floor() -> None:
    """While one user's places are full, another may go on, but not with the first one's trials."""
    made = budget({"a": [], "b": [0.5] * FLOOR}, total=2 * FLOOR + 1)
    for _ in range(FLOOR):
        digest, count = made.request() or ("", 0)
        assert (digest, count) == ("a", 1)
        made.arrived("a", [None])
    assert made.users["a"].pending == PENDING_PER_USER
    assert made.request() == ("b", 1)
    made.arrived("b", [0.5])
    assert made.request() is None
    assert not made.is_asking


def test_a_total_is_never_exceeded_by_batches() -> None:
    order = run(budget({"a": [], "b": []}, total=11, batch=4), {"a": 0.1, "b": 0.2})
    assert len(order) == 11


@pytest.mark.parametrize("total", [None, 30])
def test_a_search_that_promises_little_ends(total: int | None) -> None:
    promises = {"a": 0.5, "b": 0.001}
    order = run(budget({"a": [], "b": []}, total=total, stop_below=0.01), promises)
    assert order.count("a") == CEILING
    assert order.count("b") == max(FLOOR, QUIET)


def test_one_good_promise_keeps_a_search_going() -> None:
    quiet = [0.001] * QUIET
    assert budget({"a": [*quiet, *quiet]}, stop_below=0.01).is_over
    assert not budget({"a": [*quiet, 0.5, *quiet[1:]]}, stop_below=0.01).is_over
    assert not budget({"a": [None, *quiet[1:]]}, stop_below=0.01).is_over
    assert not budget({"a": [*quiet, *quiet]}).is_over


def test_going_on_decides_what_would_have_been_decided() -> None:
    promises = {"a": 0.3, "b": 0.2}
    whole = run(budget({"a": [], "b": []}, total=18), promises)
    half = {d: [promises[d]] * whole[:10].count(d) for d in "ab"}
    assert run(budget(half, total=18), promises) == whole[10:]


def test_a_total_is_split_by_users_and_none_of_it_is_lost() -> None:
    shards = [["a", "b"], ["c"]]
    parts = parted(Rules(20, 4, 32), dict.fromkeys("abc", 0), shards)
    assert [rules.total for rules in parts] == [22, 10]
    assert [rules.floor for rules in parts] == [4, 4]
    assert parted(Rules(20, 4), dict.fromkeys("abc", 0), shards) == [Rules(20, 4)] * 2


def test_going_on_splits_what_is_left() -> None:
    """`z` is done and had 9; `a` has had more than the floor."""
    parts = parted(Rules(20, 4, 40), {"a": 11, "b": 0, "z": 9}, [["a"], ["b"]])
    assert [rules.total for rules in parts] == [11 + 8, 4 + 8]
    spent = parted(Rules(20, 4, 40), {"a": 20, "b": 18, "z": 9}, [["a", "b"]])
    assert spent[0].total == 38  # what was asked stands; nothing is added


def test_a_shard_is_cut_by_what_users_get_on_average() -> None:
    assert Rules(24, 8).expected(10) == 24
    assert Rules(24, 8, 120).expected(10) == 12
    assert Rules(24, 8, 80).expected(0) == 24


def test_a_request_looks_at_every_user_a_few_times_and_not_for_each_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[Share] = []
    lacks = Budget._lacks

    def noting(self: Budget, user: Share) -> int:
        looks.append(user)
        return lacks(self, user)

    monkeypatch.setattr(Budget, "_lacks", noting)
    made = budget({f"user{i}": [] for i in range(50)}, total=500)
    assert made.request() is not None
    assert 50 <= len(looks) <= 4 * 50
