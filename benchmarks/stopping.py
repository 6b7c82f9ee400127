"""What stopping early saves and costs, on recorded trials: `search/stopping.py` replayed.

    python -m benchmarks.stopping --records FOLDER [FOLDER ...] [--trials 24] [--seeds 200]
        [--sampler random] [--half report] [--fewest 5] [--errors 2] [--chance 0.5]

Each folder is one of `benchmarks.record`, at a learning rate of its own, finished or not; together
they are what a search may try. A search is run once to the end of every trial, and once with the
rule; the rule sees of each trial what it would see inside a search, epoch by epoch, and knows the
results of trials that began at least four trials before. Printed: optimiser steps saved; the
hypervolume of what ran to its end, from the worst of all that is recorded, as a share of what all
of the half dominates; what became of the winner; and the hypervolume where the search with the rule
goes on until it has spent the steps of the one without.

Recorded trials are cut in two by a digest of their configuration: choose a rule's settings on the
half called `tune`, and report the other.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.record import kept
from benchmarks.recorded_problem import Record
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

    @property
    def corner(self) -> tuple[float, float]:
        """The worst of all, objective by objective."""
        ends = [trial.ended for trial in self.trials]
        return max(e.loss_nats for e in ends), min(e.rouge_l for e in ends)

    def volume(self, trials: Sequence[Trial]) -> float:
        """What some of the trials dominate, as a share of what all of them do."""
        some, every = (
            hypervolume(OBJECTIVES, [values_of(t) for t in ts], self.corner)
            for ts in (trials, self.trials)
        )
        return some / every

    def winner(self, trials: Sequence[Trial]) -> tuple[float, float]:
        """Loss and ROUGE-L of the one that would be published; the base's where none is better."""
        best = [trials[i] for i in front(OBJECTIVES, [values_of(t) for t in trials])]
        candidates = [Candidate(*values_of(t), parameters=_size(t.configuration)) for t in best]
        place = winner(candidates, self.base[0], ITEMS)
        return self.base if place is None else values_of(best[place])

    def half(self, name: str) -> Pool:
        """The trials of one half, `tune` or `report`; of both, `all`."""
        chosen = [t for t in self.trials if name in ("all", _half_of(t.configuration))]
        return Pool(self.base, tuple(chosen))


@dataclass(frozen=True)
class Searched:
    """A search's trials: those that ran to their end, how many did not, and the steps of all."""

    completed: tuple[Trial, ...]
    stopped: int
    steps: int


def values_of(trial: Trial) -> tuple[float, float]:
    """Loss and ROUGE-L."""
    return trial.ended.loss_nats, trial.ended.rouge_l


def pools(folders: Sequence[tuple[float, Sequence[Record]]]) -> dict[str, Pool]:
    """What was recorded of each user, over learning rates; trials that failed are left out."""
    found: dict[str, Pool] = {}
    for user in {record.user for _, records in folders for record in records}:
        base, trials = None, list[Trial]()
        for rate, records in folders:
            first = [r for r in records if r.user == user and r.repeat == 0]
            per_epoch = _steps_per_epoch(first)
            base = next(((r.loss, r.rouge_l) for r in first if not r.layers), base)
            trials += [_trial(r, rate, per_epoch) for r in first if r.layers and r.loss < np.inf]
        if base is not None:
            found[user] = Pool(base, tuple(trials))
    return found


def search(
    pool: Pool,
    order: Order,
    rule: StoppingRule | None,
    trials: int | None = None,
    steps: int | None = None,
) -> Searched:
    """One search, until so many trials were begun or so many steps were spent."""
    seen = [Observation(BASE_CONFIG, pool.base)]
    begun: list[tuple[Trial, bool]] = []
    spent = 0
    while (trials is None or len(begun) < trials) and (steps is None or spent < steps):
        trial = order(seen)
        if trial is None:
            break
        known = [t.ended for t, is_stopped in begun[: 1 - PENDING] if not is_stopped]
        at = None if rule is None else _stopped_at(rule, pool.base[0], known, trial)
        spent += trial.steps if at is None else at.steps
        begun.append((trial, at is not None))
        seen.append(Observation(trial.configuration, None if at else values_of(trial)))
    completed = tuple(trial for trial, is_stopped in begun if not is_stopped)
    return Searched(completed, len(begun) - len(completed), spent)


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
        found = sampler.suggest(space, OBJECTIVES, [*seen, *missing], [], 1, seed, pool.corner)
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


def compared(pool: Pool, order: Callable[[int], Order], rule: StoppingRule, given: Settings) -> str:
    """A line of the table: means over seeds, with and without the rule."""
    rows = []
    for seed in range(given.seeds):
        whole = search(pool, order(seed), None, trials=given.trials)
        some = search(pool, order(seed), rule, trials=given.trials)
        as_long = search(pool, order(seed), rule, steps=whole.steps)
        (loss, rouge_l), (loss_now, rouge_l_now) = (
            pool.winner(found.completed) for found in (whole, some)
        )
        volumes = [pool.volume(found.completed) for found in (whole, some, as_long)]
        saved, stopped = 1 - some.steps / whole.steps, some.stopped / given.trials
        rows.append((saved, stopped, *volumes, loss_now - loss, rouge_l_now - rouge_l))
    found = np.array(rows)
    saved, stopped, volume, now, as_long_now, loss, rouge_l = found.mean(0)
    cells = (
        f"{saved:.1%}", f"{stopped:.1%}", f"{volume:.4f}",
        f"{now - volume:+.4f} {_interval(found[:, 3] - found[:, 2])}",
        f"{as_long_now - volume:+.4f} {_interval(found[:, 4] - found[:, 2])}",
        f"{loss:+.4f}", f"{rouge_l:+.4f}",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _interval(differences: Array) -> str:
    """95 % of the mean."""
    half = 1.96 * float(differences.std(ddof=1)) / len(differences) ** 0.5
    return f"± {half:.4f}"


@dataclass(frozen=True)
class Settings:
    """Of a comparison."""

    trials: int
    seeds: int


HEADER = (
    "| user | rule | steps saved | stopped | hypervolume without | with - without "
    "| with as many steps - without | winner's loss | winner's ROUGE-L |"
)


def _rules(given: argparse.Namespace) -> Iterator[StoppingRule]:
    for fewest in given.fewest:
        for errors in given.errors:
            for chance in given.chance:
                yield StoppingRule(fewest, errors, chance)


def _folder(path: Path) -> tuple[float, list[Record]]:
    """A recording and its learning rate, as it stands there."""
    return float((path / "rate").read_text()), kept(path)


def main(arguments: Sequence[str] | None = None) -> None:
    rule = StoppingRule()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=Path, nargs="+", required=True)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--sampler", default="random")
    parser.add_argument("--half", choices=("tune", "report", "all"), default="report")
    parser.add_argument("--fewest", type=int, nargs="+", default=[rule.fewest])
    parser.add_argument("--errors", type=float, nargs="+", default=[rule.errors])
    parser.add_argument("--chance", type=float, nargs="+", default=[rule.chance])
    given = parser.parse_args(arguments)
    print(HEADER + "\n" + "|---" * (HEADER.count("|") - 1) + "|")
    settings = Settings(given.trials, given.seeds)
    for user, whole in pools([_folder(path) for path in given.records]).items():
        pool = whole.half(given.half)

        def order(seed: int, pool: Pool = pool) -> Order:
            if given.sampler == "random":
                return in_random_order(pool, seed)
            return by_sampler(pool, given.sampler, seed, given.trials)

        for one in _rules(given):
            says = f"{one.fewest} ended, {one.errors:g} errors, chance {one.chance:g}"
            print(f"| {user} | {says} {compared(pool, order, one, settings)}", flush=True)


if __name__ == "__main__":
    main()
