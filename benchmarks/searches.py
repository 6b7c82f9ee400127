"""Searches on problems that answer at once: one search, run as a study would, and kept as a file.

A search asks as `milpa search` does: the base first, then rounds of four that are proposed
together; the reference point is set after the initial design and never moves. What it keeps is the
true values of what was tried, in the order of asking, and the processor's seconds that asking took.
A search that is kept already is read, not run: so a comparison goes on where it was. What is kept
is of the code that made it: other code wants another folder.

It knows no particular problem: one has a space, a base, noisy observations, true values, the true
front and a corner from which hypervolume counts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from search.pareto import LOSS, ROUGE_L, front, hypervolume, reference_point
from search.samplers import Observation, Sampler, SamplerSettings, make_sampler
from search.space import BASE_CONFIG, MemoryConfig, SearchSpace

OBJECTIVES = (LOSS, ROUGE_L)
BATCH = 4

Array = NDArray[np.float64]


class Problem(Protocol):
    """One user, whose memories can be measured at once."""

    @property
    def name(self) -> str:
        """Of a folder that its searches are kept in."""

    @property
    def space(self) -> SearchSpace:
        """Where to search."""

    @property
    def base(self) -> tuple[float, ...]:
        """Loss and ROUGE-L of the base itself."""

    @property
    def front(self) -> Array:
        """`k x 2` true values that no configuration's dominate."""

    @property
    def corner(self) -> tuple[float, ...]:
        """Where hypervolume counts from."""

    def true(self, configs: Sequence[MemoryConfig]) -> Array:
        """`n x 2` loss and ROUGE-L without noise."""

    def observe(self, config: MemoryConfig) -> tuple[float, ...]:
        """Loss and ROUGE-L as a trial would measure them; the same at every call."""


@dataclass(frozen=True)
class Contender:
    """Who searches: a sampler, its budget, and what else it is given."""

    name: str
    settings: SamplerSettings
    trials: int = 200
    learning_rate: float | None = None
    portfolio: tuple[MemoryConfig, ...] = ()

    def sampler(self) -> Sampler:
        """Who proposes."""
        return make_sampler(self.settings)

    def space(self, problem: Problem) -> SearchSpace:
        """The problem's, or the part of it at the fixed learning rate."""
        if self.learning_rate is None or not problem.space.search_learning_rate:
            return problem.space
        return replace(problem.space, learning_rates=(self.learning_rate,))


@dataclass(frozen=True)
class Trace:
    """What a search tried, in the order of asking, the base left out."""

    problem: str
    contender: str
    seed: int
    configs: list[dict[str, Any]]
    observed: list[list[float]]
    true: list[list[float]]
    ask_seconds: list[float]  # of the processor, for each trial
    sources: list[str]  # who proposed each: a sampler may have had to ask another

    def volumes(self, problem: Problem) -> Array:
        """The share of the true front's hypervolume after the first trial, the first two, ..."""
        whole = hypervolume(OBJECTIVES, problem.front.tolist(), problem.corner)
        shares, best = [], list[list[float]]()
        for values in self.true:
            best.append(values)
            best = [best[i] for i in front(OBJECTIVES, best)]
            shares.append(hypervolume(OBJECTIVES, best, problem.corner) / whole)
        return np.array(shares)


def kept_file(problem: Problem, contender: Contender, seed: int, folder: Path) -> Path:
    """Where a search is kept."""
    return folder / problem.name / f"{contender.name}-{contender.trials}-seed{seed}.json"


def searched(problem: Problem, contender: Contender, seed: int, folder: Path) -> Trace:
    """The search of one contender on one problem, read where it was kept, run where not."""
    file = kept_file(problem, contender, seed, folder)
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        aside = file.with_suffix(".part")
        aside.write_text(json.dumps(asdict(_search(problem, contender, seed))))
        aside.replace(file)
    return Trace(**json.loads(file.read_text()))


def _search(problem: Problem, contender: Contender, seed: int) -> Trace:
    sampler, space = contender.sampler(), contender.space(problem)
    done = [Observation(BASE_CONFIG, problem.base)]
    seconds, sources = list[float](), list[str]()
    reference: tuple[float, ...] | None = None
    while len(done) <= contender.trials:
        rows = [o.values for o in done[1:] if o.values is not None]
        if reference is None and len(rows) >= max(2, contender.settings.initial):
            reference = reference_point(OBJECTIVES, rows, problem.base)
        count = min(BATCH, contender.trials + 1 - len(done))
        began = time.process_time()
        found = sampler.suggest(
            space, OBJECTIVES, done, [], count, seed, reference, contender.portfolio
        )
        seconds += [(time.process_time() - began) / max(1, len(found))] * len(found)
        if not found:
            break
        sources += [proposal.source for proposal in found]
        done += [Observation(p.config, problem.observe(p.config)) for p in found]
    configs = [observation.config for observation in done[1:]]
    return Trace(
        problem.name,
        contender.name,
        seed,
        [config.to_json() for config in configs],
        [list(o.values or ()) for o in done[1:]],
        problem.true(configs).tolist(),
        seconds,
        sources,
    )
