"""Which untried configuration is worth most: expected hypervolume improvement, and its maximiser.

The acquisition function is qNEHVI (Daulton et al. 2021): the expected gain in hypervolume over what
was observed, noise integrated out, trials still running counted as if they had come back; or
qLogNEHVI (Ament et al. 2023), its logarithm, smoothed, which still tells candidates apart where the
gain itself is nought for all. Both are maximised: the minus sign in the paper's equation 4 is a
slip, as is its reference point of best-known values, which leaves nothing to gain.

It is maximised by local search on the lattice itself: climbers start from the best of a random pool
and of the front's neighbours, and walk to the best neighbour until none is better. Relaxing the
lattice to a cube and rounding leaves it, and scores less. What is taken is never looked at, so no
configuration is proposed twice.

Notation: n trials, d columns, m objectives.
"""

import warnings
from collections.abc import Callable, Collection, Sequence

import numpy as np
import torch
from botorch.acquisition.multi_objective import logei
from botorch.acquisition.multi_objective.monte_carlo import qNoisyExpectedHypervolumeImprovement
from botorch.exceptions.warnings import NumericsWarning
from botorch.sampling import SobolQMCNormalSampler
from numpy.typing import NDArray

from search.samplers import AcquisitionName
from search.space import MemoryConfig, SearchSpace
from search.surrogate import NUMERICAL_ERRORS, FitError, Surrogate, own_randomness

SAMPLES = 128  # of the posterior
CHUNK = 256  # candidates valued at once
POOL = 256  # random configurations that climbers may start from
CLIMBERS = 8
STEPS = 100  # a climb ends long before

# NOTE: botorch 0.18 compiles a C++ kernel at its first use. That takes half a minute and a
# compiler, proposals then depend on the machine, and a process killed meanwhile leaves a lock that
# others wait for without end. The kernel would save a third of a proposal's time.
logei._load_attempted = True

Array = NDArray[np.float64]
Value = Callable[[Sequence[MemoryConfig]], Array]


def expected_improvement(
    surrogate: Surrogate,
    X: Array,
    X_pending: Array,
    reference: Array,
    seed: int,
    kind: AcquisitionName = "qlognehvi",
) -> Callable[[Array], Array]:
    """The acquisition function, from `c x d` candidates to their `c` values.

    Args:
        surrogate: fitted to the observations at `X`.
        X: `n x d`, what was observed.
        X_pending: `p x d`, what is asked and not told.
        reference: `m`, where bigger is better, in the objectives' own scale.
        seed: of the posterior's samples.
        kind: qNEHVI, or its logarithm.
    """
    functions = {
        "qlognehvi": logei.qLogNoisyExpectedHypervolumeImprovement,
        "qnehvi": qNoisyExpectedHypervolumeImprovement,
    }
    with own_randomness(seed), warnings.catch_warnings():
        warnings.simplefilter("ignore", NumericsWarning)  # that qNEHVI is not its logarithm
        function = functions[kind](
            model=surrogate.model,
            ref_point=surrogate.standardised(reference),
            X_baseline=torch.as_tensor(X),
            sampler=SobolQMCNormalSampler(torch.Size([SAMPLES]), seed=seed),
            prune_baseline=True,
            X_pending=torch.as_tensor(X_pending) if len(X_pending) else None,
        )

    def values(candidates: Array) -> Array:
        chunks = torch.split(torch.as_tensor(candidates).unsqueeze(1), CHUNK)
        with torch.no_grad():
            found: Array = torch.cat([function(chunk) for chunk in chunks]).numpy()
        return np.nan_to_num(found, nan=-np.inf, neginf=-np.inf)

    return values


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
    kind: AcquisitionName = "qlognehvi",
) -> MemoryConfig | None:
    """The one configuration to try next, or None where the search finds nothing untaken.

    Raises:
        FitError: the surrogate gave no number.
    """
    try:
        improvement = expected_improvement(
            surrogate, features(observed), features(pending), reference, seed, kind
        )
        return local_search(
            lambda configs: improvement(features(configs)),
            space,
            taken,
            starts=front,
            generator=np.random.default_rng([seed, len(pending)]),
        )
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
