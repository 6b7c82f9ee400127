"""The samplers `gp` and `map-saas`: fit a surrogate to what came back, try what promises most.

Until `initial` configurations were asked they propose Sobol points. Then each proposal maximises
the expected hypervolume improvement under a surrogate of the completed trials, those pending
counted in. A fit that fails is tried once more under another seed; then the proposal is a Sobol
point, and its source says so.

The reference point should be the study's own, fixed one; without it the corner is worked out from
what was completed, and drifts.
"""

import functools
import logging
from collections.abc import Sequence

import numpy as np

from search import surrogate
from search.acquisition import propose
from search.pareto import Objective, Values, front, oriented, reference_point
from search.samplers import Observation, Proposal, SequenceSampler, all_taken
from search.space import BASE_CONFIG, MemoryConfig, SearchSpace

FEWEST_OBSERVATIONS = 2  # that a surrogate is fitted to
ATTEMPTS = 2
AFTER_FAILURE = "sobol after a failed fit"

_logger = logging.getLogger(__name__)


class SurrogateSampler:
    """Proposes what a surrogate of the completed trials promises most of."""

    def __init__(self, name: str, initial: int, fit: surrogate.Fit = surrogate.fit) -> None:
        """A sampler on the surrogate called `name`.

        Args:
            name: "gp" or "map-saas".
            initial: how many configurations the Sobol sequence proposes first.
            fit: how to fit.
        """
        self.name = name
        self.initial = initial
        self.fit = fit
        self._sobol = SequenceSampler("sobol")

    def suggest(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        completed: Sequence[Observation],
        pending: Sequence[MemoryConfig],
        count: int,
        seed: int,
        reference: Values | None = None,
    ) -> list[Proposal]:
        """See `Sampler`.

        Raises:
            ValueError: fewer than two objectives.
        """
        if len(objectives) < 2:
            raise ValueError(f"expected two objectives or more for {self.name}, got {objectives}")
        usable = [observation for observation in completed if observation.is_usable]
        asked = len(all_taken(completed, pending) - {BASE_CONFIG})
        drawn = count if len(usable) < FEWEST_OBSERVATIONS else max(0, self.initial - asked)
        found = self._sobol.suggest(space, objectives, completed, pending, min(count, drawn), seed)
        if drawn >= count:
            return found
        corner = reference or _provisional(objectives, completed, usable)
        grounds = _Grounds(self.name, self.fit, space, objectives, usable, corner, seed)
        while len(found) < count:
            waiting = [*pending, *(proposal.config for proposal in found)]
            taken = all_taken(completed, waiting)
            config, source = grounds.best(waiting, taken)
            if config is None:
                rest = self._sobol.suggest(space, objectives, completed, waiting, 1, seed)
                if not rest:
                    break
                config = rest[0].config
            found.append(Proposal(config, source))
        return found


class _Grounds:
    """What one call's proposals rest on; each surrogate is fitted once."""

    def __init__(
        self,
        name: str,
        fit: surrogate.Fit,
        space: SearchSpace,
        objectives: Sequence[Objective],
        usable: Sequence[Observation],
        reference: Values,
        seed: int,
    ) -> None:
        rows = [observation.values for observation in usable if observation.values is not None]
        self.name = name
        self.space = space
        self.features = functools.partial(space.features, derived=name == "gp")
        self.observed = [observation.config for observation in usable]
        self.front = [self.observed[i] for i in front(objectives, rows)]
        self.reference = oriented(objectives, [reference])[0]
        self.seeds = [_mixed(seed, len(usable), attempt) for attempt in range(ATTEMPTS)]
        self.fitted = functools.cache(
            functools.partial(fit, name, self.features(self.observed), oriented(objectives, rows))
        )

    def best(
        self, pending: Sequence[MemoryConfig], taken: set[MemoryConfig]
    ) -> tuple[MemoryConfig | None, str]:
        """The most promising configuration, or None where a Sobol point must do, and the source."""
        for seed in self.seeds:
            try:
                config = propose(
                    self.fitted(seed),
                    self.space,
                    self.features,
                    observed=self.observed,
                    pending=pending,
                    taken=taken,
                    front=self.front,
                    reference=self.reference,
                    seed=seed,
                )
            except surrogate.FitError as error:
                _logger.warning("%s; a Sobol point after %d failures", error, ATTEMPTS)
            else:
                return config, self.name if config else "sobol"
        return None, AFTER_FAILURE


def _provisional(
    objectives: Sequence[Objective], completed: Sequence[Observation], usable: Sequence[Observation]
) -> tuple[float, ...]:
    rows = [observation.values for observation in usable if observation.values is not None]
    bases = [o.values for o in completed if o.config == BASE_CONFIG]
    return reference_point(objectives, rows, bases[0] if bases else None)


def _mixed(*numbers: int) -> int:
    """One seed of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
