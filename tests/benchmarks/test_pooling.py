"""Expectations pooled over users: what they are worth where users are alike, and where not."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from botorch.models import SingleTaskGP

from benchmarks.pooling import expectation, fit, held_out
from search import surrogate
from search.design import Design
from search.samplers import Evidence, Observation
from search.space import MemoryConfig
from search.surrogate import Surrogate
from tests.search.planted import BASE, SPACE, planted

TRIALS = 10  # of the new user
Measure = Callable[[MemoryConfig], tuple[float, float]]


def shown(measure: Measure, seed: int) -> Evidence:
    """A user's study of twenty configurations."""
    configs = Design("sobol", 20).points(SPACE, 20, seed)
    return Evidence(tuple(Observation(config, measure(config)) for config in configs), BASE)


def reversed_planted(config: MemoryConfig) -> tuple[float, float]:
    """To this user all that is good is bad."""
    loss, rouge_l = planted(config)
    return 7 - loss, 0.3 - rouge_l


def features(configs: list[MemoryConfig]) -> np.ndarray:
    return SPACE.features(configs, derived=True)


def better(configs: list[MemoryConfig]) -> np.ndarray:
    """What the new user measures, where bigger is better."""
    return np.array([planted(config) for config in configs]) * (-1, 1)


TRIED = Design("sobol", TRIALS).points(SPACE, TRIALS, 99)
UNSEEN = [c for c in Design("random", 100).points(SPACE, 100, 7) if c not in TRIED]


@functools.cache
def fitted(measure: Measure | None) -> Surrogate:
    """The new user's surrogate after users to whom this is good; `gp` itself after none."""
    X, Y = features(TRIED), better(TRIED)
    if measure is None:
        return surrogate.fit("gp", X, Y, 0, SPACE.layer_count)
    parts = expectation(SPACE, [shown(measure, seed) for seed in range(3)])
    return fit(parts, "gp", X, Y, 0, SPACE.layer_count)


def predicted(found: Surrogate) -> np.ndarray:
    """`n x m` at what was not tried."""
    with torch.no_grad():
        means: np.ndarray = found.model.posterior(torch.as_tensor(features(UNSEEN))).mean.numpy()
    return means * found.scale + found.mean


def errors(found: Surrogate) -> np.ndarray:
    """`m` mean squares, as shares of the variance."""
    away = predicted(found) - better(UNSEEN)
    shares: np.ndarray = (away**2).mean(0) / better(UNSEEN).var(0)
    return shares


def test_what_users_who_are_alike_found_is_learned_from_them() -> None:
    assert (errors(fitted(planted)) < 0.5 * errors(fitted(None))).all()


def test_users_to_whom_other_things_are_good_change_nothing() -> None:
    np.testing.assert_allclose(predicted(fitted(reversed_planted)), predicted(fitted(None)))


def test_without_other_users_nothing_is_expected() -> None:
    assert expectation(SPACE, []) == ()
    assert expectation(SPACE, [Evidence(shown(planted, 0).observations[:5])]) == ()


def test_held_out_densities_are_those_of_a_process_that_never_saw_the_outcome() -> None:
    X, y = (torch.as_tensor(a) for a in (features(TRIED), better(TRIED)[:, [0]]))
    model = SingleTaskGP(X, y, outcome_transform=None)
    found = held_out(model)
    for i in range(TRIALS):
        others = [j for j in range(TRIALS) if j != i]
        rest = SingleTaskGP(X[others], y[others], outcome_transform=None)
        rest.load_state_dict(model.state_dict())
        with torch.no_grad():
            seen = rest.posterior(X[[i]], observation_noise=True)
            normal = torch.distributions.Normal(seen.mean, seen.variance.sqrt())
            assert found[i] == pytest.approx(normal.log_prob(y[[i]]).item(), abs=1e-6)
