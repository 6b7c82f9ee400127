"""Figures of hand-made searches, by hand."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pytest

from benchmarks.cohorts import Cohort, Search
from benchmarks.curves import Curves, Reaching, curves_of, estimates, padded, trials_to
from benchmarks.searches import Contender, Trace
from search.samplers import SamplerSettings
from search.space import MemoryConfig, SearchSpace

FIRST = Contender("first", SamplerSettings("gp", 1), 4)
SECOND = Contender("second", SamplerSettings("random", 1), 2)
# A front of loss 1 at ROUGE-L .4, and loss 2 at .6, from the corner (3, .2): .4 + .2 = .6 in all.
VALUES = {"out": [3.5, 0.1], "half": [2.0, 0.5], "low": [1.0, 0.4], "high": [2.0, 0.6]}


@dataclass(frozen=True)
class Tiny:
    """A user whose hypervolume is reckoned in the head."""

    name: str
    space = SearchSpace(4)
    base: tuple[float, ...] = (3.0, 0.2)
    front = np.array([VALUES["low"], VALUES["high"]])
    corner: tuple[float, ...] = (3.0, 0.2)

    def true(self, configs: object) -> np.ndarray:
        raise NotImplementedError

    def observe(self, config: MemoryConfig) -> tuple[float, ...]:
        raise NotImplementedError


def trace(*names: str, observed: float = 0.0, sources: tuple[str, ...] = ()) -> Trace:
    """What is observed is far from what is true: nothing may be measured by it."""
    true = [VALUES[name] for name in names]
    seen = [[observed, 9.0]] * len(true)
    return Trace("", "", 0, [{}] * len(true), seen, true, [1.0, *[3.0] * (len(true) - 1)],
                 list(sources))  # fmt: skip


def curves(*shares: list[float], name: str = "one", seeds: int = 1) -> Curves:
    """One user after another, each with so many seeds."""
    rows = [np.array(share) for share in shares]
    users = {f"user{i}": rows[i : i + seeds] for i in range(0, len(rows), seeds)}
    return Curves(name, len(rows[0]), users, 0.0, 0.0)


def test_shares_are_of_the_true_hypervolume_and_never_fall() -> None:
    found = trace("out", "half", "low", "out", "high", "half").volumes(Tiny("user"))
    np.testing.assert_allclose(found, [0, 0.3 / 0.6, 0.5 / 0.6, 0.5 / 0.6, 1, 1])


def test_a_training_that_failed_reaches_nothing() -> None:
    one = Trace("", "", 0, [], [], [[math.inf, 0.0], VALUES["half"]], [], [])
    np.testing.assert_allclose(one.volumes(Tiny("user")), [0, 0.5])


def test_seeds_are_averaged_inside_a_user_and_users_weigh_alike() -> None:
    one = curves([0.2, 0.4], [0.4, 0.8], [0.1, 0.9], [0.1, 1.0], seeds=2)
    np.testing.assert_allclose(one.reached([1, 2]), [[0.3, 0.6], [0.1, 0.95]])
    np.testing.assert_allclose(one.area(2), [[0.45], [0.525]])
    np.testing.assert_allclose(one.area(1), [[0.3], [0.1]])


def test_what_is_missing_is_counted_in_powers_of_ten_down_to_a_floor() -> None:
    np.testing.assert_allclose(curves([0.0, 0.9, 0.99, 1.0]).gaps([1, 2, 3, 4]), [[0, -1, -2, -4]])
    averaged = curves([0.9], [0.99], seeds=2).gaps([1])
    np.testing.assert_allclose(averaged, [[-1.5]])


def test_an_interval_holds_what_users_drawn_again_would_show() -> None:
    """Two users, 0 and 1: drawn again, the mean is 0 a quarter of the time, .5 half of it, or 1."""
    (found,) = estimates(np.array([[0.0], [1.0]]))
    assert (found.mean, found.low, found.high) == (0.5, 0.0, 1.0)
    (alike,) = estimates(np.full((7, 1), 0.25))
    assert (alike.mean, alike.low, alike.high) == pytest.approx((0.25, 0.25, 0.25))
    normal = np.random.default_rng(1).standard_normal((400, 1))
    (many,) = estimates(normal)
    assert many.low is not None
    assert many.high is not None
    assert many.high - many.low == pytest.approx(2 * 1.96 / 20, rel=0.15)


def test_the_same_users_are_drawn_for_everyone() -> None:
    """So a difference that all users share has no width, however much users differ."""
    first = np.random.default_rng(0).random((10, 3))
    for found in estimates(first - (first - 0.125)):
        assert (found.low, found.high) == pytest.approx((0.125, 0.125))


def test_one_user_has_no_interval() -> None:
    (found,) = estimates(np.array([[0.5]]))
    assert (found.mean, found.low, found.high) == (0.5, None, None)


def test_trials_to_a_goal_are_counted_from_one() -> None:
    assert trials_to(np.array([0.1, 0.5, 0.5, 0.9]), 0.5) == 2
    assert trials_to(np.array([0.1, 0.5]), 0.1) == 1
    assert trials_to(np.array([0.1, 0.5]), 0.51) is None


def test_what_was_not_reached_counts_as_later_than_all_that_was() -> None:
    goal = curves([0.1, 0.5], [0.1, 0.6], [0.1, 0.9], name="goal")
    found = Reaching.of(curves([0.5, 0.5], [0.2, 0.7], [0.3, 0.4]), goal)
    assert found.by_user == {"user0": (1,), "user1": (2,), "user2": (None,)}
    assert (found.reached, found.searches, found.median) == (2, 3, 2)
    assert found.of_mean is None  # .533 after two trials; the goals' mean is .667
    worse = Reaching.of(curves([0.5, 0.5], [0.2, 0.2], [0.3, 0.4]), goal)
    assert (worse.reached, worse.median) == (1, None)


def test_a_goal_is_the_mean_of_its_seeds() -> None:
    goal = curves([0.0, 0.4], [0.0, 0.6], name="goal", seeds=2)
    found = Reaching.of(curves([0.5, 0.5], [0.3, 0.4], seeds=2), goal)
    assert found.by_user == {"user0": (1, None)}
    assert found.median is None  # of two, the later
    assert Reaching.of(goal, goal).by_user == {"user0": (None, 2)}
    assert Reaching.of(goal, goal).of_mean == 2


def test_a_space_that_ran_out_leaves_the_curve_where_it_is() -> None:
    assert padded(np.array([0.1, 0.7]), 4).tolist() == [0.1, 0.7, 0.7, 0.7]


def test_only_what_all_have_searched_is_counted(tmp_path: Path) -> None:
    cohort = Cohort("", (Tiny("ann"), Tiny("bob")), (FIRST, SECOND), seeds=2)

    def keep(user: int, contender: Contender, seed: int, kept: Trace) -> None:
        file = Search(cohort.problems[user], contender, seed).file(tmp_path)
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(asdict(kept)))

    own = trace("out", "half", "low", "high", sources=("sobol", "gp", "sobol after", "gp"))
    keep(0, FIRST, 0, own)
    assert curves_of(cohort, tmp_path) == []
    keep(1, FIRST, 0, trace("high", "high", "high", "high"))
    keep(0, SECOND, 0, trace("low", "high", sources=("random", "random")))
    keep(0, SECOND, 1, trace("low", "high"))
    first, second = curves_of(cohort, tmp_path)
    assert (first.contender, first.trials, second.contender) == ("first", 4, "second")
    assert {user: len(seeds) for user, seeds in first.shares.items()} == {"ann": 1}
    np.testing.assert_allclose(first.shares["ann"][0], [0, 0.5, 0.5 / 0.6, 1])
    np.testing.assert_allclose(second.shares["ann"], [[0.4 / 0.6, 1]])
    assert first.ask_seconds == pytest.approx((1 + 3 + 3 + 3) / 4)
    assert first.stand_ins == pytest.approx(1 / 3)  # the design's own point is none
    assert second.stand_ins == 0
