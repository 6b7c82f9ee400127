"""What stopping early saves and costs, on recorded trials: `search/stopping.py` replayed.

    python -m benchmarks.stopping --records PATH [PATH ...] [--trials 24] [--seeds 200]
        [--sampler random] [--half report] [--fewest 4] [--worth 0.5]
        [--foresight]

Each path is a table of `benchmarks.record`, or its folder, finished or not, at a learning rate of
its own; together they are what a search may try. A search is run once to the end of every trial,
and once with the rule. Printed: optimiser steps saved, and trials stopped; how much could be saved
at most, by who knew beforehand which trials the front is made of, and trained no other beyond its
first checkpoint; the hypervolume of what ran to its end, from the worst of all that is recorded, as
a share of what all of the half dominates, and how far it lies apart (standard deviation) where the
same trials are trained anew, by the spread of those that were recorded more than once; how often
the best loss and the best ROUGE-L were kept; what became of the winner. At equal cost: the
hypervolume where the search with the rule goes on as long as it spends no more steps than the one
without, and where the one without is given no more steps than the rule spent.

Recorded trials are cut in two by a digest of their configuration: choose a rule's settings on the
half called `tune`, and report the other. With `--foresight` the rule is told at each trial's first
checkpoint what loss it will end with: no rule that reads the loss can know more.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.record import kept
from benchmarks.recorded_problem import Record, Table
from benchmarks.replayed import (
    Array,
    Order,
    Pool,
    Searched,
    by_sampler,
    in_random_order,
    pools,
    search,
    values_of,
)
from search.stopping import StoppingRule


@dataclass(frozen=True)
class Settings:
    """Of a comparison."""

    trials: int
    seeds: int


HEADER = (
    "| user | rule | steps saved | at most | stopped | hypervolume without | trained anew, sd "
    "| with - without | with - without, as many steps as without | as with | best loss kept "
    "| best ROUGE-L kept | winner's loss | winner's ROUGE-L |"
)


def compared(pool: Pool, order: Callable[[int], Order], rule: StoppingRule, given: Settings) -> str:
    """A line of the table: means over seeds, with and without the rule."""
    rows = np.array([_row(pool, order, rule, given.trials, s) for s in range(given.seeds)])
    saved, most, stopped, volume, _, now, more, less, loss_kept, rouge_kept, loss, rouge_l = (
        rows.mean(0)
    )
    anew = f"{rows[:, 4].std(ddof=1) / 2**0.5:.3f}" if pool.noise else "-"
    cells = (
        f"{saved:.1%}", f"{most:.1%}", f"{stopped:.1%}", f"{volume:.4f}", anew,
        f"{now:+.4f} {_interval(rows[:, 5])}", f"{more:+.4f} {_interval(rows[:, 6])}",
        f"{less:+.4f} {_interval(rows[:, 7])}", f"{loss_kept:.0%}", f"{rouge_kept:.0%}",
        f"{loss:+.4f}", f"{rouge_l:+.4f}",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _row(
    pool: Pool, order: Callable[[int], Order], rule: StoppingRule, trials: int, seed: int
) -> tuple[float, ...]:
    """Of one seed; differences are with less without."""
    whole = search(pool, order(seed), None, trials=trials)
    longer = search(pool, order(seed), rule, trials=trials, steps=whole.steps)
    some = longer.first(trials)
    shorter = whole.within(some.steps)
    equal = longer.within(whole.steps)
    volume, now, more, less = (_volume(pool, one) for one in (whole, some, equal, shorter))
    (loss, rouge_l), (loss_now, rouge_l_now) = (pool.winner(s.completed) for s in (whole, some))
    (best, lucky), (best_now, lucky_now) = (_extremes(one) for one in (whole, some))
    return (
        1 - some.steps / whole.steps, _most(pool, whole), some.stopped / trials,
        volume, _anew(pool, whole, 2 * seed) - _anew(pool, whole, 2 * seed + 1),
        now - volume, more - volume, now - less,
        best_now <= best, lucky_now >= lucky, loss_now - loss, rouge_l_now - rouge_l,
    )  # fmt: skip


def _volume(pool: Pool, found: Searched) -> float:
    return pool.volume([values_of(trial) for trial in found.completed])


def _anew(pool: Pool, found: Searched, seed: int) -> float:
    """The hypervolume, had the same trials been trained with other seeds."""
    return pool.volume(pool.shaken(found.completed, seed)) if pool.noise else 0.0


def _extremes(found: Searched) -> tuple[float, float]:
    """The least loss and the most ROUGE-L."""
    values = [values_of(trial) for trial in found.completed]
    return min(loss for loss, _ in values), max(rouge_l for _, rouge_l in values)


def _most(pool: Pool, whole: Searched) -> float:
    """The share of steps not spent where only what the front is made of runs to its end."""
    best = pool.best(whole.completed)
    others = [trial for trial in whole.completed if trial not in best]
    spent = sum(t.steps for t in best) + sum(t.ended.curve[0].steps for t in others)
    return 1 - spent / whole.steps


def _interval(differences: Array) -> str:
    """95 % of the mean."""
    half = 1.96 * float(differences.std(ddof=1)) / len(differences) ** 0.5
    return f"± {half:.4f}"


def _rules(given: argparse.Namespace) -> Iterator[StoppingRule]:
    for fewest in given.fewest:
        for worth in given.worth:
            yield StoppingRule(fewest, worth)


def _recording(path: Path) -> tuple[float, list[Record]]:
    """A recording and its learning rate: a table, or a folder as it stands there."""
    if path.is_file():
        table = Table.load(path)
        return table.rate, list(table.records)
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
    parser.add_argument("--worth", type=float, nargs="+", default=[rule.worth])
    parser.add_argument("--foresight", action="store_true")
    given = parser.parse_args(arguments)
    print(HEADER + "\n" + "|---" * (HEADER.count("|") - 1) + "|")
    settings = Settings(given.trials, given.seeds)
    for user, whole in pools([_recording(path) for path in given.records]).items():
        pool = whole.half(given.half)
        if given.foresight:
            pool = pool.foreseen()

        def order(seed: int, pool: Pool = pool) -> Order:
            if given.sampler == "random":
                return in_random_order(pool, seed)
            return by_sampler(pool, given.sampler, seed, given.trials)

        for one in _rules(given):
            says = f"{one.fewest} ended, worth {one.worth:g}"
            print(f"| {user} | {says} {compared(pool, order, one, settings)}", flush=True)


if __name__ == "__main__":
    main()
