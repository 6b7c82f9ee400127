"""The samplers `gp`, `map-saas` and `saas`: fit a surrogate, try what it promises most of.

First they propose the points of a design. Then each proposal maximises the expected hypervolume
improvement under a surrogate of the completed trials, those pending counted in. A fit that fails is
tried once more under another seed; then the proposal is a Sobol point, and its source says so.

The reference point should be the study's own, fixed one; without it the corner is worked out from
what was completed, and drifts.
"""

import functools
import logging
from collections.abc import Sequence

import numpy as np

from search import surrogate
from search.acquisition import propose
from search.design import Design
from search.pareto import Objective, Values, front, hypervolume, oriented, reference_point
from search.samplers import Observation, Proposal, all_taken, one_by_one
from search.space import BASE_CONFIG, MemoryConfig, SearchSpace

ATTEMPTS = 2
AFTER_FAILURE = "sobol after a failed fit"

_logger = logging.getLogger(__name__)


class SurrogateSampler:
    """Proposes what a surrogate of the completed trials promises most of."""

    def __init__(
        self,
        name: str,
        design: Design,
        fit: surrogate.Fit = surrogate.fit,
    ) -> None:
        """A sampler on the surrogate called `name`.

        Args:
            name: one of `surrogate.NAMES`.
            design: proposes the first configurations.
            fit: how to fit.
        """
        self.name = name
        self.design = design
        self.fit = fit

    def suggest(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        completed: Sequence[Observation],
        pending: Sequence[MemoryConfig],
        count: int,
        seed: int,
        reference: Values | None = None,
        portfolio: Sequence[MemoryConfig] = (),
    ) -> list[Proposal]:
        """See `Sampler`.

        Raises:
            ValueError: fewer than two objectives.
        """
        if len(objectives) < 2:
            raise ValueError(f"expected two objectives or more for {self.name}, got {objectives}")
        grounds = functools.cache(
            lambda: _Grounds(self, space, objectives, completed, seed, reference)
        )

        def propose_one(waiting: Sequence[MemoryConfig]) -> Proposal | None:
            taken = all_taken(completed, waiting)
            if self.design.remaining(completed, waiting):
                return self.design.next(space, taken, seed, portfolio)
            found = grounds().best(waiting, taken)
            if isinstance(found, Proposal):
                return found
            spare = self.design.spare(space, taken, seed)
            return Proposal(spare.config, found) if spare else None

        return one_by_one(count, pending, propose_one)


class _Grounds:
    """What one call's proposals rest on; each surrogate is fitted once."""

    def __init__(
        self,
        sampler: SurrogateSampler,
        space: SearchSpace,
        objectives: Sequence[Objective],
        completed: Sequence[Observation],
        seed: int,
        reference: Values | None,
    ) -> None:
        name = sampler.name
        usable = [observation for observation in completed if observation.is_usable]
        rows = [observation.values for observation in usable if observation.values is not None]
        corner = reference or _provisional(objectives, completed, rows)
        self.name = name
        self.space = space
        self.features = functools.partial(space.features, derived=name == "gp")
        self.observed = [observation.config for observation in usable]
        self.front = [self.observed[i] for i in front(objectives, rows)]
        self.reference = oriented(objectives, [corner])[0]
        self.volume = hypervolume(objectives, rows, corner)
        self.seeds = [_mixed(seed, len(usable), attempt) for attempt in range(ATTEMPTS)]
        X, Y = self.features(self.observed), oriented(objectives, rows)
        layers = space.layer_count if space.search_layers else 0
        fit = functools.partial(sampler.fit, name, X, Y, layers=layers)
        self.fitted = functools.cache(fit)

    def best(self, pending: Sequence[MemoryConfig], taken: set[MemoryConfig]) -> Proposal | str:
        """The most promising configuration, or the source of the Sobol point that must do."""
        for seed in self.seeds:
            try:
                found = propose(
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
                if found is None:
                    return "sobol"
                config, gain = found
                return Proposal(config, self.name, gain / (self.volume + gain) if gain > 0 else 0.0)
        return AFTER_FAILURE


def _provisional(
    objectives: Sequence[Objective], completed: Sequence[Observation], rows: Sequence[Values]
) -> tuple[float, ...]:
    bases = [o.values for o in completed if o.config == BASE_CONFIG]
    return reference_point(objectives, rows, bases[0] if bases else None)


def _mixed(*numbers: int) -> int:
    """One seed of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
