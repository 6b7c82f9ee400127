"""The samplers `tpe`, `nsga2` and `optuna-gp`: Optuna's own, for those who know and trust them.

Optuna's samplers live in a study and remember. Here each proposal is made in a study of its own, in
memory, which is told everything first, in the order it was asked; so the answer depends on the
arguments alone. A configuration is what one would write for Optuna: a number from 0 to 1 for every
layer, the rank and the learning rate as positions in their lists, which keeps their order.

What is pending is told as running, which `tpe` and `optuna-gp` keep away from. What failed is told
as a trial that broke a constraint and has no values: `tpe` learns from it, the others pass it over.
None of the three excludes what was tried: a repeat is told as running and the sampler is asked
again, a few times; then a Sobol point is proposed, and its source says so. The first points are the
same design that the surrogates begin with, so Optuna's own random start is switched off.

References: Watanabe 2023 (TPE); Deb et al. 2002 (NSGA-II); Optuna 5.0, `samplers`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.design import Design
from search.pareto import Objective
from search.samplers import FEWEST_OBSERVATIONS, Observation, Proposal, all_taken, one_by_one
from search.space import MemoryConfig, SearchSpace

ATTEMPTS = 8  # at a configuration that was not tried
POPULATION = 20  # of a generation; Optuna's 50 would be most of a search

_MAKERS: Mapping[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: TPESampler(seed=seed, n_startup_trials=FEWEST_OBSERVATIONS),
    "nsga2": lambda seed: NSGAIISampler(seed=seed, population_size=POPULATION),
    "optuna-gp": lambda seed: GPSampler(seed=seed, n_startup_trials=FEWEST_OBSERVATIONS),
}


class OptunaSampler:
    """One of Optuna's samplers, asked afresh for every proposal."""

    def __init__(self, name: str, design: Design) -> None:
        """The sampler called `name`, after the points of a design."""
        self.name = name
        self.design = design

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
        """See `Sampler`; these know no reference point."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        coding = _Coding(space)

        def propose(waiting: Sequence[MemoryConfig]) -> Proposal | None:
            taken = all_taken(completed, waiting)
            if self.design.remaining(completed, waiting):
                return self.design.next(space, taken, seed, portfolio)
            asked = self._asked(coding, objectives, completed, waiting, seed)
            untried = (config for config in asked if config.layers and config not in taken)
            config = next(untried, None)
            return Proposal(config, self.name) if config else self.design.spare(space, taken, seed)

        return one_by_one(count, pending, propose)

    def _asked(
        self,
        coding: _Coding,
        objectives: Sequence[Objective],
        completed: Sequence[Observation],
        pending: Sequence[MemoryConfig],
        seed: int,
    ) -> Iterator[MemoryConfig]:
        """What Optuna proposes, the earlier answers running."""
        mixed = np.random.SeedSequence([seed, len(completed), len(pending)]).generate_state(1)[0]
        study = optuna.create_study(
            directions=["maximize" if o.maximise else "minimize" for o in objectives],
            sampler=_MAKERS[self.name](int(mixed)),
        )
        study.add_trials(_told(coding, completed, pending))
        for _ in range(ATTEMPTS):
            yield coding.config(study.ask(coding.distributions).params)


class _Coding:
    """A space in Optuna's words; what has one value only is left out."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        most = {f"layer_{layer}": int(space.search_layers) for layer in range(space.layer_count)}
        if not space.search_layers:
            most["count"] = space.max_count - 1 if space.search_number else 0
        most |= {"rank": len(space.ranks) - 1, "rate": len(space.learning_rates) - 1}
        self.distributions: dict[str, BaseDistribution] = {
            name: IntDistribution(0, high) for name, high in most.items() if high
        }

    def parameters(self, config: MemoryConfig) -> dict[str, int]:
        """A configuration of the space."""
        every = {f"layer_{layer}": 1 for layer in config.layers}
        every |= {
            "count": len(config.layers) - 1,
            "rank": self.space.ranks.index(config.rank),
            "rate": self.space.learning_rates.index(config.learning_rate),
        }
        return {name: every.get(name, 0) for name in self.distributions}

    def config(self, parameters: Mapping[str, int]) -> MemoryConfig:
        """The configuration that the parameters mean; the base where no layer is marked."""
        space, layers = self.space, range(self.space.layer_count)
        marked = [bool(parameters.get(f"layer_{layer}", 0)) for layer in layers]
        return space.canonical(
            marked,
            space.max_count if space.search_layers else parameters.get("count", 0) + 1,
            space.ranks[parameters.get("rank", 0)],
            space.learning_rates[parameters.get("rate", 0)],
        )


def _told(
    coding: _Coding, completed: Sequence[Observation], pending: Sequence[MemoryConfig]
) -> list[FrozenTrial]:
    """All that is known, as Optuna's trials; the base is none of them."""
    trials: list[FrozenTrial] = []
    for observation in completed:
        if observation.is_usable:
            number = sum(trial.state == TrialState.COMPLETE for trial in trials)
            # NOTE: where NSGA-II would have written it, had it made the proposal itself.
            generation = {NSGAIISampler._get_generation_key(): number // POPULATION}
            values = observation.values
            trials.append(_trial(coding, observation, values=values, system_attrs=generation))
        elif observation.config.layers:
            broken = {"failed": 1.0}
            trials.append(_trial(coding, observation, state=TrialState.PRUNED, constraints=broken))
    waiting = [Observation(config, None) for config in pending if config.layers]
    return trials + [_trial(coding, one, state=TrialState.RUNNING) for one in waiting]


def _trial(coding: _Coding, observation: Observation, **about: Any) -> FrozenTrial:
    return create_trial(
        params=coding.parameters(observation.config), distributions=coding.distributions, **about
    )
