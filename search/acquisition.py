"""Which untried configuration is worth most: the expected improvement's maximiser.

It is found by local search on the lattice itself: climbers start from the best of a random pool and
of the front's neighbours, and walk to the best neighbour until none is better. Relaxing the lattice
to a cube and rounding leaves it, and scores less. What is taken is never looked at, so no
configuration is proposed twice.

Notation: n trials, d columns, m objectives.
"""

from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from search.improvement import expected_improvement
from search.space import MemoryConfig, SearchSpace
from search.surrogate import NUMERICAL_ERRORS, FitError, Surrogate

POOL = 256  # random configurations that climbers may start from
CLIMBERS = 8
STEPS = 100  # a climb ends long before

Array = NDArray[np.float64]
Value = Callable[[Sequence[MemoryConfig]], Array]


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
    try:
        improvement = expected_improvement(
            surrogate, features(observed), features(pending), reference, seed
        )
        found = local_search(
            lambda configs: improvement(features(configs)),
            space,
            taken,
            starts=front,
            generator=np.random.default_rng([seed, len(pending)]),
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
) -> MemoryConfig | None:
    """The best configuration found that is not taken.

    Args:
        value: of some configurations, the higher the better.
        space: where to search.
        taken: what may not be proposed.
        starts: configurations whose neighbours are worth a look, such as the front's.
        generator: draws the random pool.
    """
    seen: dict[MemoryConfig, float] = {}

    def look(configs: Sequence[MemoryConfig]) -> None:
        new = [c for c in dict.fromkeys(configs) if c not in taken and c not in seen]
        if new:
            seen.update(zip(new, value(new).tolist(), strict=True))

    pool = [space.sample(generator) for _ in range(POOL)]
    look(pool + [near for start in starts for near in space.neighbours(start)])
    climbers = sorted(seen, key=seen.__getitem__, reverse=True)[:CLIMBERS]
    for _ in range(STEPS):
        around = [space.neighbours(climber) for climber in climbers]
        look([near for nears in around for near in nears])
        higher = [
            max((near for near in nears if near in seen), key=seen.__getitem__, default=climber)
            for climber, nears in zip(climbers, around, strict=True)
        ]
        moves = zip(climbers, higher, strict=True)
        climbers = list(dict.fromkeys(new for old, new in moves if seen[new] > seen[old]))
        if not climbers:
            break
    return max(seen, key=seen.__getitem__, default=None)
