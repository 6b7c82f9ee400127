"""How sure a winner is: it and its runner-up, trained again with other seeds and chosen anew.

A trial's values are one draw: another seed gives others. So the winner and the runner-up (whom the
same rule names where the winner is passed over) are each trained some more times, as their trials
were. Of all pairs, one repeat of either, the share in which the rule names the winner again says
how much the choice owes to luck. The trials themselves don't count: they were chosen for being
lucky. That is luck of the seeds: all were measured on the same validation words, which are few.

Where nothing beat the base, the base is the winner. It has no seed; the runner-up is then the
memory with the least loss.

Repeats are no trials: no sampler sees them, and front, winner and hypervolume are of trials alone.
They are kept as notes of the study.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from statistics import fmean, stdev
from typing import Any

from search import pareto
from search.storage import Trial
from search.study import Study


@dataclass(frozen=True)
class Repeated:
    """A trial, and a row for each repeat; the base, which has no seed, has its own values."""

    trial: Trial
    rows: tuple[tuple[float, ...], ...]

    @property
    def mean(self) -> tuple[float, ...]:
        """For each objective."""
        return tuple(map(fmean, zip(*self.rows, strict=True)))

    @property
    def spread(self) -> tuple[float, ...] | None:
        """The standard deviation for each objective; None of a single row."""
        if len(self.rows) < 2:
            return None
        return tuple(map(stdev, zip(*self.rows, strict=True)))


@dataclass(frozen=True)
class Certainty:
    """Winner and runner-up; `again` is the share of pairs in which the winner is named again."""

    winner: Repeated
    runner_up: Repeated
    again: float


def contenders(study: Study) -> tuple[Trial, Trial] | None:
    """The winner and the runner-up; None where no memory came back.

    Raises:
        ValueError: the anchor has not come back.
    """
    best = study.winner()
    others = study.front(without=(best.number,))
    if not others:
        return None
    second = study.winner(without=(best.number,))
    if second == study.anchor:  # none of the others beats the base
        second = min(others, key=lambda trial: trial.candidate(study.objectives).loss_nats)
    return best, second


def wanted(study: Study, count: int) -> list[tuple[Trial, int]]:
    """Memories among the contenders that are still to be trained again, with the repeat's number.

    Args:
        study: whose trials have all ended.
        count: how often each is trained besides its trial; repeats count from 1.
    """
    known = study.notes()
    memories = [trial for trial in contenders(study) or () if trial.config.layers]
    every = [(trial, repeat) for trial in memories for repeat in range(1, count + 1)]
    return [(trial, repeat) for trial, repeat in every if note_of(trial, repeat) not in known]


def note_of(trial: Trial, repeat: int) -> str:
    """The name of the note that holds a repeat's values; empty values are a failed training's."""
    return f"repeat/{trial.number}/{repeat}"


def certainty(study: Study) -> Certainty | None:
    """What the repeats say; None where either memory has none.

    Raises:
        ValueError: the anchor has not come back.
    """
    known = study.notes()
    both = contenders(study)
    if both is None:
        return None
    best, second = (_repeated(trial, known) for trial in both)
    if not (best.rows and second.rows):
        return None
    again = [
        _is_first(study, replace(best.trial, values=one), replace(second.trial, values=other))
        for one, other in product(best.rows, second.rows)
    ]
    return Certainty(best, second, fmean(again))


def _repeated(trial: Trial, known: Mapping[str, Any]) -> Repeated:
    if not trial.config.layers:
        return Repeated(trial, (trial.values or (),))
    prefix = note_of(trial, 0).removesuffix("0")
    rows = [tuple(values) for name, values in known.items() if name.startswith(prefix) and values]
    return Repeated(trial, tuple(rows))


def _is_first(study: Study, one: Trial, other: Trial) -> bool:
    """Whether the rule names the first of two; the base where neither memory beats it."""
    anchor = study.winner(without=[trial.number for trial in study.trials])
    memories = [trial for trial in (one, other) if trial.config.layers]
    best = pareto.front(study.objectives, [trial.values or () for trial in memories])
    candidates = [memories[i].candidate(study.objectives) for i in best]
    place = pareto.winner(
        candidates, anchor.candidate(study.objectives).loss_nats, int(anchor.measured["item_count"])
    )
    return (anchor if place is None else memories[best[place]]).number == one.number
