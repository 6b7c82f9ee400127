"""Searches on recorded trials, stopped early or not, in milliseconds.

A search sees of each trial what it would see while it trains, epoch by epoch, and knows the results
of trials that began at least four trials before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.recorded_problem import Record, Table
from search.pareto import LOSS, ROUGE_L, Candidate, front, hypervolume, winner
from search.samplers import Observation, SamplerSettings, initial_count, make_sampler
from search.space import BASE_CONFIG, MemoryConfig, SearchSpace
from search.stopping import Checkpoint, Ended, StoppingRule

OBJECTIVES = (LOSS, ROUGE_L)
PENDING = 4  # trials of a user that are under way at once
ITEMS = 32  # answered in a recording

Array = NDArray[np.float64]
Order = Callable[[Sequence[Observation]], "Trial | None"]


@dataclass(frozen=True)
class Trial:
    """One recorded trial."""

    configuration: MemoryConfig
    ended: Ended

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole training."""
        return self.ended.curve[-1].steps


@dataclass(frozen=True)
class Pool:
    """All that is recorded of one user: the base's own values, and trials."""

    base: tuple[float, float]
    trials: tuple[Trial, ...]
    # Standard deviations of loss and ROUGE-L between trainings of the same memory, where recorded.
    noise: tuple[float, float] | None = None

    @cached_property
    def corner(self) -> tuple[float, float]:
        """The worst of all, objective by objective."""
        ends = [trial.ended for trial in self.trials]
        return max(e.loss_nats for e in ends), min(e.rouge_l for e in ends)

    @cached_property
    def _whole(self) -> float:
        return hypervolume(OBJECTIVES, [values_of(t) for t in self.trials], self.corner)

    def volume(self, rows: Sequence[Sequence[float]]) -> float:
        """What some values dominate, as a share of what all trials do."""
        return hypervolume(OBJECTIVES, rows, self.corner) / self._whole

    def best(self, trials: Sequence[Trial]) -> list[Trial]:
        """Those on the front of these."""
        return [trials[i] for i in front(OBJECTIVES, [values_of(t) for t in trials])]

    def shaken(self, trials: Sequence[Trial], seed: int) -> list[tuple[float, float]]:
        """Values that the same trainings might have had; needs noise."""
        spread = np.array(self.noise or (np.nan, np.nan))
        drawn = np.random.default_rng([seed, 1]).standard_normal((len(trials), 2)) * spread
        return [
            (x + dx, y + dy)
            for (x, y), (dx, dy) in zip(map(values_of, trials), drawn.tolist(), strict=True)
        ]

    def winner(self, trials: Sequence[Trial]) -> tuple[float, float]:
        """Loss and ROUGE-L of the one that would be published; the base's where none is better."""
        best = self.best(trials)
        candidates = [Candidate(*values_of(t), parameters=_size(t.configuration)) for t in best]
        place = winner(candidates, self.base[0], ITEMS)
        return self.base if place is None else values_of(best[place])

    def half(self, name: str) -> Pool:
        """The trials of one half, `tune` or `report`; of both, `all`."""
        chosen = [t for t in self.trials if name in ("all", _half_of(t.configuration))]
        return replace(self, trials=tuple(chosen))

    def foreseen(self) -> Pool:
        """The same, but each curve tells at its first checkpoint what loss the trial ends with."""
        return replace(self, trials=tuple(_foreseen(trial) for trial in self.trials))


class Begun(NamedTuple):
    """A trial of a search: the steps spent on it, and whether it was stopped before its end."""

    trial: Trial
    steps: int
    is_stopped: bool


@dataclass(frozen=True)
class Searched:
    """A search's trials, in the order they were begun."""

    begun: tuple[Begun, ...]

    @property
    def completed(self) -> list[Trial]:
        """Those that ran to their end."""
        return [one.trial for one in self.begun if not one.is_stopped]

    @property
    def stopped(self) -> int:
        """How many did not."""
        return len(self.begun) - len(self.completed)

    @property
    def steps(self) -> int:
        """Spent on all."""
        return sum(one.steps for one in self.begun)

    def first(self, trials: int) -> Searched:
        """The search, had it ended with so many trials."""
        return Searched(self.begun[:trials])

    def within(self, steps: int) -> Searched:
        """The search, had it spent no more steps than those."""
        spent = accumulate(one.steps for one in self.begun)
        return Searched(tuple(o for o, n in zip(self.begun, spent, strict=True) if n <= steps))


def values_of(trial: Trial) -> tuple[float, float]:
    """Loss and ROUGE-L."""
    return trial.ended.loss_nats, trial.ended.rouge_l


def pools(folders: Sequence[tuple[float, Sequence[Record]]]) -> dict[str, Pool]:
    """What was recorded of each user, over learning rates; trials that failed are left out."""
    found: dict[str, Pool] = {}
    for user in {record.user for _, records in folders for record in records}:
        base, trials, noise = None, list[Trial](), None
        for rate, records in folders:
            whole = [r for r in records if r.user == user and r.loss < np.inf]
            if noise is None and any(r.repeat for r in whole):
                noise = Table(rate, tuple(whole)).noise()
            first = [r for r in whole if r.repeat == 0]
            per_epoch = _steps_per_epoch(first)
            base = next(((r.loss, r.rouge_l) for r in first if not r.layers), base)
            trials += [_trial(r, rate, per_epoch) for r in first if r.layers]
        if base is not None:
            found[user] = Pool(base, tuple(trials), noise)
    return found


def search(
    pool: Pool, order: Order, rule: StoppingRule | None, trials: int = 0, steps: int = 0
) -> Searched:
    """One search, until so many trials were begun and so many steps were spent."""
    seen = [Observation(BASE_CONFIG, pool.base)]
    begun: list[Begun] = []
    while len(begun) < trials or sum(one.steps for one in begun) < steps:
        trial = order(seen)
        if trial is None:
            break
        known = [one.trial.ended for one in begun[: 1 - PENDING] if not one.is_stopped]
        at = None if rule is None else _stopped_at(rule, pool.base[0], known, trial)
        begun.append(Begun(trial, at.steps if at else trial.steps, at is not None))
        seen.append(Observation(trial.configuration, None if at else values_of(trial)))
    return Searched(tuple(begun))


def in_random_order(pool: Pool, seed: int) -> Order:
    """The pool's trials in an order that the seed decides."""
    drawn = np.random.default_rng(seed).permutation(len(pool.trials)).tolist()
    return lambda seen: pool.trials[drawn[len(seen) - 1]] if len(seen) <= len(drawn) else None


def by_sampler(pool: Pool, name: str, seed: int, trials: int) -> Order:
    """A design in random order, then what a sampler proposes; only what is recorded is offered."""
    here = {trial.configuration: trial for trial in pool.trials}
    layers = 1 + max(config.layers[-1] for config in here)
    ranks, rates = ({getattr(c, n) for c in here} for n in ("rank", "learning_rate"))
    space = SearchSpace(layers, tuple(sorted(ranks)), tuple(sorted(rates)))
    missing = [Observation(c, None) for c in space.enumerate() if c not in here]
    sampler, initial = make_sampler(SamplerSettings(name, 0)), initial_count(trials)
    design = in_random_order(pool, seed)

    def order(seen: Sequence[Observation]) -> Trial | None:
        if len(seen) <= initial:
            return design(seen)
        late = max(1, len(seen) + 1 - PENDING)
        pending = [one.config for one in seen[late:]]
        told = [*seen[:late], *missing]
        found = sampler.suggest(space, OBJECTIVES, told, pending, 1, seed, pool.corner)
        return here[found[0].config] if found else None

    return order


def _stopped_at(
    rule: StoppingRule, base_loss: float, known: Sequence[Ended], trial: Trial
) -> Checkpoint | None:
    """The checkpoint that the rule stops a trial at; None where it runs to its end.

    At the last one it has ended: only its answers would be saved, and it would not be full.
    """
    curve = trial.ended.curve
    for n in range(1, len(curve)):
        if rule.reason(base_loss, known, curve[:n]):
            return curve[n - 1]
    return None


def _trial(record: Record, rate: float, per_epoch: tuple[int, int]) -> Trial:
    curve, steps = [], 0
    stages = (("injection", record.injection), ("tuning", record.tuning))
    for (stage, losses), each in zip(stages, per_epoch, strict=True):
        for epoch, loss in enumerate(losses):
            steps += each
            curve.append(Checkpoint(stage, epoch + 1, steps, loss))
    return Trial(record.configuration(rate), Ended(record.loss, record.rouge_l, curve))


def _foreseen(trial: Trial) -> Trial:
    end = trial.ended
    curve = [point._replace(loss_nats=end.loss_nats) for point in end.curve]
    return replace(trial, ended=replace(end, curve=curve))


def _steps_per_epoch(records: Sequence[Record]) -> tuple[int, int]:
    """Of injection and of tuning: what explains the steps of all records of a user."""
    trained = [r for r in records if r.layers and r.loss < np.inf]
    epochs = np.array([(len(r.injection), len(r.tuning)) for r in trained])
    steps = np.array([r.steps for r in trained])
    each = np.rint(np.linalg.lstsq(epochs, steps, rcond=None)[0]).astype(int)
    if (epochs @ each != steps).any():
        raise ValueError("expected the same steps in each epoch of a stage, got others")
    return int(each[0]), int(each[1])


def _size(configuration: MemoryConfig) -> int:
    """Grows as the parameters do."""
    return len(configuration.layers) * configuration.rank


def _half_of(configuration: MemoryConfig) -> str:
    odd = hashlib.sha256(configuration.key.encode()).digest()[0] % 2
    return "report" if odd else "tune"
