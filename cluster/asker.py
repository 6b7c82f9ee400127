"""The actor that proposes: one sampler, called for one user's study after another.

It knows no storage: a sampler is a pure function of what it is given, so an asker that dies is
started again by Ray and asked the same once more. Surrogates are fitted here, beside other users'
training, on one thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray

from search.pareto import Objective
from search.samplers import Evidence, Observation, Proposal, SamplerSettings, make_sampler
from search.space import MemoryConfig, SearchSpace

_FEWEST, _SLOTS = 4, 16  # askers where there are cores for them; slots of one asker beyond that


class Asker:
    """One sampler in a process of its own."""

    def __init__(self, settings: SamplerSettings) -> None:
        self._settings = settings
        self._sampler = make_sampler(settings)

    def suggest(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        completed: Sequence[Observation],
        pending: Sequence[MemoryConfig],
        count: int,
        seed: int,
        reference: Sequence[float] | None,
        portfolio: Sequence[MemoryConfig] = (),
    ) -> list[Proposal]:
        """See `search.samplers.Sampler.suggest`."""
        return self._sampler.suggest(
            space, objectives, completed, pending, count, seed, reference, portfolio
        )

    def advise(
        self, space: SearchSpace, objectives: Sequence[Objective], others: Sequence[Evidence]
    ) -> tuple[MemoryConfig, ...]:
        """See `search.transfer.portfolio`."""
        from search.design import Design
        from search.transfer import portfolio

        design = Design(self._settings.design, self._settings.initial)
        return portfolio(space, objectives, others, design)


def asker_count(cores: int, slots: int) -> int:
    """How many askers so many slots need: four, or one for each GPU's, on a quarter of the cores.

    A proposal takes about a core's second, and a GPU ends a trial or two in that time.
    """
    return max(1, min(cores // 4, max(_FEWEST, slots // _SLOTS)))


def start_askers(count: int, settings: SamplerSettings) -> list[Any]:
    """So many askers, each on one thread, on all machines; Ray starts one again that dies."""
    actor = ray.remote(Asker).options(
        num_cpus=0,
        scheduling_strategy="SPREAD",
        max_restarts=-1,
        max_task_retries=-1,
    )
    return [actor.remote(settings) for _ in range(count)]
