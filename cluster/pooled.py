"""Measures that are taken over all users' items at once: F1 of labels, RMSE of ratings.

A mean of users' F1 is no F1, nor is a mean of their RMSE one. So of each user counts are kept, and
added before a measure is taken of them. An interval comes from drawing users anew, a user's counts
whole (percentiles of the paired bootstrap). Wins are by what each user's own items give.

Notation: U users, C counts of each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from cluster.results import Measured
from models.gain import RESAMPLES, Interval

Counts = tuple[float, ...]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class PooledMetric:
    """One number of many users' counts, added: `[..., C]` to `[...]`."""

    name: str
    less_is_better: bool
    fraction: bool  # in [0, 1], printed x100
    read: Callable[[Measured], Counts | None]
    of_sums: Callable[[Array], Array]

    def value(self, counts: Sequence[Counts]) -> float:
        """Over all users' items."""
        return float(self.of_sums(np.asarray(counts, dtype=float).sum(0)))


def pooled_interval(
    metric: PooledMetric, own: Sequence[Counts], other: Sequence[Counts], seed: int
) -> Interval:
    """The difference of `own` less `other`, of the same users in order, with its 95 % interval."""
    users = len(own)
    difference = metric.value(own) - metric.value(other)
    if users == 1:
        return Interval(difference, np.nan, np.nan)
    # How often each user is drawn: a draw of users with replacement, as numbers.
    drawn_RU = np.random.default_rng(seed).multinomial(users, [1 / users] * users, RESAMPLES)
    values = [metric.of_sums(drawn_RU @ np.asarray(counts, float)) for counts in (own, other)]
    low, high = np.percentile(values[0] - values[1], [2.5, 97.5])
    return Interval(difference, float(low), float(high))


def mean_counts(seeds: Sequence[Mapping[str, Measured]], metric: PooledMetric) -> dict[str, Counts]:
    """By user, each count's mean over seeds; of users whom every seed measured."""
    found = {user: [metric.read(seed[user]) for seed in seeds] for user in seeds[0]}
    return {
        user: tuple(np.mean([*known], axis=0).tolist())
        for user, each in found.items()
        if len(known := [counts for counts in each if counts is not None]) == len(each)
    }


def _label_counts(measured: Measured) -> Counts | None:
    chosen = measured.chosen
    if chosen is None or chosen.label_counts is None:
        return None
    return tuple(map(float, chain.from_iterable(chosen.label_counts)))


def _macro_f1(sums: Array) -> Array:
    """The mean of F1 over labels that occur, of (hits, times true, times picked) of each label."""
    hits, true, picked = np.moveaxis(sums.reshape(*sums.shape[:-1], -1, 3), -1, 0)
    occurs = true + picked > 0
    f1 = np.divide(2 * hits, true + picked, out=np.zeros_like(hits, float), where=occurs)
    return np.asarray(f1.sum(-1) / occurs.sum(-1))


def _squared_errors(measured: Measured) -> Counts | None:
    chosen = measured.chosen
    if chosen is None or chosen.mse is None:
        return None
    return chosen.mse * chosen.items, float(chosen.items)


def _root_mean(sums: Array) -> Array:
    return np.asarray(np.sqrt(sums[..., 0] / sums[..., 1]))


POOLED = (
    PooledMetric("F1", False, True, _label_counts, _macro_f1),
    PooledMetric("RMSE", True, False, _squared_errors, _root_mean),
)
