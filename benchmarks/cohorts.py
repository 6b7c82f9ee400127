"""Who searches on whom: the contenders of the comparison, its users, and the order of the work.

A cohort is some users, searched by some contenders from some seeds. All contenders search on a user
before the next user's turn, and all cohorts with one seed before the next seed: so wherever a
comparison stops, what is kept is in pairs.

Made-up users are unrelated unless told otherwise, so that each is a fresh draw for the intervals.

`paper-schedule` is the paper's budget, half at random and then a surrogate, with the plain process
and the whole space. `paper` is the preset as published, NUTS and fixed learning rate included;
where the best rate lies elsewhere that costs it something, and how much is the problem's doing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.problem import MadeUpProblem
from benchmarks.recorded_problem import Recorded, Table
from benchmarks.searches import Contender, Problem, kept_file
from search.samplers import SAMPLERS, SamplerSettings, initial_count
from search.space import PAPER_LEARNING_RATE

DEFAULT = "gp"  # Milpa's own
GOAL = "paper-schedule"  # whose final value the others have to reach
MAIN = (DEFAULT, "map-saas", "tpe", "nsga2", "optuna-gp", "sobol", "random", GOAL)
BY_NUTS = (DEFAULT, "saas", "paper", GOAL)  # the two in the middle take hours
NAMES = (*SAMPLERS, GOAL, "paper")
OPTUNA_GP_TRIALS = 60  # its asking grows dearer with every trial


@dataclass(frozen=True)
class Extent:
    """How many users and seeds a cohort has, and how many trials a search."""

    users: int
    seeds: int
    trials: int


WHOLE, BY_NUTS_WHOLE, RECORDED = Extent(10, 3, 200), Extent(3, 1, 200), Extent(1000, 3, 200)
SMOKE = Extent(1, 1, 40)
EXTENTS = {16: WHOLE, 32: Extent(5, 1, 200), 8: SMOKE, 40: SMOKE}  # by number of layers


@dataclass(frozen=True)
class Search:
    """One contender on one user, from one seed."""

    problem: Problem
    contender: Contender
    seed: int

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.problem.name}, {self.contender.name}, seed {self.seed}"

    def file(self, folder: Path) -> Path:
        """Where it is kept."""
        return kept_file(self.problem, self.contender, self.seed, folder)


@dataclass(frozen=True)
class Cohort:
    """Users, who searches on them, and from how many seeds."""

    title: str
    problems: tuple[Problem, ...]
    contenders: tuple[Contender, ...]
    seeds: int
    default: str = DEFAULT  # whom the others are compared with

    def searches(self, seed: int) -> Iterator[Search]:
        """All of one seed, user by user."""
        for problem in self.problems if seed < self.seeds else ():
            yield from (Search(problem, contender, seed) for contender in self.contenders)


def contender(name: str, trials: int) -> Contender:
    """The contender of this name, at the budget it gets when others get `trials`."""
    if name == GOAL:
        return Contender(name, SamplerSettings("gp", trials // 2, "random"), trials)
    if name == "paper":
        settings = SamplerSettings("saas", trials // 2, "random")
        return Contender(name, settings, trials, PAPER_LEARNING_RATE)
    if name == "optuna-gp":
        trials = min(trials, OPTUNA_GP_TRIALS)
    return Contender(name, SamplerSettings(name, initial_count(trials)), trials)


def made_up(
    layers: int, names: Sequence[str], extent: Extent, related: float = 0.0, note: str = ""
) -> Cohort:
    """Made-up users with this many layers; a note sets the title apart from another's."""
    problems = tuple(MadeUpProblem(layers, user, related) for user in range(extent.users))
    kind = f"made-up users related to {related:g}" if related else "made-up users"
    return _cohort(f"{kind}, {layers} layers{note}", problems, names, extent)


def recorded(file: Path, names: Sequence[str], extent: Extent) -> Cohort:
    """The users of a recorded table.

    Raises:
        ValueError: it is not whole.
    """
    table = Table.load(file)
    problems = tuple(Recorded(table, user) for user in table.users[: extent.users])
    return _cohort("recorded users", problems, names, extent)


def in_order(cohorts: Sequence[Cohort]) -> list[Search]:
    """All searches, each once, in the order in which they should be run."""
    seeds = range(max((cohort.seeds for cohort in cohorts), default=0))
    every = (search for seed in seeds for cohort in cohorts for search in cohort.searches(seed))
    return list({one.file(Path()): one for one in every}.values())


def _cohort(
    what: str, problems: tuple[Problem, ...], names: Sequence[str], extent: Extent
) -> Cohort:
    contenders = tuple(contender(name, extent.trials) for name in names)
    return Cohort(f"{what}, {extent.trials} trials", problems, contenders, extent.seeds)
