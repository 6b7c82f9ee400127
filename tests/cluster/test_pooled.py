"""F1 and RMSE over all users' items, and their intervals, by hand."""

from __future__ import annotations

import math
import statistics
from dataclasses import asdict

import numpy as np
import pytest

from cluster.chosen import Chosen
from cluster.comparison import mean_of
from cluster.pooled import POOLED, Counts, mean_counts, pooled_interval
from cluster.results import Measured
from cluster.standing import Row, Standing
from cluster.tally import counts_of
from models.choices import label_counts
from models.history import Interaction

F1, RMSE = POOLED
TAGS = ("comedy", "classic", "war")


def item(response: str) -> Interaction:
    return Interaction("ann", 0.0, "which?", response, choices=TAGS)


def counted(*pairs: tuple[str, str]) -> Counts:
    """The counts of (truth, pick), in the order of the labels' names."""
    items, picked = [item(truth) for truth, _ in pairs], [pick for _, pick in pairs]
    return tuple(float(n) for of_label in label_counts(items, picked) for n in of_label)


ANN = (("comedy", "comedy"), ("war", "comedy"))
BOB = (("war", "war"),)


def test_f1_of_all_items_is_no_mean_of_users_f1() -> None:
    assert counted(*ANN) == (0, 0, 0, 1, 1, 2, 0, 1, 0)  # classic, comedy, war
    assert F1.value([counted(*ANN), counted(*BOB)]) == pytest.approx(2 / 3)
    mean = statistics.fmean([F1.value([counted(*ANN)]), F1.value([counted(*BOB)])])
    assert mean == pytest.approx((1 / 3 + 1) / 2)


def test_rmse_of_all_items_by_hand() -> None:
    measured = [
        Measured(1.0, 1, chosen=Chosen(3, 0.0, 0.2, mae=1.0, mse=4.0)),
        Measured(1.0, 1, chosen=Chosen(1, 1.0, 0.2, mae=0.0, mse=0.0)),
    ]
    counts = [RMSE.read(each) for each in measured]
    assert counts == [(12.0, 3.0), (0.0, 1.0)]
    assert RMSE.value([each for each in counts if each]) == math.sqrt(3)
    assert F1.read(measured[0]) is None
    assert RMSE.read(Measured(1.0, 1)) is None


def test_counts_are_means_over_seeds_of_users_whom_every_seed_measured() -> None:
    def rated(mse: float | None) -> Measured:
        return Measured(1.0, 1, chosen=Chosen(2, 0.5, 0.2, mae=mse, mse=mse))

    first, second = {"u": rated(1.0), "v": rated(1.0)}, {"u": rated(3.0), "v": rated(None)}
    assert mean_counts([first, second], RMSE) == {"u": (4.0, 2.0)}
    assert counts_of([first, second]) == {"RMSE": {"u": (4.0, 2.0)}}


def test_the_interval_is_that_of_users_drawn_anew() -> None:
    draw = np.random.default_rng(1)
    own = [(float(a), 4.0) for a in draw.uniform(0, 4, 12)]
    other = [(a + float(d), 4.0) for (a, _), d in zip(own, draw.uniform(0, 6, 12), strict=True)]
    found = pooled_interval(RMSE, own, other, 0)
    seen = []
    for _ in range(4000):  # the same by one draw after another
        users = draw.integers(0, 12, 12)
        seen.append(RMSE.value([own[u] for u in users]) - RMSE.value([other[u] for u in users]))
    assert found.mean == RMSE.value(own) - RMSE.value(other)
    assert (found.low, found.high) == pytest.approx(np.percentile(seen, [2.5, 97.5]), abs=0.03)
    assert found.low < found.mean < found.high < 0
    assert pooled_interval(RMSE, own, other, 0) == found
    assert pooled_interval(F1, [counted(*ANN)] * 2, [counted(*ANN)] * 2, 0) == (0, 0, 0)
    assert math.isnan(pooled_interval(RMSE, own[:1], other[:1], 0).low)


def test_a_standing_tells_pooled_differences_and_whose_own_items_are_better() -> None:
    none = Row("none", {"loss": {"a": 1.0}}, counts={"RMSE": {"a": (4.0, 1.0), "b": (1.0, 1.0)}})
    own = Row("own", {"loss": {"a": 1.0}}, counts={"RMSE": {"a": (1.0, 1.0), "b": (1.0, 1.0)}})
    standing = Standing("none", (none, own))
    assert [metric.name for metric in standing.metrics] == ["loss", "RMSE"]
    assert own.mean(RMSE) == 1
    found = standing.difference(own, RMSE)
    assert found is not None
    assert found.mean == 1 - math.sqrt(2.5)
    assert (found.wins, found.ties, found.losses) == (1, 1, 0)
    assert standing.difference(own, F1) is None


def test_picks_are_read_back_from_json() -> None:
    measured = Measured(1.0, 2, chosen=Chosen(2, 0.5, 0.5, ((1, 1, 2), (0, 1, 0))))
    told = asdict(measured)
    told["chosen"]["label_counts"] = [list(each) for each in told["chosen"]["label_counts"]]
    assert Measured.from_json(told) == measured
    del told["chosen"]
    assert Measured.from_json(told).chosen is None


def test_strangers_picks_are_told_by_their_means() -> None:
    found = mean_of(
        [
            Measured(1.0, 1, chosen=Chosen(2, 1.0, 0.5, mae=0.0, mse=0.0)),
            Measured(3.0, 1, chosen=Chosen(2, 0.0, 0.5, mae=1.0, mse=2.0)),
        ]
    )
    assert (found.loss_nats, found.chosen) == (2.0, Chosen(2, 0.5, 0.5, mae=0.5, mse=1.0))
    assert mean_of([Measured(1.0, 1)]).chosen is None
