"""Samplers: who proposes the next configurations, and on what grounds.

A sampler is a pure function of (space, objectives, completed in the order they were asked, pending,
seed): same arguments, same answer, nothing remembered between calls. It never proposes the base,
nor what was completed, has failed or is pending; when the space runs out its answer is shorter.
Asking for q at once equals asking q times for one, with the earlier ones pending: so a run that was
killed between two asks goes on as if it had not been.

`random` and `sobol` walk one fixed sequence of the seed's and propose the first points on it that
are not taken. `gp` and `map-saas` are in `bayesian`.

NOTE: torch and botorch are imported where they are used; who only draws points, or lists the names,
doesn't wait seconds for them.
"""

import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from search.pareto import Objective
from search.space import BASE_CONFIG, MemoryConfig, SearchSpace

LONGEST_WALK = 4096  # points of a sequence before what is left is listed instead
LONGEST_LIST = 100_000


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
class Proposal:
    """A configuration to try, and who proposed it."""

    config: MemoryConfig
    source: str


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
        """
        ...


class SequenceSampler:
    """Walks a fixed sequence of points: uniform ("random") or Sobol's ("sobol")."""

    def __init__(self, name: str) -> None:
        self.name = name

    def suggest(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        completed: Sequence[Observation],
        pending: Sequence[MemoryConfig],
        count: int,
        seed: int,
        reference: Sequence[float] | None = None,
    ) -> list[Proposal]:
        """See `Sampler`; neither values nor reference point matter here."""
        taken = all_taken(completed, pending)
        found = itertools.islice(self._untaken(space, taken, seed), count)
        return [Proposal(config, self.name) for config in found]

    def _untaken(
        self, space: SearchSpace, taken: Collection[MemoryConfig], seed: int
    ) -> Iterator[MemoryConfig]:
        """The sequence without repeats and without what is taken, then all that is left."""
        points = uniform_points if self.name == "random" else sobol_points
        walk = itertools.islice(points(space.cube_dimensions, seed), LONGEST_WALK)
        listed = itertools.islice(space.enumerate(), LONGEST_LIST)
        skip = {BASE_CONFIG, *taken}
        for config in itertools.chain(map(space.from_cube, walk), _shuffled(listed, seed)):
            if config not in skip:
                skip.add(config)
                yield config


SAMPLERS = ("map-saas", "gp", "sobol", "random")


def make_sampler(name: str, initial: int) -> Sampler:
    """The sampler called `name`.

    Args:
        name: one of `SAMPLERS`.
        initial: how many configurations are drawn before a surrogate proposes.

    Raises:
        ValueError: no sampler has this name.
    """
    if name in ("sobol", "random"):
        return SequenceSampler(name)
    if name in SAMPLERS:
        from search.bayesian import SurrogateSampler  # botorch takes seconds to import

        return SurrogateSampler(name, initial)
    raise ValueError(f"expected a sampler of {', '.join(SAMPLERS)}, got {name!r}")


def initial_count(trials: int) -> int:
    """How many of a study's trials are drawn before a surrogate proposes: 12, at most half."""
    return min(12, trials // 2)


def uniform_points(dimensions: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Independent uniform points of the unit cube, without end."""
    generator = np.random.default_rng(seed)
    while True:
        yield generator.random(dimensions)


def sobol_points(dimensions: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """A scrambled Sobol sequence in the unit cube, without end."""
    import torch

    engine = torch.quasirandom.SobolEngine(  # type: ignore[no-untyped-call]
        dimensions, scramble=True, seed=seed
    )
    while True:
        yield from engine.draw(64, dtype=torch.float64).numpy()


def all_taken(
    completed: Sequence[Observation], pending: Sequence[MemoryConfig]
) -> set[MemoryConfig]:
    """What was asked already: none of it may be proposed."""
    return {*(observation.config for observation in completed), *pending}


def _shuffled(configs: Iterable[MemoryConfig], seed: int) -> Iterator[MemoryConfig]:
    """Lists the configurations only when the first is asked for."""
    listed = list(configs)
    yield from (listed[i] for i in np.random.default_rng(seed).permutation(len(listed)))
