"""What `milpa compare` found on test words: per user, then differences with their intervals.

Values and arithmetic alone; `compare.py` measures, `comparison_text.py` prints.

Four models answer each user's test items:

    original    the base as given, before the population was learned; left out where none was
    base        the base that was searched on (population merged in, where there is one)
    own         the user's published memory; the base itself where that won
    strangers   the mean over other users' memories

Differences are taken within each user, then averaged over users: users differ far more from each
other than memories do. Intervals are 95 % bootstrap intervals over users (`models/gain.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean
from typing import Literal, Protocol

from cluster.chosen import Chosen
from cluster.facts import ORDER, chance_of_users, pooled
from cluster.pooled import POOLED, PooledMetric, pooled_interval
from cluster.results import Measured
from models.gain import Interval, paired_interval

Model = Literal["original", "base", "own", "strangers"]
MODELS: tuple[Model, ...] = ("original", "base", "own", "strangers")
PAIRS: tuple[tuple[Model, Model], ...] = (
    ("own", "base"),
    ("own", "strangers"),
    ("base", "original"),
)


class Printed(Protocol):
    """What must be known of a metric to print its values."""

    @property
    def name(self) -> str:
        """As in a heading."""

    @property
    def less_is_better(self) -> bool:
        """Or more."""

    @property
    def fraction(self) -> bool:
        """In [0, 1], printed x100."""


@dataclass(frozen=True)
class Metric:
    """One number read off a measurement; None where a user doesn't have it."""

    name: str
    less_is_better: bool
    fraction: bool  # in [0, 1], printed x100
    read: Callable[[Measured], float | None]


def _recall_of(kind: str) -> Callable[[Measured], float | None]:
    def read(measured: Measured) -> float | None:
        counts = measured.recall.get(kind)
        return counts.hits / counts.asked if counts and counts.asked else None

    return read


METRICS = (
    Metric("loss", True, False, lambda measured: measured.loss_nats),
    Metric("ROUGE-L", False, True, lambda measured: measured.rouge_l),
    Metric("ROUGE-1", False, True, lambda measured: measured.rouge_1),
    Metric("Persona-F1", False, True, lambda measured: measured.persona_f1),
    Metric("P-Cover", False, False, lambda measured: measured.p_cover),
    *(Metric(f"recall, {kind}", False, True, _recall_of(kind)) for kind in ORDER),
    Metric("accuracy", False, True, lambda m: m.chosen.accuracy if m.chosen else None),
    Metric("MAE", True, False, lambda m: m.chosen.mae if m.chosen else None),
)


@dataclass(frozen=True)
class Compared:
    """One user: every model on the same test items. Digests of the strangers that were drawn."""

    user_id: str
    digest: str
    by_session: bool
    kind: Literal["milp", "base"]
    items: int
    answered: int
    strangers: tuple[str, ...]
    measured: Mapping[Model, Measured]

    def difference(self, metric: Metric, of: Model, to: Model) -> float | None:
        """`of` less `to`; None where either was not measured."""
        values = [self.value(metric, model) for model in (of, to)]
        return None if values[0] is None or values[1] is None else values[0] - values[1]

    def value(self, metric: Metric, model: Model) -> float | None:
        """One model's number; None where it was not measured."""
        measured = self.measured.get(model)
        return None if measured is None else metric.read(measured)


@dataclass(frozen=True)
class Contrast:
    """The mean difference of two models over users; `low` and `high` are None for a single user."""

    metric: str
    of: Model
    to: Model
    users: int
    mean: float
    low: float | None
    high: float | None
    better: int  # users for whom `of` is better
    worst: float  # the difference least in favour of `of`
    worst_user: str


@dataclass(frozen=True)
class Comparison:
    """A whole comparison. `headline` says which users the claims are made on."""

    original: str
    base: str
    data: str
    seed: int
    strangers: int
    users: tuple[Compared, ...]
    withdrawn: tuple[str, ...] = ()  # searched, but without a published state since
    anchors: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    drawn_from: int | None = None  # users, where not all of the run's were measured

    @property
    def headline(self) -> tuple[Compared, ...]:
        """The users split between sessions; all of them where none is."""
        return tuple(user for user in self.users if user.by_session) or self.users

    def means(self, users: Sequence[Compared]) -> dict[str, dict[Model, float]]:
        """By metric and model: the mean over the users who have it."""
        table = {}
        for metric in METRICS:
            row = {model: _known([user.value(metric, model) for user in users]) for model in MODELS}
            if means := {model: fmean(values) for model, values in row.items() if values}:
                table[metric.name] = means
        for of_all in POOLED:
            counts = {model: _counted(of_all, users, model) for model in MODELS}
            if of_items := {m: of_all.value([*own.values()]) for m, own in counts.items() if own}:
                table[of_all.name] = of_items
        return table

    def contrasts(self, users: Sequence[Compared]) -> list[Contrast]:
        """Every metric's difference of every pair of models that was measured."""
        found = [
            each
            for of, to in PAIRS
            for each in (
                *(contrast(metric, of, to, users, self.seed) for metric in METRICS),
                *(_pooled_contrast(metric, of, to, users, self.seed) for metric in POOLED),
            )
        ]
        return [each for each in found if each is not None]

    def to_json(self) -> dict[str, object]:
        """Everything, with means and contrasts over the headline's users and over all."""
        return {
            **asdict(self),
            "headline": self._summary(self.headline),
            "all": self._summary(self.users),
        }

    def _summary(self, users: Sequence[Compared]) -> dict[str, object]:
        return {
            "users": [user.digest for user in users],
            "by_session": all(user.by_session for user in users),
            "means": self.means(users),
            "contrasts": [asdict(each) for each in self.contrasts(users)],
        }


def contrast(
    metric: Metric, of: Model, to: Model, users: Sequence[Compared], seed: int
) -> Contrast | None:
    """`of` less `to` over the users who have both; None where nobody has."""
    pairs = [(user.difference(metric, of, to), user) for user in users]
    known = [(value, user) for value, user in pairs if value is not None]
    if not known:
        return None
    return _contrast(metric, of, to, known, paired_interval([value for value, _ in known], seed))


def _pooled_contrast(
    metric: PooledMetric, of: Model, to: Model, users: Sequence[Compared], seed: int
) -> Contrast | None:
    own, its = (_counted(metric, users, model) for model in (of, to))
    both = [user for user in users if user.digest in own and user.digest in its]
    if not both:
        return None
    ours, theirs = ([each[user.digest] for user in both] for each in (own, its))
    pairs = zip(ours, theirs, both, strict=True)
    known = [(metric.value([a]) - metric.value([b]), user) for a, b, user in pairs]
    return _contrast(metric, of, to, known, pooled_interval(metric, ours, theirs, seed))


def _counted(
    metric: PooledMetric, users: Sequence[Compared], model: Model
) -> dict[str, tuple[float, ...]]:
    """By digest, the counts of the users who have them."""
    found = {u.digest: metric.read(u.measured[model]) for u in users if model in u.measured}
    return {digest: counts for digest, counts in found.items() if counts is not None}


def _contrast(
    metric: Printed,
    of: Model,
    to: Model,
    known: Sequence[tuple[float, Compared]],
    interval: Interval,
) -> Contrast:
    """Of users' own differences, and the interval of all."""
    sign = -1 if metric.less_is_better else 1
    worst, worst_user = min(known, key=lambda pair: sign * pair[0])
    return Contrast(
        metric=metric.name,
        of=of,
        to=to,
        users=len(known),
        mean=interval.mean,
        low=None if math.isnan(interval.low) else interval.low,
        high=None if math.isnan(interval.high) else interval.high,
        better=sum(sign * value > 0 for value, _ in known),
        worst=worst,
        worst_user=worst_user.user_id,
    )


def mean_of(measured: Sequence[Measured]) -> Measured:
    """Several memories on the same items as one: means, and counts added."""
    return Measured(
        loss_nats=fmean(each.loss_nats for each in measured),
        token_count=measured[0].token_count,
        rouge_1=_mean([each.rouge_1 for each in measured]),
        rouge_l=_mean([each.rouge_l for each in measured]),
        persona_f1=_mean([each.persona_f1 for each in measured]),
        p_cover=_mean([each.p_cover for each in measured]),
        recall=pooled(each.recall for each in measured),
        chosen=_mean_chosen([each.chosen for each in measured if each.chosen is not None]),
    )


def chance(users: Sequence[Compared]) -> dict[str, float]:
    """By kind: the share of facts that chance would give, a mean over users as all others."""
    return chance_of_users([user.measured["base"].recall for user in users])


def _mean_chosen(found: Sequence[Chosen]) -> Chosen | None:
    """The means of several memories' picks on the same items."""
    if not found:
        return None
    return replace(
        found[0],
        accuracy=fmean(each.accuracy for each in found),
        label_counts=None,
        mae=_mean([each.mae for each in found]),
        mse=_mean([each.mse for each in found]),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = _known(values)
    return fmean(known) if known else None


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]
