"""Whether a memory in training is worth finishing, from its loss so far and what others came to.

Inside a training only the validation loss is known; ROUGE-L needs answers, so it is known of ended
trials alone. A memory is stopped in two cases:

- *diverged*: its loss is no number, or has stayed far above the base's own from the start;
- *unpromising*: the hypervolume that it is expected to add to what its user's ended trials dominate
  is less than a share of what a new trial is expected to add.

How it may end is read off the ended trials that came by the same checkpoint (stage and epoch): a
straight line through the best loss each had reached there and the loss it ended with, and a normal
distribution of the standard error of prediction about it, cut off at what the memory has reached.
A new trial, of which nothing is known, ends as the ended trials did; and either answers as they
did, whatever the loss: ROUGE-L owes too much to luck for a curve to tell more.

So both ends of the front count by what they are worth. Much loss forbids no lucky answers, but what
those would add is a narrow strip at the ROUGE end. And the scale is the search's own: late in it
little is to be gained by anything, and no more is stopped for that.

Volume counts from the base's loss and the worst answers so far. Where all ended trials answer
alike, nothing adds volume, and only what diverges is stopped.

A stopped trial is censored: nothing is known but that it was not promising. So it never becomes an
observation, and only trials that ran to their end are compared with.

It knows no study of another user, no Ray and no clock: the same trials give the same answer.
`benchmarks.stopping` measures what it saves and costs.

Notation: a loss in nats per token is better when less, ROUGE-L when more.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from statistics import fmean, pvariance, stdev
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


class Normal(NamedTuple):
    """A normal distribution; a fixed number where the error is nought."""

    mean: float
    error: float

    def below(self, limit: float) -> float:
        """How far below a limit it is expected to lie, nought where it lies above."""
        away = limit - self.mean
        if limit == -math.inf or self.error == 0:
            return max(0.0, away)
        u = away / self.error
        density = math.exp(-u * u / 2) / math.sqrt(2 * math.pi)
        return away * math.erfc(-u / math.sqrt(2)) / 2 + self.error * density


@dataclass(frozen=True)
class StoppingRule:
    """When to stop.

    `fewest` ended trials are needed at the same checkpoint; a memory promises at least the share
    `worth` of what a new trial does; `diverged_nats` above the base is far.

    Raises:
        ValueError: `fewest` is less than a line with its error needs.
    """

    fewest: int = 4
    worth: float = 0.5
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
        if len(alike) < self.fewest or _ends_by_itself(ended, curve):
            return None
        loss = expected_loss(alike, at, best)
        new = promise(base_loss, ended, _another([one.loss_nats for one in ended]))
        share = promise(base_loss, ended, loss, best) / new if new > 0 else 1.0
        if share >= self.worth:
            return None
        return (
            f"unpromising at {place}: loss {best:.4g} is expected to come to {loss.mean:.4g} "
            f"+- {loss.error:.2g}, which is worth {share:.0%} of a new trial"
        )


def expected_loss(alike: Sequence[Ended], at: Checkpoint, best: float) -> Normal:
    """The loss that a memory may end with, in nats per token, as a normal distribution.

    Its best so far is kept, which `promise` takes as the limit.

    Args:
        alike: trials that came by the same checkpoint, at least three.
        at: the checkpoint.
        best: the least loss that the memory has reached there.
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
    return Normal(expected[-1], error)


def promise(
    base_loss: float, ended: Sequence[Ended], loss: Normal, most: float = math.inf
) -> float:
    """Hypervolume that a memory is expected to add to what ended trials dominate.

    With F the chance of so little loss and h(l) the best ROUGE-L so far at a loss of l or less, it
    is the integral of F(l) E[ROUGE-L above h(l)] from no loss to the base's. Between two trials of
    the front h is constant.

    Args:
        base_loss: the base's own, in nats per token: volume counts from there.
        ended: at least two trials.
        loss: that the memory may end with.
        most: it ends with no more than that.
    """
    answers = _another([-one.rouge_l for one in ended])  # turned round: less is better
    stairs = [(-math.inf, min(one.rouge_l for one in ended))]
    for one in sorted(ended, key=lambda one: (one.loss_nats, -one.rouge_l)):
        if one.rouge_l > stairs[-1][1] and one.loss_nats < base_loss:
            stairs.append((one.loss_nats, one.rouge_l))

    def room(limit: float) -> float:
        return loss.below(min(limit, most)) + max(0.0, limit - most)

    return sum(
        answers.below(-height) * (room(right) - room(left))
        for (left, height), (right, _) in pairwise([*stairs, (base_loss, math.inf)])
    )


def _another(values: Sequence[float]) -> Normal:
    """One more of these: their mean, and the error of prediction from it."""
    return Normal(fmean(values), stdev(values) * math.sqrt(1 + 1 / len(values)))


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
