"""Samplers: who proposes the next configurations, and on what grounds.

A sampler is a pure function of (space, objectives, completed in the order they were asked, pending,
seed): same arguments, same answer, nothing remembered between calls. It never proposes the base,
nor what was completed, has failed or is pending; when the space runs out its answer is shorter.
Asking for q at once equals asking q times for one, with the earlier ones pending: so a run that was
killed between two asks goes on as if it had not been.

`random` and `sobol` are in `design`; `gp`, `map-saas` and `saas` in `bayesian`; `tpe`, `nsga2` and
`optuna-gp` in `optuna_samplers`. They are imported where one is made: who only lists the names
doesn't wait seconds for torch.
"""

import importlib.util
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from search.pareto import Objective
from search.space import BASE_CONFIG, MemoryConfig, SearchSpace

FEWEST_OBSERVATIONS = 2  # that a model learns from
FULL_DESIGN = 12  # points that a search begins with where it has trials enough
FEWEST_TOLD = 10  # trials of a study that others may learn from
PORTFOLIO = "portfolio"  # the source of what other users' studies advise

DesignName = Literal["sobol", "random"]


@dataclass(frozen=True)
class Observation:
    """A configuration that came back; without values it failed: forbidden, left out of fits."""

    config: MemoryConfig
    values: tuple[float, ...] | None  # natural units

    @property
    def is_usable(self) -> bool:
        """Whether a surrogate may learn from it: a memory, with a number for each objective."""
        finite = self.values is not None and all(map(math.isfinite, self.values))
        return finite and self.config != BASE_CONFIG


@dataclass(frozen=True)
class Evidence:
    """What one user's study shows others."""

    observations: tuple[Observation, ...]  # in the order they were asked, the base among them
    reference: tuple[float, ...] | None = None  # the study's own, in natural units

    @property
    def usable(self) -> list[Observation]:
        """Those that a surrogate may learn from."""
        return [observation for observation in self.observations if observation.is_usable]

    @property
    def is_telling(self) -> bool:
        """Whether there is enough to understand the user from."""
        return len(self.usable) >= FEWEST_TOLD


@dataclass(frozen=True)
class Proposal:
    """A configuration to try, who proposed it, and what it promises."""

    config: MemoryConfig
    source: str
    # Hypervolume that it is expected to add, as a share of what the front would hold with it; None
    # where no surrogate was asked.
    gain: float | None = None


@dataclass(frozen=True)
class Known:
    """What a proposal was made from: its study's first trials, by number, as far as they were told.

    With the study's space, seed and portfolio that is all, so that any proposal can be made again.
    """

    asked: int  # how many trials there were, the anchor among them
    pending: tuple[int, ...]  # those of them that had no end


class Sampler(Protocol):
    """Proposes configurations; a pure function of its arguments."""

    name: str

    def suggest(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        completed: Sequence[Observation],
        pending: Sequence[MemoryConfig],
        count: int,
        seed: int,
        reference: Sequence[float] | None = None,
        portfolio: Sequence[MemoryConfig] = (),
    ) -> list[Proposal]:
        """At most `count` proposals, best first; fewer when the space runs out.

        Args:
            space: where to search.
            objectives: what each observation's values measure.
            completed: what came back, failures included, in the order it was asked.
            pending: what was asked and not told.
            count: how many are wanted.
            seed: of everything drawn.
            reference: the study's reference point in natural units; without one it is worked out
                from `completed`.
            portfolio: what other users' studies advise, tried before anything else of the design.
        """
        ...


@dataclass(frozen=True)
class SamplerSettings:
    """Which sampler, and how it begins."""

    name: str  # one of `SAMPLERS`
    initial: int  # configurations drawn before a model proposes
    design: DesignName = "sobol"  # the sequence that these are drawn from


SEQUENCES = ("sobol", "random")
SURROGATES = ("map-saas", "gp", "saas")
OPTUNAS = ("tpe", "nsga2", "optuna-gp")
SAMPLERS = (*SURROGATES, *OPTUNAS, *SEQUENCES)


def make_sampler(settings: SamplerSettings) -> Sampler:
    """The sampler of these settings.

    Raises:
        ValueError: no sampler has this name, or what it needs is not installed.
    """
    check_sampler(settings.name)
    from search.design import Design, SequenceSampler

    if settings.name in SEQUENCES:
        return SequenceSampler(settings.name)
    design = Design(settings.design, settings.initial)
    if settings.name in OPTUNAS:
        from search.optuna_samplers import OptunaSampler

        return OptunaSampler(settings.name, design)
    from search.bayesian import SurrogateSampler

    return SurrogateSampler(settings.name, design)


def check_sampler(name: str) -> None:
    """Raises a ValueError where no sampler has this name, or what it needs is not installed."""
    if name not in SAMPLERS:
        raise ValueError(f"expected a sampler of {', '.join(SAMPLERS)}, got {name!r}")
    needed = ("jax", "numpyro") if name == "saas" else ()
    missing = [package for package in needed if importlib.util.find_spec(package) is None]
    if missing:
        raise ValueError(
            f"the sampler {name} needs {' and '.join(missing)}, not installed here: "
            "pip install 'milpa[nuts]', or take map-saas"
        )


def initial_count(trials: int) -> int:
    """How many of a study's trials are drawn before a surrogate proposes: 12, at most half."""
    return min(FULL_DESIGN, trials // 2)


def all_taken(
    completed: Sequence[Observation], pending: Sequence[MemoryConfig]
) -> set[MemoryConfig]:
    """What was asked already: none of it may be proposed."""
    return {*(observation.config for observation in completed), *pending}


def advised(
    portfolio: Sequence[MemoryConfig], taken: Collection[MemoryConfig]
) -> Iterator[Proposal]:
    """What other users' studies advise and is not taken, in the order of advice."""
    return (Proposal(config, PORTFOLIO) for config in portfolio if config not in taken)


def one_by_one(
    count: int,
    pending: Sequence[MemoryConfig],
    propose: Callable[[Sequence[MemoryConfig]], Proposal | None],
) -> list[Proposal]:
    """At most `count` proposals, each made with the earlier ones pending; ends where one is None.

    Args:
        count: how many are wanted.
        pending: what is pending before the first.
        propose: the next proposal, given what is pending.
    """
    found: list[Proposal] = []
    while len(found) < count:
        proposal = propose([*pending, *(earlier.config for earlier in found)])
        if proposal is None:
            break
        found.append(proposal)
    return found
