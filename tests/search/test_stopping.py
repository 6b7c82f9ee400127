"""The stopping rule by hand: five ended trials, and memories that do better, worse, or diverge."""

from __future__ import annotations

import math

import pytest

from search.stopping import Checkpoint, Ended, StoppingRule, curve_of, gains_from

BASE = 4.0
RULE = StoppingRule(fewest=5, deviations=2.0, chance=0.2, diverged_nats=1.0)


def curve(*losses: float, stages: tuple[int, int] = (2, 3)) -> list[Checkpoint]:
    """Losses after two epochs of injection, then up to three of tuning, four steps each."""
    places = [("injection", e + 1) for e in range(stages[0])]
    places += [("tuning", e + 1) for e in range(stages[1])]
    at = enumerate(zip(places, losses, strict=False))
    return [Checkpoint(*place, 4 * (i + 1), loss) for i, (place, loss) in at]


def ended(gain: float, loss: float, rouge_l: float) -> Ended:
    """A trial that gained so much after the second epoch of tuning, and ended at this loss."""
    return Ended(loss, rouge_l, curve(3.9, 3.8, 3.7, loss + gain, loss))


# Gains from tuning 2: mean 0.04, standard deviation 0.02; at most 0.08 is expected of others.
OTHERS = [
    ended(0.02, 3.50, 0.20),
    ended(0.02, 3.45, 0.21),
    ended(0.04, 3.40, 0.22),
    ended(0.06, 3.35, 0.24),
    ended(0.06, 3.30, 0.23),
]


def running(loss: float) -> list[Checkpoint]:
    """A memory at its second epoch of tuning."""
    return curve(3.95, 3.9, 3.85, loss)


def test_what_others_gained_is_counted_from_their_best_at_the_same_checkpoint() -> None:
    at = running(3.6)[-1]
    assert gains_from(OTHERS, at) == pytest.approx([0.02, 0.02, 0.04, 0.06, 0.06])
    got_worse = Ended(3.3, 0.2, curve(3.9, 3.5, 3.4, 3.6, 3.3))
    assert gains_from([got_worse], at) == pytest.approx([0.1])
    ended_before = Ended(3.8, 0.2, curve(3.9, 3.8, 3.85))
    assert gains_from([ended_before], at) == []


def test_one_whose_best_end_is_worse_than_all_is_dominated() -> None:
    """3.6 may come to 3.52: five of five have less, and none answers better than the best of them:
    one chance in six."""
    reason = RULE.reason(BASE, OTHERS, running(3.6))
    assert reason == "dominated at tuning 2: loss 3.6 may come to 3.52, 5 of 5 have less"


def test_one_that_may_still_come_among_them_goes_on() -> None:
    """3.5 may come to 3.42: of those with less loss the best answers have 0.24, which none beats,
    so it is dominated too; 3.41 may come to 3.33: one has less, and one answers better than that,
    two chances in six."""
    assert RULE.reason(BASE, OTHERS, running(3.50))
    assert RULE.reason(BASE, OTHERS, running(3.41)) is None


def test_the_end_with_the_best_answers_is_kept() -> None:
    """Where the best answers come with the most loss, what might reach that loss goes on."""
    answers_best = [*OTHERS[1:], ended(0.02, 3.55, 0.40)]
    assert RULE.reason(BASE, answers_best, running(3.6)) is None
    assert RULE.reason(BASE, answers_best, running(3.7))


def test_too_few_that_ended_stop_nothing() -> None:
    assert RULE.reason(BASE, OTHERS[:4], running(3.8)) is None
    without_curves = [Ended(one.loss_nats, one.rouge_l, []) for one in OTHERS[1:]]
    assert RULE.reason(BASE, [OTHERS[0], *without_curves], running(3.8)) is None


def test_few_that_ended_allow_no_small_chance() -> None:
    careful = StoppingRule(fewest=5, deviations=2.0, chance=0.1, diverged_nats=1.0)
    assert careful.reason(BASE, OTHERS, running(3.8)) is None
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


def test_a_curve_comes_back_from_what_is_stored() -> None:
    assert curve_of({"curve": [["tuning", 1, 8, 3.5]]}) == [Checkpoint("tuning", 1, 8, 3.5)]
    assert curve_of({"steps": 3}) == []
