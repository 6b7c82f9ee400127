"""Whether a memory in training is worth finishing, from its loss so far and what others came to.

Inside a training only the validation loss is known; ROUGE-L needs answers, so it is known of ended
trials alone. A memory is stopped in two cases:

- *diverged*: its loss is no number, or has stayed far above the base's own from the start;
- *dominated*: even if it still gains as much as others did at their most, there are ended trials
  with less loss, and it is unlikely to answer better than the best of these.

How much is still to be gained is read off the user's own ended trials at the same checkpoint (stage
and epoch): the mean of what they gained from there on, plus some standard deviations. How likely
the answers are good enough is a rank, with no model of how ROUGE-L depends on the loss: of n ended
trials and this one, drawn alike, the chance that this one is among the k + 1 best is (k + 1) /
(n + 1), where k answer better than what must be beaten. Since more loss goes with worse answers
where it goes with anything, that is generous. The ROUGE end of the front is kept because the trial
with the best answers so far has to have less loss than the stopped one could reach.

A stopped trial is censored: nothing is known but that it was not promising. So it never becomes an
observation, and only trials that ran to their end are compared with.

It knows no study of another user, no Ray and no clock: the same trials give the same answer.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from statistics import fmean, stdev
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

    `fewest` ended trials are needed at the same checkpoint; `deviations` above the mean is how much
    the memory may still gain; `chance` is how likely, at most, good enough answers are;
    `diverged_nats` above the base is far.
    """

    fewest: int = 5
    deviations: float = 2.0
    chance: float = 0.1
    diverged_nats: float = 1.0

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
        gains = gains_from(ended, at)
        if at.epoch == 1 or len(gains) < self.fewest or _ends_by_itself(ended, curve):
            return None
        reached = best - fmean(gains) - self.deviations * stdev(gains)
        better = [one.rouge_l for one in ended if one.loss_nats < reached]
        above = sum(one.rouge_l > max(better) for one in ended) if better else len(ended)
        if (above + 1) / (len(ended) + 1) > self.chance:
            return None
        return (
            f"dominated at {place}: loss {best:.4g} may come to {reached:.4g}, "
            f"{len(better)} of {len(ended)} have less"
        )


def gains_from(ended: Sequence[Ended], at: Checkpoint) -> list[float]:
    """What each trial that came by this checkpoint gained from there to its end, in nats."""
    return [one.reached[at[:2]] - one.loss_nats for one in ended if at[:2] in one.reached]


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
