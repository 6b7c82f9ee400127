"""Points that need no model: random and Sobol sequences, and the design that a search begins with.

`random` and `sobol` walk one fixed sequence of the seed's and propose the first points on it that
are not taken, so they are samplers themselves.

NOTE: torch is imported where Sobol points are drawn; who only lists names doesn't wait for it.
"""

import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from search.pareto import Objective
from search.samplers import (
    FEWEST_OBSERVATIONS,
    DesignName,
    Observation,
    Proposal,
    advised,
    all_taken,
)
from search.space import BASE_CONFIG, MemoryConfig, SearchSpace

LONGEST_WALK = 4096  # points of a sequence before what is left is listed instead
LONGEST_LIST = 100_000


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
        portfolio: Sequence[MemoryConfig] = (),
    ) -> list[Proposal]:
        """See `Sampler`; neither values nor reference point matter here."""
        taken = all_taken(completed, pending)
        first = list(itertools.islice(advised(portfolio, taken), count))
        taken.update(proposal.config for proposal in first)
        return [*first, *self.walk(space, taken, count - len(first), seed)]

    def walk(
        self, space: SearchSpace, taken: Collection[MemoryConfig], count: int, seed: int
    ) -> list[Proposal]:
        """The first `count` points that are not taken; fewer when the space runs out."""
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


class Design:
    """What is tried before a model proposes, and where it can't."""

    def __init__(self, name: DesignName, initial: int) -> None:
        """A design of `initial` points of the sequence called `name`."""
        self.initial = initial
        self._sequence = SequenceSampler(name)
        self._sobol = SequenceSampler("sobol")

    def remaining(self, completed: Sequence[Observation], pending: Sequence[MemoryConfig]) -> bool:
        """Whether the next proposal is the design's; it is while a model has nothing to learn."""
        usable = sum(observation.is_usable for observation in completed)
        asked = len(all_taken(completed, pending) - {BASE_CONFIG})
        return usable < FEWEST_OBSERVATIONS or asked < self.initial

    def next(
        self,
        space: SearchSpace,
        taken: Collection[MemoryConfig],
        seed: int,
        portfolio: Sequence[MemoryConfig] = (),
    ) -> Proposal | None:
        """What is advised, then the sequence's next point; None where the space has run out."""
        first = next(advised(portfolio, taken), None)
        return first or next(iter(self._sequence.walk(space, taken, 1, seed)), None)

    def points(self, space: SearchSpace, count: int, seed: int) -> list[MemoryConfig]:
        """The first points of the sequence."""
        return [proposal.config for proposal in self._sequence.walk(space, (), count, seed)]

    def spare(
        self, space: SearchSpace, taken: Collection[MemoryConfig], seed: int
    ) -> Proposal | None:
        """A Sobol point instead of a model's; None where the space has run out."""
        return next(iter(self._sobol.walk(space, taken, 1, seed)), None)


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


def _shuffled(configs: Iterable[MemoryConfig], seed: int) -> Iterator[MemoryConfig]:
    """Lists the configurations only when the first is asked for."""
    listed = list(configs)
    yield from (listed[i] for i in np.random.default_rng(seed).permutation(len(listed)))
