"""Surrogates: they learn what was planted, don't depend on outside randomness, fail by name."""

import functools

import numpy as np
import pytest
import torch

from search.pareto import oriented
from search.surrogate import NAMES, FitError, fit, pull_in
from tests.search.planted import OBJECTIVES, SPACE, planted

GENERATOR = np.random.default_rng(0)
CONFIGS = list(dict.fromkeys(SPACE.sample(GENERATOR) for _ in range(64)))
X = SPACE.features(CONFIGS)
Y = oriented(OBJECTIVES, [planted(config) for config in CONFIGS])
TRAIN, TEST = slice(0, 24), slice(24, None)


def predicted(name: str, outcomes: np.ndarray, seed: int = 0) -> torch.Tensor:
    """Means at the test points, on the standardised scale."""
    model = fit(name, X[TRAIN], outcomes[TRAIN], seed).model
    with torch.no_grad():
        means: torch.Tensor = model.posterior(torch.as_tensor(X[TEST])).mean
    return means.mean(0) if means.ndim == 3 else means  # over an ensemble's members


@functools.cache
def usual(name: str) -> torch.Tensor:
    """What most tests compare with."""
    return predicted(name, Y)


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    ranks = [np.argsort(np.argsort(values)).astype(float) for values in (a, b)]
    return float(np.corrcoef(np.stack(ranks))[0, 1])


@pytest.mark.parametrize("name", NAMES)
def test_it_ranks_what_it_has_not_seen(name: str) -> None:
    means = usual(name).numpy()
    assert means.dtype == np.float64
    assert all(rank_correlation(means[:, j], Y[TEST, j]) > 0.6 for j in range(2))


@pytest.mark.parametrize("name", NAMES)
def test_the_scale_of_an_objective_does_not_matter(name: str) -> None:
    """Not at all for powers of two, which lose no digits."""
    assert torch.equal(usual(name), predicted(name, Y * [2.0**20, 2.0**-20]))


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_fit_whatever_the_global_generator(name: str) -> None:
    first = usual(name)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert torch.equal(predicted(name, Y), first)
    assert torch.equal(torch.get_rng_state(), state)


def test_another_seed_gives_the_ensemble_other_shrinkage() -> None:
    assert not torch.equal(usual("map-saas"), predicted("map-saas", Y, seed=1))


def test_bad_outliers_are_pulled_in_and_good_ones_are_not() -> None:
    column = np.array([1.0, 2.0, 3.0, 4.0, 5.0, -1000.0])
    # Quartiles 1.25 and 3.75, so the outer fence is at 1.25 - 3 x 2.5.
    assert pull_in(column[:, None])[:, 0].tolist() == [1, 2, 3, 4, 5, -6.25]
    assert pull_in(-column[:, None])[:, 0].tolist() == (-column).tolist()
    flat = np.array([[1.0], [1.0], [1.0], [1.0], [0.0]])
    assert pull_in(flat).tolist() == flat.tolist()


@pytest.mark.parametrize("name", NAMES)
def test_one_diverged_trial_does_not_hide_the_others(name: str) -> None:
    diverged = Y.copy()
    diverged[0] = [-1e4, 0.0]
    means = predicted(name, diverged).numpy()
    assert rank_correlation(means[:, 0], Y[TEST, 0]) > 0.6


@pytest.mark.parametrize("name", NAMES)
def test_constant_objectives_are_fitted(name: str) -> None:
    assert torch.isfinite(predicted(name, np.column_stack([Y[:, 0], np.zeros(len(Y))]))).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_fit_that_fails_says_so(name: str) -> None:
    with pytest.raises(FitError, match=f"{name} on 24 trials"):
        predicted(name, np.full_like(Y, np.nan))


def test_an_unknown_surrogate_is_refused() -> None:
    with pytest.raises(ValueError, match="surrogate of gp, map-saas, saas, got 'rbf'"):
        fit("rbf", X, Y, 0)
