"""What kept searches show: how much of the true hypervolume was reached, and after how many trials.

All is measured by the true values of what was tried, as shares of the true front's hypervolume. The
unit is the user: seeds are averaged inside a user, and intervals are percentile bootstraps over
users, the same draws for everyone, so that differences are paired. With one user there is no
interval, and with five it is narrower than it should be.

Only what every contender has searched is counted: a user and seed that one of them lacks is left
out for all.

Notation: u users, n trials, k figures.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.cohorts import Cohort, Search
from benchmarks.searches import Contender, Trace

BUDGETS = (10, 20, 30, 40, 60, 100, 150, 200)
RESAMPLES = 10_000
SMALLEST_GAP = 1e-4  # of the true hypervolume: a recorded front may be found to the last point

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean over users and its 95 % interval, which one user has not."""

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Curves:
    """One contender's searches."""

    contender: str
    trials: int
    shares: Mapping[str, Sequence[Array]]  # by user: for every seed, after each of n trials
    ask_seconds: float  # of the processor, a trial
    stand_ins: float  # share of the trials that another had to propose after the design

    def of_users(self, measure: Callable[[Array], Array]) -> Array:
        """`u x k` figures of the users, averaged over their seeds."""
        every = self.shares.values()
        return np.stack([np.mean([measure(one) for one in seeds], axis=0) for seeds in every])

    def reached(self, budgets: Sequence[int]) -> Array:
        """`u x k` shares at these budgets."""
        return self.of_users(lambda share: share[np.array(budgets) - 1])

    def gaps(self, budgets: Sequence[int]) -> Array:
        """`u x k` logarithms to base 10 of the share that is missing, no smaller than -4."""
        at = np.array(budgets) - 1
        return self.of_users(lambda share: np.log10(np.maximum(1 - share[at], SMALLEST_GAP)))

    def area(self, trials: int) -> Array:
        """`u x 1` mean shares over the first so many trials: the area under the curve."""
        return self.of_users(lambda share: share[:trials].mean(keepdims=True))


def estimates(values: Array) -> list[Estimate]:
    """Means and intervals of the `k` columns of `u x k` figures."""
    users = len(values)
    means = values.mean(0).tolist()
    if users < 2:
        return [Estimate(mean, None, None) for mean in means]
    drawn = np.random.default_rng(0).multinomial(users, [1 / users] * users, RESAMPLES) / users
    low, high = np.quantile(drawn @ values, [0.025, 0.975], axis=0).tolist()
    return [Estimate(*three) for three in zip(means, low, high, strict=True)]


def trials_to(share: Array, goal: float) -> int | None:
    """The first trial after which a search has reached the goal; None where it never did."""
    reached = np.flatnonzero(share >= goal)
    return int(reached[0]) + 1 if len(reached) else None


@dataclass(frozen=True)
class Reaching:
    """When one contender's searches reached the goals of their users."""

    by_user: Mapping[str, tuple[int | None, ...]]  # trials, for every seed; None: not reached
    of_mean: int | None  # where the mean of all searches reached the mean of the goals

    @classmethod
    def of(cls, curves: Curves, goal: Curves) -> Reaching:
        """The goals are the other's final shares, averaged over its seeds user by user."""
        goals = dict(zip(goal.shares, goal.of_users(lambda share: share[-1:])[:, 0], strict=True))
        by_user = {
            user: tuple(trials_to(one, goals[user]) for one in seeds)
            for user, seeds in curves.shares.items()
        }
        mean = curves.of_users(lambda share: share).mean(0)
        return cls(by_user, trials_to(mean, float(np.mean(list(goals.values())))))

    @property
    def searches(self) -> int:
        """How many there were."""
        return sum(map(len, self.by_user.values()))

    @property
    def reached(self) -> int:
        """How many reached their goal."""
        return sum(trials is not None for seeds in self.by_user.values() for trials in seeds)

    @property
    def median(self) -> int | None:
        """Over users, of the median over seeds; the later one of two middle ones.

        What was not reached comes after all that was: so None where half were not.
        """
        return _median([_median(seeds) for seeds in self.by_user.values()])


def curves_of(cohort: Cohort, folder: Path) -> list[Curves]:
    """Every contender's searches on the users and seeds that all of them have searched."""
    cells = [
        (problem, seed)
        for problem in cohort.problems
        for seed in range(cohort.seeds)
        if all(Search(problem, c, seed).file(folder).is_file() for c in cohort.contenders)
    ]
    found = []
    for contender in cohort.contenders if cells else ():
        shares: dict[str, list[Array]] = {}
        traces = [_read(Search(problem, contender, seed), folder) for problem, seed in cells]
        for (problem, _), trace in zip(cells, traces, strict=True):
            share = padded(trace.volumes(problem), contender.trials)
            shares.setdefault(problem.name, []).append(share)
        found.append(_curves(contender, shares, traces))
    return found


def padded(share: Array, trials: int) -> Array:
    """As many shares as trials: a search that had tried the whole space stays where it is."""
    return np.pad(share, (0, trials - len(share)), mode="edge")


def _curves(
    contender: Contender, shares: Mapping[str, Sequence[Array]], traces: Sequence[Trace]
) -> Curves:
    settings = contender.settings
    asked = [source for trace in traces for source in trace.sources[settings.initial :]]
    others = sum(source != settings.name for source in asked)
    seconds = [second for trace in traces for second in trace.ask_seconds]
    spent = float(np.mean(seconds))
    return Curves(contender.name, contender.trials, shares, spent, others / max(1, len(asked)))


def _read(search: Search, folder: Path) -> Trace:
    return Trace(**json.loads(search.file(folder).read_text()))


def _median(trials: Sequence[int | None]) -> int | None:
    last = max((one for one in trials if one is not None), default=0) + 1
    return sorted(trials, key=lambda one: last if one is None else one)[len(trials) // 2]
