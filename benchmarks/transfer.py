"""What a portfolio of other users' configurations is worth to a new user, and what it may cost.

    python -m benchmarks.transfer --out FOLDER [--layers 16] [--cases NAME ...] [--goal]
        [--pooled] [--seed 0] [--initial 12]

Of made-up users some are searched first, and others after them: with what the first ones' studies
advise, and without, from the same seed. Users are related to three degrees; and there are
strangers, whose sources are closely related to each other but belong to another population: the
gate, which sees the sources only, can't notice.

Searches are kept in the folder; what is there is read, so a run that was stopped goes on. Figures
are shares of the true front's hypervolume, means over target users, and the paired difference with
a 95 % interval by bootstrap over users. With `--goal` each target user is searched by the paper's
schedule too, 200 trials long, and a last column tells after how many trials its final share was
reached: the median of users, and how many of them reached it. With `--pooled` they are searched
with the portfolio and a surrogate that expects what others found (`benchmarks.pooling`), too.

How long a portfolio may be was settled on other seeds (1), by what the twelve points of a design
reach: six advised and six drawn 0.689, 0.471 and 0.484 for users related 0.9, 0.5 and 0, against
0.517, 0.422 and 0.394 of twelve drawn; four advised 0.672, 0.463 and 0.431; eight 0.686, 0.469 and
0.474; six out of everything that was tried, not the fronts alone, 0.655, 0.471 and 0.468.

Whole searches of users related 0.9, seed 0, said more: six without contrasts in the learning rate
are ahead by .184 at 20 trials and behind by .021 at 50; four, .136 and .042; four and two contrasts
are ahead by .193 and .031; three and two, as it is now, by .250 and .041.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.cohorts import GOAL, contender
from benchmarks.curves import trials_to
from benchmarks.pooling import Pooled, expectation
from benchmarks.problem import MadeUpProblem
from benchmarks.searches import OBJECTIVES, Contender, Trace, searched
from search.design import Design
from search.pareto import reference_point
from search.samplers import Evidence, Observation, SamplerSettings, initial_count
from search.space import BASE_CONFIG, MemoryConfig
from search.transfer import portfolio

SOURCES = TARGETS = 6
SOURCE_TRIALS, TRIALS, GOAL_TRIALS = 30, 50, 200
SHOWN = (5, 10, 20, 30, 50)
SETTINGS = SamplerSettings("gp", initial_count(SOURCE_TRIALS))
RESAMPLED = 10_000

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """How sources and targets belong together."""

    name: str
    related: float
    source_population: int
    population: int
    layers: int

    def source(self, user: int) -> MadeUpProblem:
        """A user who is searched first."""
        return MadeUpProblem(self.layers, user, self.related, self.source_population)

    def target(self, user: int) -> MadeUpProblem:
        """A user who is searched later."""
        return MadeUpProblem(self.layers, SOURCES + user, self.related, self.population)


def cases(seed: int, layers: int) -> list[Case]:
    """Users of one population, related to three degrees; and strangers."""
    same = [Case(f"related-{degree:g}", degree, seed, seed, layers) for degree in (0.9, 0.5, 0.0)]
    return [*same, Case("strangers", 0.9, seed + 1000, seed, layers)]


@dataclass(frozen=True)
class Outcome:
    """A case's searches: `u x n` shares after each trial by what they were given, none first."""

    case: str
    shares: Mapping[str, Array]
    goals: Array | None = None  # `u` shares that the paper's schedule ends with


def measured(
    case: Case,
    seed: int,
    folder: Path,
    settings: SamplerSettings,
    goal: bool = False,
    pooled: bool = False,
) -> Outcome:
    """One case, searched as far as it was not."""
    first = Contender("source", SETTINGS, SOURCE_TRIALS)
    begun_at = folder / f"population{case.source_population}"
    sources = [
        source_of(problem, searched(problem, first, seed, begun_at))
        for problem in map(case.source, range(SOURCES))
    ]
    targets = [case.target(user) for user in range(TARGETS)]
    design = Design(settings.design, settings.initial)
    advised = portfolio(targets[0].space, OBJECTIVES, sources, design)
    plain = Contender("without", SETTINGS, TRIALS)
    named = f"{_digest(advised)}-of-{settings.initial}"
    begun = Contender(f"portfolio-{named}", settings, TRIALS, portfolio=advised)
    at = folder / f"population{case.population}"
    shares = functools.partial(_shares, targets, seed=seed, folder=at)
    given = f"portfolio of {len(advised)}"
    found = {"none": shares(plain), given: shares(begun if advised else plain)}
    if pooled:
        parts = expectation(targets[0].space, sources)
        name = f"pooled-{case.name}-{named}"
        expecting = Pooled(name, settings, TRIALS, portfolio=advised, parts=parts)
        found[f"{given}, pooled"] = shares(expecting)
    goals = shares(contender(GOAL, GOAL_TRIALS))[:, -1] if goal else None
    return Outcome(case.name, found, goals)


def _digest(advised: Sequence[MemoryConfig]) -> str:
    return hashlib.sha256(repr(tuple(advised)).encode("ascii")).hexdigest()[:8]


def source_of(problem: MadeUpProblem, trace: Trace) -> Evidence:
    """A kept search as a study would show it."""
    observed = [(row[0], row[1]) for row in trace.observed]
    configs = map(MemoryConfig.from_json, trace.configs)
    told = [Observation(c, values) for c, values in zip(configs, observed, strict=True)]
    corner = reference_point(OBJECTIVES, observed[: SETTINGS.initial], problem.base)
    return Evidence((Observation(BASE_CONFIG, problem.base), *told), corner)


def _shares(
    targets: Sequence[MadeUpProblem], contender: Contender, seed: int, folder: Path
) -> Array:
    traces = [searched(problem, contender, seed, folder) for problem in targets]
    return np.array([t.volumes(p) for t, p in zip(traces, targets, strict=True)])


def interval(differences: Array) -> tuple[float, float]:
    """The 95 % interval of a mean over users, by bootstrap."""
    generator = np.random.default_rng(0)
    drawn = generator.integers(len(differences), size=(RESAMPLED, len(differences)))
    low, high = np.quantile(differences[drawn].mean(1), [0.025, 0.975])
    return float(low), float(high)


def table(outcomes: Sequence[Outcome]) -> str:
    """A Markdown table: what each search was given, and the difference from the row before it."""
    head = ["users", "given", "area", *(f"at {n}" for n in SHOWN), "trials to the goal"]
    lines = [head, ["---"] * len(head)]
    for one in outcomes:
        before: Array | None = None
        for name, rows in one.shares.items():
            means = [f"{column.mean():.3f}" for column in _columns(rows)]
            lines.append([one.case, name, *means, _trials(rows, one.goals)])
            if before is not None:
                pairs = zip(_columns(rows), _columns(before), strict=True)
                lines.append([one.case, "difference", *(_difference(*pair) for pair in pairs), ""])
            before = rows
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _columns(rows: Array) -> list[Array]:
    """`u` areas under the curve, and `u` shares at every budget shown."""
    return [rows.mean(1), *(rows[:, n - 1] for n in SHOWN)]


def _difference(rows: Array, without: Array) -> str:
    difference = rows - without
    low, high = interval(difference)
    return f"{difference.mean():+.3f} [{low:+.3f}, {high:+.3f}]"


def _trials(rows: Array, goals: Array | None) -> str:
    """After how many trials users reached their goals: the median, and how many did."""
    if goals is None:
        return ""
    found = [trials_to(share, goal) for share, goal in zip(rows, goals, strict=True)]
    reached = sorted(trials for trials in found if trials is not None)
    middle = len(found) // 2  # what was not reached comes after all that was
    median = str(reached[middle]) if middle < len(reached) else f"> {rows.shape[1]}"
    return f"{median} ({len(reached)} of {len(found)})"


def parser() -> argparse.ArgumentParser:
    """Reads the command's flags."""
    found = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    found.add_argument("--out", type=Path, required=True, help="where searches are kept")
    found.add_argument("--layers", type=int, default=16, help="of the users' base")
    found.add_argument("--cases", nargs="+", choices=[case.name for case in cases(0, 16)])
    found.add_argument("--goal", action="store_true", help="search by the paper's schedule too")
    found.add_argument("--pooled", action="store_true", help="with expectations too")
    found.add_argument("--seed", type=int, default=0, help="of populations and searches")
    found.add_argument("--initial", type=int, default=SETTINGS.initial, help="initial points")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    given = parser().parse_args(arguments)
    settings = SamplerSettings(SETTINGS.name, given.initial)
    chosen = [
        case
        for case in cases(given.seed, given.layers)
        if case.name in (given.cases or [case.name])
    ]
    extras = {"goal": given.goal, "pooled": given.pooled}
    outcomes = [measured(case, given.seed, given.out, settings, **extras) for case in chosen]
    print(table(outcomes))


if __name__ == "__main__":
    main()
