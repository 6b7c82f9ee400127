"""The stopping rule by hand: five ended trials, and memories that do better, worse, or diverge."""

from __future__ import annotations

import math

import pytest

from search.stopping import Checkpoint, Ended, StoppingRule, curve_of, least_loss

BASE = 4.0
RULE = StoppingRule(fewest=5, errors=2.0, chance=0.2, diverged_nats=1.0)


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
    ("best", "least"),
    [
        (3.6, 3.5 - 2 * math.sqrt(1e-3 / 3 * 1.2)),
        (3.8, 3.7 - 2 * math.sqrt(1e-3 / 3 * (1.2 + 0.2**2 / 0.1))),
    ],
)
def test_how_a_memory_may_end_is_the_line_less_errors_of_prediction(
    best: float, least: float
) -> None:
    """Misses square to 1e-3 over three degrees of freedom; five trials, 0.1 about their mean."""
    assert least_loss(OTHERS, running(best)[-1], best, 2.0) == pytest.approx(least)


def test_no_memory_ends_with_more_loss_than_it_has_reached() -> None:
    at = running(3.45)[-1]
    got_worse = [Ended(o.loss_nats + 0.3, o.rouge_l, o.curve) for o in OTHERS]
    assert least_loss(got_worse, at, 3.45, 0.0) == 3.45


def test_where_all_had_reached_the_same_the_mean_is_expected() -> None:
    same = [ended(3.5, 3.4, 0.2), ended(3.5, 3.3, 0.2), ended(3.5, 3.2, 0.2)]
    assert least_loss(same, running(3.9)[-1], 3.9, 0.0) == pytest.approx(3.3)


def test_one_that_falls_with_what_was_reached_is_not_believed() -> None:
    falling = [ended(3.4, 3.3, 0.2), ended(3.5, 3.2, 0.2), ended(3.6, 3.1, 0.2)]
    assert least_loss(falling, running(3.9)[-1], 3.9, 0.0) == pytest.approx(3.2)


def test_one_whose_best_end_is_worse_than_the_best_is_dominated() -> None:
    """3.8 may come to 3.654: four of five have less, and none answers better than the best of
    them: one chance in six."""
    reason = RULE.reason(BASE, OTHERS, running(3.8))
    assert reason == "dominated at tuning 2: loss 3.8 may come to 3.654, 4 of 5 have less"


def test_one_that_may_still_come_among_them_goes_on() -> None:
    """3.45 may come to 3.306: none has less. 3.5 may come to 3.358: one has less, and where one
    other answers better than that it has two chances in six."""
    assert RULE.reason(BASE, OTHERS, running(3.45)) is None
    assert RULE.reason(BASE, OTHERS, running(3.5)) is not None
    other = [Ended(3.31, 0.23, OTHERS[0].curve), Ended(3.38, 0.24, OTHERS[1].curve), *OTHERS[2:]]
    assert RULE.reason(BASE, other, running(3.5)) is None


def test_the_end_with_the_best_answers_is_kept() -> None:
    """Where the best answers come with the most loss, what might reach that loss goes on."""
    answers_best = [*OTHERS[:4], ended(3.8, 3.69, 0.40)]
    assert RULE.reason(BASE, answers_best, running(3.8)) is None
    assert RULE.reason(BASE, answers_best, running(3.9)) is not None


def test_a_checkpoint_that_others_did_not_come_by_tells_nothing() -> None:
    ended_before = Ended(3.8, 0.2, curve(3.9, 3.8, 3.85))
    assert RULE.reason(BASE, [*OTHERS[1:], ended_before], running(3.85)) is None


def test_too_few_that_ended_stop_nothing() -> None:
    assert RULE.reason(BASE, OTHERS[:4], running(3.85)) is None
    without_curves = [Ended(one.loss_nats, one.rouge_l, []) for one in OTHERS[1:]]
    assert RULE.reason(BASE, [OTHERS[0], *without_curves], running(3.85)) is None


def test_few_that_ended_allow_no_small_chance() -> None:
    careful = StoppingRule(fewest=5, errors=2.0, chance=0.1, diverged_nats=1.0)
    assert careful.reason(BASE, OTHERS, running(3.85)) is None
    assert careful.reason(BASE, 2 * OTHERS, running(3.8))


def test_the_first_checkpoint_of_a_stage_stops_nothing_that_has_not_diverged() -> None:
    first = curve(3.95, 3.9, 4.9)
    assert RULE.reason(BASE, OTHERS, first) is None
    assert RULE.reason(BASE, OTHERS, curve(4.9)) is None


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
