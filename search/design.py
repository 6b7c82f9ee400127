"""Points that need no model: random and Sobol sequences, and the design that a search begins with.

`random` and `sobol` walk one fixed sequence of the seed's and propose the first points on it that
are not taken, so they are samplers themselves.

A short design of Sobol points begins with the memory that one would train without a search:
whatever few trials find is then no worse than that. A full one doesn't: where there are trials
enough to look around, a good beginning kept searches of made-up users near it
(`benchmarks/RESULTS.md`).

NOTE: torch is imported where Sobol points are drawn; who only lists names doesn't wait for it.
"""

import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from search.pareto import Objective
from search.samplers import (
    FEWEST_OBSERVATIONS,
    FULL_DESIGN,
    DesignName,
    Observation,
    Proposal,
    advised,
    all_taken,
)
from search.space import BASE_CONFIG, MemoryConfig, SearchSpace

LONGEST_WALK = 4096  # points of a sequence before what is left is listed instead
LONGEST_LIST = 100_000
DEFAULT = "default"  # the source of the memory that needs no search
DEFAULT_LEARNING_RATE = 1e-3


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
        self.begins_with_default = name == "sobol" and initial < FULL_DESIGN
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
        """What is advised, then the default, then the sequence's next point.

        None where the space has run out.
        """
        return next(self._untaken(space, taken, 1, seed, portfolio), None)

    def points(self, space: SearchSpace, count: int, seed: int) -> list[MemoryConfig]:
        """The first points of a design that nothing is advised for."""
        found = itertools.islice(self._untaken(space, (), count, seed), count)
        return [proposal.config for proposal in found]

    def spare(
        self, space: SearchSpace, taken: Collection[MemoryConfig], seed: int
    ) -> Proposal | None:
        """A Sobol point instead of a model's; None where the space has run out."""
        return next(iter(self._sobol.walk(space, taken, 1, seed)), None)

    def _untaken(
        self,
        space: SearchSpace,
        taken: Collection[MemoryConfig],
        count: int,
        seed: int,
        portfolio: Sequence[MemoryConfig] = (),
    ) -> Iterator[Proposal]:
        """The design's points that are not taken, `count` of its sequence among them."""
        first = [Proposal(default_memory(space), DEFAULT)] if self.begins_with_default else []
        skip = set(taken)
        for proposal in itertools.chain(advised(portfolio, taken), first):
            if proposal.config not in skip:
                skip.add(proposal.config)
                yield proposal
        yield from self._sequence.walk(space, skip, count, seed)


def default_memory(space: SearchSpace) -> MemoryConfig:
    """What one would train without a search: every layer, a middle rank, a usual learning rate."""
    rates = space.learning_rates
    rate = min(rates, key=lambda known: abs(math.log(known / DEFAULT_LEARNING_RATE)))
    rank = space.ranks[len(space.ranks) // 2]
    return space.canonical([True] * space.layer_count, space.max_count, rank, rate)


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
