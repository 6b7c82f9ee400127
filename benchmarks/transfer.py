"""What a portfolio of other users' configurations is worth to a new user, and what it may cost.

`python -m benchmarks.transfer --out FOLDER`: of made-up users with 16 layers some are searched
first, and others after them: with what the first ones' studies advise, and without, from the same
seed.
Users are related to three degrees; and there are strangers, whose sources are closely related to
each other but belong to another population: the gate, which sees the sources only, can't notice.

Searches are kept in the folder; what is there is read, so a run that was stopped goes on. Figures
are shares of the true front's hypervolume, means over target users, and the paired difference with
a 95 % interval by bootstrap over users.

Settled on other seeds (1), by what the twelve points of a design reach: six advised and six drawn
0.689, 0.471 and 0.484 for users related 0.9, 0.5 and 0, against 0.517, 0.422 and 0.394 of twelve
drawn; four advised 0.672, 0.463 and 0.431; eight 0.686, 0.469 and 0.474; six out of everything that
was tried, not the fronts alone, 0.655, 0.471 and 0.468.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.problem import MadeUpProblem
from benchmarks.searches import OBJECTIVES, Contender, Trace, searched
from search.design import Design
from search.pareto import reference_point
from search.samplers import Evidence, Observation, SamplerSettings, initial_count
from search.space import BASE_CONFIG, MemoryConfig
from search.transfer import portfolio

LAYERS = 16
SOURCES = TARGETS = 6
SOURCE_TRIALS, TRIALS = 30, 50
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

    def source(self, user: int) -> MadeUpProblem:
        """A user who is searched first."""
        return MadeUpProblem(LAYERS, user, self.related, self.source_population)

    def target(self, user: int) -> MadeUpProblem:
        """A user who is searched later."""
        return MadeUpProblem(LAYERS, SOURCES + user, self.related, self.population)


def cases(seed: int) -> list[Case]:
    """Users of one population, related to three degrees; and strangers."""
    degrees = (0.9, 0.5, 0.0)
    same = [Case(f"related {degree:g}", degree, seed, seed) for degree in degrees]
    return [*same, Case("strangers", 0.9, seed + 1000, seed)]


@dataclass(frozen=True)
class Outcome:
    """The traces of a case: `u x n` shares after each trial, with and without a portfolio."""

    case: str
    advised: int  # configurations of the portfolio
    with_portfolio: Array
    without: Array


def measured(case: Case, seed: int, folder: Path, settings: SamplerSettings) -> Outcome:
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
    digest = hashlib.sha256(repr(advised).encode("ascii")).hexdigest()[:8]
    name = f"portfolio-{digest}-of-{settings.initial}"
    begun = Contender(name, settings, TRIALS, portfolio=advised) if advised else plain
    at = folder / f"population{case.population}"
    shares = functools.partial(_shares, targets, seed=seed, folder=at)
    return Outcome(case.name, len(advised), shares(begun), shares(plain))


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
    """A Markdown table: three rows for each case."""
    head = ["users", "portfolio", "area", *(f"at {n}" for n in SHOWN)]
    lines = [head, ["---"] * len(head)]
    for one in outcomes:
        for name, rows in (("none", one.without), (f"{one.advised}", one.with_portfolio)):
            means = [f"{column.mean():.3f}" for column in _columns(rows)]
            lines.append([one.case, name, *means])
        lines.append([one.case, "difference", *map(_difference, *_both(one))])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _both(one: Outcome) -> tuple[list[Array], list[Array]]:
    return _columns(one.with_portfolio), _columns(one.without)


def _columns(rows: Array) -> list[Array]:
    """`u` areas under the curve, and `u` shares at every budget shown."""
    return [rows.mean(1), *(rows[:, n - 1] for n in SHOWN)]


def _difference(with_portfolio: Array, without: Array) -> str:
    difference = with_portfolio - without
    low, high = interval(difference)
    return f"{difference.mean():+.3f} [{low:+.3f}, {high:+.3f}]"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="where searches are kept")
    parser.add_argument("--seed", type=int, default=0, help="of populations and searches")
    parser.add_argument("--initial", type=int, default=SETTINGS.initial, help="initial points")
    given = parser.parse_args(arguments)
    settings = SamplerSettings(SETTINGS.name, given.initial)
    outcomes = [measured(case, given.seed, given.out, settings) for case in cases(given.seed)]
    print(table(outcomes))


if __name__ == "__main__":
    main()
