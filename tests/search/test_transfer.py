"""Portfolios: what other users' studies advise, and when they advise nothing."""

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from search.design import Design
from search.pareto import hypervolume
from search.samplers import Evidence, Observation, SamplerSettings, initial_count, make_sampler
from search.source import directions
from search.space import BASE_CONFIG, MemoryConfig
from search.transfer import (
    FACTORS,
    FEWEST_SOURCES,
    LARGEST,
    _contrasts,
    _greedy,
    _length,
    portfolio,
)
from tests.search.planted import BASE, OBJECTIVES, SPACE, planted

DESIGN = Design("sobol", initial_count(24))
USERS = 5

Measure = Callable[[MemoryConfig], tuple[float, float]]


def evidence(measure: Measure, seed: int, trials: int = 24) -> Evidence:
    """A user's study of random configurations."""
    drawn = make_sampler(SamplerSettings("random", 0)).suggest(
        SPACE, OBJECTIVES, [], [], trials, seed
    )
    told = [Observation(proposal.config, measure(proposal.config)) for proposal in drawn]
    return Evidence((Observation(BASE_CONFIG, BASE), *told), BASE)


@functools.cache
def alike() -> list[Evidence]:
    """Users to whom the same configurations are good."""
    return [evidence(planted, seed) for seed in range(USERS)]


def noise(seed: int) -> Measure:
    """A user whose configurations differ by luck alone."""
    generator = np.random.default_rng(seed)
    return lambda _: (3.5 + 0.1 * generator.standard_normal(), 0.2 + 0.02 * generator.random())


def reached(configs: Sequence[MemoryConfig]) -> float:
    return hypervolume(OBJECTIVES, [planted(config) for config in configs], BASE)


def test_users_who_are_alike_advise_what_reaches_more_than_a_design() -> None:
    advice = portfolio(SPACE, OBJECTIVES, alike(), DESIGN)
    assert 1 <= len(advice) <= LARGEST
    tried = {o.config for user in alike() for o in user.observations}
    assert advice[0] in tried
    assert len(tried.intersection(advice)) >= len(advice) - len(FACTORS)
    drawn = [reached(DESIGN.points(SPACE, len(advice), seed)) for seed in range(20)]
    assert reached(advice) > np.quantile(drawn, 0.9)


def test_the_same_evidence_gives_the_same_advice() -> None:
    first = portfolio(SPACE, OBJECTIVES, alike(), DESIGN)
    np.random.seed(1)
    again = [Evidence(user.observations, user.reference) for user in alike()]
    assert portfolio(SPACE, OBJECTIVES, again, DESIGN) == first


@pytest.mark.parametrize("seed", range(3))
def test_users_who_share_nothing_advise_nothing(seed: int) -> None:
    strangers = [evidence(noise(10 * seed + user), user) for user in range(USERS)]
    assert portfolio(SPACE, OBJECTIVES, strangers, DESIGN) == ()


def test_too_few_users_or_trials_advise_nothing() -> None:
    assert portfolio(SPACE, OBJECTIVES, [], DESIGN) == ()
    assert portfolio(SPACE, OBJECTIVES, alike()[: FEWEST_SOURCES - 1], DESIGN) == ()
    short = [Evidence(user.observations[:8]) for user in alike()]
    assert portfolio(SPACE, OBJECTIVES, short, DESIGN) == ()
    assert portfolio(SPACE, OBJECTIVES, alike(), Design("sobol", 1)) == ()


def test_users_without_anything_above_their_reference_point_are_passed_over() -> None:
    poor = [Evidence(user.observations, (0.1, 0.9)) for user in alike()]
    assert portfolio(SPACE, OBJECTIVES, [*alike(), *poor], DESIGN) == portfolio(
        SPACE, OBJECTIVES, alike(), DESIGN
    )
    assert portfolio(SPACE, OBJECTIVES, poor, DESIGN) == ()


def test_failed_trials_are_no_examples() -> None:
    config = MemoryConfig((1, 4, 6), 16, 1e-3)  # would be the best of all
    failed = [
        Evidence((*user.observations, Observation(config, values)), user.reference)
        for user, values in zip(alike(), [None, (math.nan, 1.0)] * USERS, strict=False)
    ]
    assert portfolio(SPACE, OBJECTIVES, failed, DESIGN) == portfolio(
        SPACE, OBJECTIVES, alike(), DESIGN
    )


@pytest.mark.parametrize(("count", "whole"), [(2, math.pi / 4), (3, math.pi / 6)])
def test_the_mean_over_directions_is_the_hypervolume(count: int, whole: float) -> None:
    """Times the volume of the unit ball's positive orthant."""
    rays = directions(count)
    np.testing.assert_allclose(np.linalg.norm(rays, axis=1), 1)
    points = np.random.default_rng(0).random((6, count)) + 0.2
    reach = (points[:, None] / rays).min(-1) ** count
    maximise = [type(OBJECTIVES[0])(f"y{j}", True, "") for j in range(count)]
    expected = hypervolume(maximise, points.tolist(), (0.0,) * count)
    assert math.isclose(whole * reach.max(0).mean(), expected, rel_tol=0.05)


def test_the_greedy_choice_by_hand() -> None:
    """The best for both users first, then what the others lack, then nothing more to gain."""
    table = np.array(
        [
            [[0.5, 0.5], [1.0, 0.0], [0.0, 0.0], [0.5, 0.5]],
            [[0.5, 0.5], [0.0, 0.0], [0.0, 0.9], [0.4, 0.5]],
        ]
    )
    assert _greedy(table, 4) == [0, 1, 2]
    assert _greedy(table, 1) == [0]


def test_a_portfolio_is_as_long_as_is_clearly_worth_it() -> None:
    """Of `u x n` gains by length: nothing, all that helps, and no more than that."""
    luck = np.array([0.0, 0.1, -0.1, 0.2, -0.2])[:, None]

    def length(*means: float, spread: float) -> int:
        return _length(np.add(spread * luck * np.arange(len(means)), means))

    assert length(0, 0, 0, 0, spread=1) == 0
    assert length(0, spread=1) == 0
    assert length(0, -1, -1, -1, spread=0.01) == 0
    assert length(0, 0.3, 0.3, 0.3, spread=0.01) == 1
    assert length(0, 0.1, 0.2, 0.1, spread=0.01) == 2
    assert length(0, 0.1, 0.2, 0.3, spread=0.01) == 3
    assert length(0, 0.1, 0.2, 0.201, spread=0.5) == 0


def test_the_first_two_come_again_at_other_learning_rates() -> None:
    """Half a decade away: a step of this space's rates."""
    rates = SPACE.learning_rates
    first, second, third = (MemoryConfig((1, layer), 16, rates[2]) for layer in (2, 3, 4))
    above, below = list(_contrasts(SPACE, [first, second, third]))
    assert above == MemoryConfig(first.layers, 16, rates[3])
    assert below == MemoryConfig(second.layers, 16, rates[1])
    highest = MemoryConfig((1, 2), 16, rates[-1])
    assert list(_contrasts(SPACE, [highest])) == []
    assert list(_contrasts(SPACE, [])) == []
