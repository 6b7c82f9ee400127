"""The stopping rule by hand: five ended trials, and memories that do better, worse, or diverge."""

from __future__ import annotations

import math
from statistics import NormalDist, fmean, stdev

import pytest

from search.pareto import LOSS, ROUGE_L, hypervolume
from search.stopping import (
    Checkpoint,
    Ended,
    Normal,
    StoppingRule,
    curve_of,
    expected_loss,
    promise,
)

BASE = 4.0
RULE = StoppingRule(fewest=5, worth=0.4, diverged_nats=1.0)


def curve(*losses: float, stages: tuple[int, int] = (2, 3)) -> list[Checkpoint]:
    """Losses after two epochs of injection, then up to three of tuning, four steps each."""
    places = [("injection", e + 1) for e in range(stages[0])]
    places += [("tuning", e + 1) for e in range(stages[1])]
    at = enumerate(zip(places, losses, strict=False))
    return [Checkpoint(*place, 4 * (i + 1), loss) for i, (place, loss) in at]


def ended(reached: float, loss: float, rouge_l: float) -> Ended:
    """A trial that had reached so much after its second epoch of tuning, and ended at this loss."""
    return Ended(loss, rouge_l, curve(3.95, 3.95, 3.9, reached, loss))


# A line of slope 1, a tenth below what was reached; misses of 1, -2, 0, 2, -1 hundredths about it.
OTHERS = [
    ended(3.4, 3.31, 0.24),
    ended(3.5, 3.38, 0.23),
    ended(3.6, 3.50, 0.22),
    ended(3.7, 3.62, 0.21),
    ended(3.8, 3.69, 0.20),
]


def running(loss: float) -> list[Checkpoint]:
    """A memory at its second epoch of tuning."""
    return curve(3.98, 3.97, 3.96, loss)


@pytest.mark.parametrize(
    ("best", "mean", "error"),
    [
        (3.6, 3.5, math.sqrt(1e-3 / 3 * 1.2)),
        (3.8, 3.7, math.sqrt(1e-3 / 3 * (1.2 + 0.2**2 / 0.1))),
    ],
)
def test_a_memory_is_expected_on_the_line_with_errors_of_prediction(
    best: float, mean: float, error: float
) -> None:
    """Misses square to 1e-3 over three degrees of freedom; five trials, 0.1 about their mean."""
    found = expected_loss(OTHERS, running(best)[-1], best)
    assert found == pytest.approx((mean, error))


def test_where_all_had_reached_the_same_the_mean_is_expected() -> None:
    same = [ended(3.5, 3.4, 0.2), ended(3.5, 3.3, 0.2), ended(3.5, 3.2, 0.2)]
    assert expected_loss(same, running(3.9)[-1], 3.9).mean == pytest.approx(3.3)


def test_a_line_that_falls_with_what_was_reached_is_not_believed() -> None:
    falling = [ended(3.4, 3.3, 0.2), ended(3.5, 3.2, 0.2), ended(3.6, 3.1, 0.2)]
    assert expected_loss(falling, running(3.9)[-1], 3.9).mean == pytest.approx(3.2)


@pytest.mark.parametrize("error", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("limit", [-1.0, 0.5, 3.0])
def test_how_far_below_a_limit_is_the_mean_of_what_is_drawn(limit: float, error: float) -> None:
    drawn = NormalDist(0.5, 1.0).samples(200_000, seed=1)
    below = fmean(max(0.0, limit - (0.5 + error * (x - 0.5))) for x in drawn)
    assert Normal(0.5, error).below(limit) == pytest.approx(below, abs=0.01)


@pytest.mark.parametrize("most", [math.inf, 3.5])
def test_what_a_memory_promises_is_the_mean_of_what_it_would_add(most: float) -> None:
    """Against many endings drawn, and the volume of the front with each."""
    objectives, corner = (LOSS, ROUGE_L), (BASE, 0.19)
    some = [ended(3.4, 3.31, 0.24), ended(3.6, 3.5, 0.26), ended(3.8, 3.69, 0.19)]
    rows = [(one.loss_nats, one.rouge_l) for one in some]
    answers = [rouge_l for _, rouge_l in rows]
    spread = stdev(answers) * math.sqrt(1 + 1 / 3)
    losses = NormalDist(3.45, 0.1).samples(20_000, seed=1)
    luck = NormalDist(fmean(answers), spread).samples(20_000, seed=2)
    before = hypervolume(objectives, rows, corner)
    added = fmean(
        hypervolume(objectives, [*rows, (min(loss, most), rouge_l)], corner) - before
        for loss, rouge_l in zip(losses, luck, strict=True)
    )
    assert promise(BASE, some, Normal(3.45, 0.1), most) == pytest.approx(added, rel=0.03)


def test_less_loss_promises_more_and_more_than_the_bases_nothing() -> None:
    promised = [promise(BASE, OTHERS, Normal(loss, 0.0)) for loss in (3.2, 3.4, 3.6, 3.9, 4.0)]
    assert promised == sorted(promised, reverse=True)
    assert promised[-2] > promised[-1] == 0.0


def test_one_that_promises_less_than_a_share_of_a_new_one_is_stopped() -> None:
    """A line to 3.75 +- 0.025, where only better answers than all so far add anything."""
    reason = RULE.reason(BASE, OTHERS, running(3.85))
    assert reason == (
        "unpromising at tuning 2: loss 3.85 is expected to come to 3.75 +- 0.025, "
        "which is worth 34% of a new trial"
    )
    assert RULE.reason(BASE, OTHERS, running(3.45)) is None


def test_the_share_decides() -> None:
    at, new = running(3.7), promise(BASE, OTHERS, _new_trial())
    mine = promise(BASE, OTHERS, expected_loss(OTHERS, at[-1], 3.7), 3.7)
    assert StoppingRule(worth=mine / new * 0.99).reason(BASE, OTHERS, at) is None
    assert StoppingRule(worth=mine / new * 1.01).reason(BASE, OTHERS, at) is not None


def _new_trial() -> Normal:
    losses = [one.loss_nats for one in OTHERS]
    return Normal(fmean(losses), stdev(losses) * math.sqrt(1 + 1 / 5))


def test_the_end_with_the_best_answers_is_kept() -> None:
    """Where the best answers came with much loss, what is to end with less is worth more; what is
    to end with more would need better answers still."""
    answers_best = [*OTHERS[:4], ended(3.8, 3.69, 0.40)]
    strict = StoppingRule(worth=0.8)
    assert strict.reason(BASE, OTHERS, running(3.6)) is not None
    assert strict.reason(BASE, answers_best, running(3.6)) is None
    assert RULE.reason(BASE, answers_best, running(3.8)) is not None


def test_where_all_answer_alike_only_what_diverges_is_stopped() -> None:
    alike = [Ended(one.loss_nats, 0.2, one.curve) for one in OTHERS]
    assert RULE.reason(BASE, alike, running(3.9)) is None
    assert RULE.reason(BASE, alike, running(math.inf)) is not None


def test_a_checkpoint_that_others_did_not_come_by_tells_nothing() -> None:
    ended_before = Ended(3.8, 0.2, curve(3.9, 3.8, 3.85))
    assert RULE.reason(BASE, [*OTHERS[1:], ended_before], running(3.85)) is None


def test_too_few_that_ended_stop_nothing() -> None:
    assert RULE.reason(BASE, OTHERS[:4], running(3.85)) is None
    without_curves = [Ended(one.loss_nats, one.rouge_l, []) for one in OTHERS[1:]]
    assert RULE.reason(BASE, [OTHERS[0], *without_curves], running(3.85)) is None


@pytest.mark.parametrize("loss", [math.nan, math.inf, 5.1])
def test_what_diverged_is_stopped_at_once_and_alone(loss: float) -> None:
    reason = RULE.reason(BASE, [], curve(loss))
    assert reason is not None
    assert reason.startswith("diverged at injection 1: loss ")


def test_one_that_was_good_before_it_got_worse_has_not_diverged() -> None:
    """Its result is its best checkpoint, which is a full one."""
    assert RULE.reason(BASE, [], curve(3.5, 5.5)) is None


def test_at_its_end_nothing_is_stopped() -> None:
    assert RULE.reason(BASE, OTHERS, curve(3.95, 3.94, 3.93, 3.92, 3.91)) is None
    assert RULE.reason(BASE, OTHERS, curve(3.95, 3.94, 3.93, 3.92)) is not None
    got_worse = curve(3.95, 3.94, 3.92, 3.93)
    assert RULE.reason(BASE, OTHERS, got_worse) is None


def test_a_line_through_two_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 3 ended trials for a line, got 2"):
        StoppingRule(fewest=2)


def test_a_curve_comes_back_from_what_is_stored() -> None:
    assert curve_of({"curve": [["tuning", 1, 8, 3.5]]}) == [Checkpoint("tuning", 1, 8, 3.5)]
    assert curve_of({"steps": 3}) == []
