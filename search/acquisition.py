"""Which untried configuration is worth most: the expected improvement's maximiser.

It is found by local search on the lattice itself: climbers walk to the best neighbour until none is
better. Relaxing the lattice to a cube and rounding leaves it, and scores less. What is taken is
never looked at, so no configuration is proposed twice.

Late in a search there are many hills, most of them under a rank or with layers that the front does
not hold yet, and worse configurations lie between. A few climbers from the best of what is known
all climb the same one, and the search stays at one rank to its end. So there are many climbers,
some of each rank; the front's layers are tried under every rank and learning rate; and the highest
climb on by exchanging layers. All that is done on a screen: the same improvement over an eighth of
the draws. The best of it are then valued in full, and climb once more.

Notation: n trials, d columns, m objectives.
"""

import functools
import itertools
from collections.abc import Callable, Collection, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from search.improvement import expected_improvement
from search.space import MemoryConfig, SearchSpace
from search.surrogate import NUMERICAL_ERRORS, FitError, Surrogate

POOL = 256  # random configurations that climbers may start from
CLIMBERS = 40
OF_EACH_RANK = 8  # climbers, beside those
EXCHANGING = 10  # of those who are highest then, that go on by exchanging layers
SCREEN_DRAWS = 16
VALUED = 32  # in full, of the best on the screen
LAST_CLIMBERS = 4
STEPS = 100  # a climb ends long before

Array = NDArray[np.float64]
Value = Callable[[Sequence[MemoryConfig]], Array]
Near = Callable[[MemoryConfig], Sequence[MemoryConfig]]


def propose(
    surrogate: Surrogate,
    space: SearchSpace,
    features: Callable[[Sequence[MemoryConfig]], Array],
    observed: Sequence[MemoryConfig],
    pending: Sequence[MemoryConfig],
    taken: Collection[MemoryConfig],
    front: Sequence[MemoryConfig],
    reference: Array,
    seed: int,
) -> tuple[MemoryConfig, float] | None:
    """The one configuration to try next and what it is expected to gain, in the objectives' units.

    None where the search finds nothing untaken.

    Raises:
        FitError: the surrogate gave no number.
    """
    known = (surrogate, features(observed), features(pending), reference, seed)
    try:
        improvement = expected_improvement(*known)
        screen = expected_improvement(*known, draws=SCREEN_DRAWS)
        found = local_search(
            lambda configs: improvement(features(configs)),
            space,
            taken,
            starts=front,
            generator=np.random.default_rng([seed, len(pending)]),
            screen=lambda configs: screen(features(configs)),
        )
        if found is None:
            return None
        gain = float(improvement(features([found]))[0])
        return found, gain * float(surrogate.scale.prod())
    except NUMERICAL_ERRORS as error:
        raise FitError(f"acquisition: {error}") from error


def local_search(
    value: Value,
    space: SearchSpace,
    taken: Collection[MemoryConfig],
    *,
    starts: Sequence[MemoryConfig] = (),
    generator: np.random.Generator,
    screen: Value | None = None,
) -> MemoryConfig | None:
    """The best configuration found that is not taken.

    Args:
        value: of some configurations, the higher the better.
        space: where to search.
        taken: what may not be proposed.
        starts: configurations whose neighbours are worth a look, such as the front's.
        generator: draws the random pool.
        screen: much like `value`, and cheaper; `value` itself if not given.
    """
    seen = _Seen(screen or value, taken)
    seen.look(space.sample(generator) for _ in range(POOL))
    seen.look(near for start in starts for near in space.neighbours(start))
    seen.look(
        MemoryConfig(start.layers, rank, rate)
        for start in starts
        for rank in space.ranks
        for rate in space.learning_rates
    )
    order = seen.best()
    of_ranks = [[c for c in order if c.rank == rank][:OF_EACH_RANK] for rank in space.ranks]
    seen.climb([*order[:CLIMBERS], *itertools.chain(*of_ranks)], space.neighbours)
    seen.climb(seen.best()[:EXCHANGING], functools.partial(_near, space))
    valued = _Seen(value, taken)
    valued.look(seen.best()[:VALUED])
    valued.climb(valued.best()[:LAST_CLIMBERS], space.neighbours)
    return next(iter(valued.best()), None)


class _Seen:
    """What was looked at, with its values."""

    def __init__(self, value: Value, taken: Collection[MemoryConfig]) -> None:
        self._value, self._taken = value, taken
        self._values: dict[MemoryConfig, float] = {}

    def look(self, configs: Iterable[MemoryConfig]) -> None:
        """Values those that are neither taken nor known."""
        new = [c for c in dict.fromkeys(configs) if c not in self._taken and c not in self._values]
        if new:
            self._values.update(zip(new, self._value(new).tolist(), strict=True))

    def best(self) -> list[MemoryConfig]:
        """All of them, the highest first."""
        return sorted(self._values, key=self._values.__getitem__, reverse=True)

    def climb(self, climbers: Iterable[MemoryConfig], near: Near) -> None:
        """Each goes to the highest beside it, until none is higher."""
        climbers = list(dict.fromkeys(climbers))
        for _ in range(STEPS):
            around = [near(climber) for climber in climbers]
            self.look(itertools.chain(*around))
            pairs = zip(climbers, around, strict=True)
            higher = [(old, self._highest(nears, old)) for old, nears in pairs]
            climbers = list(
                dict.fromkeys(new for old, new in higher if self._values[new] > self._values[old])
            )
            if not climbers:
                break

    def _highest(self, configs: Iterable[MemoryConfig], otherwise: MemoryConfig) -> MemoryConfig:
        known = (config for config in configs if config in self._values)
        return max(known, key=self._values.__getitem__, default=otherwise)


def _near(space: SearchSpace, config: MemoryConfig) -> list[MemoryConfig]:
    """One step away, or with one layer in another's place."""
    exchanged = (
        MemoryConfig(layers, config.rank, config.learning_rate)
        for layers in space.sets.exchanges(config.layers)
    )
    return [*space.neighbours(config), *exchanged]
