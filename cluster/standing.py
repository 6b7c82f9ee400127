"""How methods stand after a comparison: each row's values, and its differences to one of them.

Values and arithmetic alone: `tally.py` reads what was measured, `standing_text.py` prints.

A user's value is the mean over seeds, then everything is taken within users: the difference to the
reference, its mean and 95 % interval (paired bootstrap over users, `models/gain.py`), and for how
many users a row is better, worse, or neither by more than `TIE`. What is no mean over users is of
all their items at once (`pooled.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from cluster.comparison import METRICS, Metric
from cluster.pooled import POOLED, Counts, PooledMetric, pooled_interval
from cluster.win_rate import WinRate
from models.gain import Interval, paired_interval

TIE = 5e-4  # what rounds to nothing as it is printed: 0.001 nats, 0.1 points

Values = Mapping[str, float]
"""By user digest."""


@dataclass(frozen=True)
class Cost:
    """What a row costs; means over users with a state, None where nobody has one.

    Times of training are those of the machine that trained; `first_token` and `tokens_per_second`
    are ratios to the base alone. The last four are of what all users share, learned once for a
    configuration and a seed: means over those.
    """

    trained_parameters: float | None = None
    stored_parameters: float | None = None
    stored_bytes: float | None = None
    extra_tokens: float | None = None
    first_token: float | None = None
    tokens_per_second: float | None = None
    train_seconds: float | None = None
    tuning_seconds: float | None = None
    shared_times: int = 0
    shared_seconds: float | None = None
    shared_parameters: float | None = None
    shared_bytes: float | None = None


@dataclass(frozen=True)
class Row:
    """One entrant: by metric and user, the mean over seeds; `counts` are of pooled metrics.

    `on_base` counts users none of whose trials was better than the base. Of the final trainings of
    all other users and all seeds, `no_gain` counts those that were no better on validation words
    after all, `failed` those that did not end well; both count as the base. `failed_trials` counts
    trials. `promised` is what the best trial gained on validation words over the base, and `kept`
    what final trainings gain on test words: nats per token, means over all users. `lost` counts
    what the texts of users with a state lost on their way into it, under the first seed: what a
    prompt's budget, the context or an epoch's limit leaves out.
    """

    label: str
    values: Mapping[str, Values]
    cost: Cost = Cost()
    trials: int = 0
    on_base: int = 0
    no_gain: int = 0
    failed: int = 0
    failed_trials: int = 0
    promised: float | None = None
    kept: float | None = None
    counts: Mapping[str, Mapping[str, Counts]] = field(default_factory=dict)
    lost: Mapping[str, int] = field(default_factory=dict)

    def mean(self, metric: Metric | PooledMetric) -> float | None:
        """Over the users who have a value."""
        if isinstance(metric, PooledMetric):
            counts = self.counts.get(metric.name)
            return metric.value(list(counts.values())) if counts else None
        values = self.values.get(metric.name)
        return fmean(values.values()) if values else None


@dataclass(frozen=True)
class Difference:
    """A row less the reference in one metric; `low` and `high` are None for a single user."""

    mean: float
    low: float | None
    high: float | None
    wins: int
    ties: int
    losses: int


@dataclass(frozen=True)
class Standing:
    """A whole comparison.

    `left_out` says of each entrant without a row why; `win_rates` are against the reference, by
    label, where a judge was asked. `items` are all test items, `with_options` those of them with
    options, of which guessing gets the share `guessing` right.
    """

    reference: str
    rows: tuple[Row, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    anchors: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    chance: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    population: Mapping[str, Any] | None = None
    win_rates: Mapping[str, WinRate] = field(default_factory=dict)
    commits: tuple[str, ...] = ()
    items: int = 0
    with_options: int = 0
    guessing: float | None = None
    cpu_seconds: float = 0.0

    def row(self, label: str) -> Row | None:
        """The row of a label; None where it was left out."""
        return next((row for row in self.rows if row.label == label), None)

    def difference(self, row: Row, metric: Metric | PooledMetric) -> Difference | None:
        """Over the users who have both; None where nobody has."""
        other = self.row(self.reference)
        if other is None:
            return None
        seed = self.settings.get("seed", 0)
        if isinstance(metric, PooledMetric):
            return _pooled_difference(row, other, metric, seed)
        own, its = row.values.get(metric.name, {}), other.values.get(metric.name, {})
        found = [own[user] - its[user] for user in sorted(own) if user in its]
        return difference_of(found, metric, seed) if found else None

    @property
    def metrics(self) -> tuple[Metric | PooledMetric, ...]:
        """Those that some row has a value of."""
        every: tuple[Metric | PooledMetric, ...] = (*METRICS, *POOLED)
        return tuple(m for m in every if any(row.mean(m) is not None for row in self.rows))


def difference_of(found: list[float], metric: Metric, seed: int) -> Difference:
    """The mean of users' differences with its interval, and for how many a row is better."""
    return _told(paired_interval(found, seed), found, metric.less_is_better)


def _pooled_difference(row: Row, other: Row, metric: PooledMetric, seed: int) -> Difference | None:
    own, its = row.counts.get(metric.name, {}), other.counts.get(metric.name, {})
    users = [user for user in sorted(own) if user in its]
    if not users:
        return None
    interval = pooled_interval(metric, [own[u] for u in users], [its[u] for u in users], seed)
    found = [metric.value([own[user]]) - metric.value([its[user]]) for user in users]
    return _told(interval, found, metric.less_is_better)


def _told(interval: Interval, found: list[float], less_is_better: bool) -> Difference:
    gains = [-value if less_is_better else value for value in found]
    return Difference(
        mean=interval.mean,
        low=None if math.isnan(interval.low) else interval.low,
        high=None if math.isnan(interval.high) else interval.high,
        wins=sum(gain > TIE for gain in gains),
        ties=sum(abs(gain) <= TIE for gain in gains),
        losses=sum(gain < -TIE for gain in gains),
    )
