"""Whether a memory in training is worth finishing, from its loss so far and what others came to.

Inside a training only the validation loss is known; ROUGE-L needs answers, so it is known of ended
trials alone. A memory is stopped in two cases:

- *diverged*: its loss is no number, or has stayed far above the base's own from the start;
- *dominated*: even if it ends better than is to be expected, there are ended trials with less loss,
  and it is unlikely to answer better than the best of these.

How it may end is read off the user's own ended trials that came by the same checkpoint (stage and
epoch): a straight line through the best loss each had reached there and the loss it ended with,
less some standard errors of prediction. (What lags behind gains less from there on, which a mean of
gains would miss: on recorded trials the line saved a fifth more steps for the same hypervolume.)

How likely its answers are good enough is a rank, with no model of how ROUGE-L depends on the loss:
of n ended trials and this one, drawn alike, the chance that this one is among the best k + 1 is
(k + 1) / (n + 1), where k answer better than what must be beaten. So what might still have less
loss than the trial with the best answers goes on, while its chance is above the rule's. What is
given up are lucky answers of memories that learned little: they may lie at the ROUGE end of the
front, but no winner lies there (its loss is within a tenth of the gain of the best).

Measured by `benchmarks.stopping` on 98 trials of one chat log's user, in random order, 24 a search:
settings were chosen on one half, and saved 43 % of the steps on the other, for 0.011 +- 0.002 less
of the hypervolume and the same winners; with as many steps it reached 0.06 +- 0.01 more. The same
trials trained anew differ by about 0.1. What was lost lay at the ROUGE end: there ROUGE-L *rose*
with the loss (correlation 0.3), so being drawn alike favours stopping a little. A model that
proposes leaves less to stop: 20 searches of 20 trials by `gp` saved 19 % for 0.013 +- 0.025 less.

A stopped trial is censored: nothing is known but that it was not promising. So it never becomes an
observation, and only trials that ran to their end are compared with.

It knows no study of another user, no Ray and no clock: the same trials give the same answer.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from statistics import fmean, pvariance
from typing import Any, NamedTuple


class Checkpoint(NamedTuple):
    """Validation loss (nats per token) after an epoch of a stage, and optimiser steps so far."""

    stage: str
    epoch: int
    steps: int
    loss_nats: float


Curve = Sequence[Checkpoint]


@dataclass(frozen=True)
class Ended:
    """A trial of the same user that ran to its end."""

    loss_nats: float
    rouge_l: float
    curve: Curve

    @cached_property
    def reached(self) -> Mapping[tuple[str, int], float]:
        """The best loss until each checkpoint, by stage and epoch."""
        best = accumulate((point.loss_nats for point in self.curve), min)
        places = ((point.stage, point.epoch) for point in self.curve)
        return dict(zip(places, best, strict=True))


@dataclass(frozen=True)
class StoppingRule:
    """When to stop.

    `fewest` ended trials are needed at the same checkpoint; so many standard `errors` better than
    expected a memory may end; `chance` is how likely, at most, good enough answers are;
    `diverged_nats` above the base is far.

    Raises:
        ValueError: `fewest` is less than a line with its error needs.
    """

    fewest: int = 5
    errors: float = 2.0
    chance: float = 0.5
    diverged_nats: float = 1.0

    def __post_init__(self) -> None:
        if self.fewest < 3:
            raise ValueError(f"expected at least 3 ended trials for a line, got {self.fewest}")

    def reason(self, base_loss: float, ended: Sequence[Ended], curve: Curve) -> str | None:
        """Why to stop a memory at the last checkpoint of its curve; None where it goes on.

        Args:
            base_loss: the base's own, in nats per token.
            ended: the user's trials that ran to their end, the base left out.
            curve: the memory's checkpoints so far, at least one.
        """
        at, best = curve[-1], min(point.loss_nats for point in curve)
        place = f"{at.stage} {at.epoch}"
        if not math.isfinite(at.loss_nats) or best > base_loss + self.diverged_nats:
            return f"diverged at {place}: loss {at.loss_nats:.4g}, the base's is {base_loss:.4g}"
        alike = [one for one in ended if at[:2] in one.reached]
        if at.epoch == 1 or len(alike) < self.fewest or _ends_by_itself(ended, curve):
            return None
        least = least_loss(alike, at, best, self.errors)
        better = [one.rouge_l for one in ended if one.loss_nats < least]
        above = sum(one.rouge_l > max(better) for one in ended) if better else len(ended)
        if (above + 1) / (len(ended) + 1) > self.chance:
            return None
        return (
            f"dominated at {place}: loss {best:.4g} may come to {least:.4g}, "
            f"{len(better)} of {len(ended)} have less"
        )


def least_loss(alike: Sequence[Ended], at: Checkpoint, best: float, errors: float) -> float:
    """The loss that a memory may end with, in nats per token; not more than it has reached.

    Args:
        alike: trials that came by the same checkpoint, at least three.
        at: the checkpoint.
        best: the least loss that the memory has reached there.
        errors: standard errors of prediction below what is expected.
    """
    reached = [one.reached[at[:2]] for one in alike]
    ends = [one.loss_nats for one in alike]
    middle, spread = fmean(reached), len(reached) * pvariance(reached)
    together = sum((x - middle) * y for x, y in zip(reached, ends, strict=True))
    slope = max(0.0, together / spread) if spread else 0.0
    expected = [fmean(ends) + slope * (x - middle) for x in (*reached, best)]
    missed = sum((y - line) ** 2 for y, line in zip(ends, expected, strict=False))
    away = (best - middle) ** 2 / spread if spread else 0.0
    error = math.sqrt(missed / (len(alike) - 2) * (1 + 1 / len(alike) + away))
    return min(best, expected[-1] - errors * error)


def curve_of(measured: Mapping[str, Any]) -> list[Checkpoint]:
    """The curve kept with a trial; empty where none was."""
    return [Checkpoint(*point) for point in measured.get("curve", ())]


def _ends_by_itself(ended: Sequence[Ended], curve: Curve) -> bool:
    """Whether nothing is left to save: all others ended here, or the last stage has got worse."""
    at = curve[-1]
    goes_on = any(at[:2] in one.reached and one.curve[-1][:2] != at[:2] for one in ended)
    stage = [point.loss_nats for point in curve if point.stage == at.stage]
    is_last = all(one.curve[-1].stage == at.stage for one in ended if one.curve)
    return not goes_on or (is_last and len(stage) > 1 and stage[-1] >= min(stage[:-1]))
