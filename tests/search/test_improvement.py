"""The expected improvement: by hand, against BoTorch's own, and at its edges."""

import functools
import math

import numpy as np
import pytest
import torch
from botorch.acquisition.multi_objective.monte_carlo import qNoisyExpectedHypervolumeImprovement
from botorch.models import ModelListGP, SingleTaskGP
from botorch.sampling import SobolQMCNormalSampler

from search.improvement import expected_improvement
from search.pareto import oriented
from search.space import MemoryConfig
from search.surrogate import NAMES, Surrogate, fit
from tests.search.planted import BASE, OBJECTIVES, SPACE, planted

REFERENCE = oriented(OBJECTIVES, [BASE])[0]
GENERATOR = np.random.default_rng(3)
SEEN = list(dict.fromkeys(SPACE.sample(GENERATOR) for _ in range(16)))
EVERY = list(SPACE.enumerate())
PENDING = EVERY[100:400:100]
NOTHING = np.empty((0, SPACE.dimensions))


@functools.cache
def fitted(name: str) -> Surrogate:
    Y = oriented(OBJECTIVES, [planted(config) for config in SEEN])
    return fit(name, SPACE.features(SEEN), Y, 0)


def values(
    name: str, configs: list[MemoryConfig], pending: list[MemoryConfig], seed: int = 0
) -> np.ndarray:
    X, X_pending = SPACE.features(SEEN), SPACE.features(pending)
    return expected_improvement(fitted(name), X, X_pending, REFERENCE, seed)(
        SPACE.features(configs)
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pending", [[], PENDING], ids=["alone", "beside pending ones"])
@pytest.mark.filterwarnings("ignore:.*known numerical issues")
def test_it_is_botorchs_value(name: str, pending: list[MemoryConfig]) -> None:
    """Both are means over draws; BoTorch's draws the candidate as well."""
    surrogate, configs = fitted(name), EVERY[::11]
    torch.manual_seed(0)  # BoTorch prunes its baseline by the global generator
    theirs = qNoisyExpectedHypervolumeImprovement(
        model=surrogate.model,
        ref_point=surrogate.standardised(REFERENCE),
        X_baseline=torch.as_tensor(SPACE.features(SEEN)),
        sampler=SobolQMCNormalSampler(torch.Size([256]), seed=0),
        X_pending=torch.as_tensor(SPACE.features(pending)) if pending else None,
        prune_baseline=True,
    )
    with torch.no_grad():
        expected = theirs(torch.as_tensor(SPACE.features(configs)).unsqueeze(1)).numpy()
    found = values(name, configs, pending)
    high = expected > 0.2 * expected.max()
    np.testing.assert_allclose(found[high], expected[high], rtol=0.2)
    assert np.abs(np.log(found[high] / expected[high])).mean() < 0.08


def certain(Y: list[list[float]]) -> Surrogate:
    """Next to nothing is uncertain at these rows, evenly spaced from 0 to 1."""
    X = torch.linspace(0, 1, len(Y), dtype=torch.float64)[:, None]
    outcomes = torch.tensor(Y, dtype=torch.float64)
    noise = torch.full((len(Y), 1), 1e-6, dtype=torch.float64)
    models = [SingleTaskGP(X, outcomes[:, [j]], noise, outcome_transform=None) for j in range(2)]
    for model in models:
        model.covar_module.lengthscale = 0.1
    return Surrogate(ModelListGP(*models).eval(), np.zeros(2), np.ones(2))


def test_it_is_the_gain_in_hypervolume_where_all_is_certain() -> None:
    surrogate = certain([[1.0, 3.0], [3.0, 1.0], [2.0, 2.0]])
    X = np.array([[0.0], [0.5], [1.0]])
    gain = expected_improvement(surrogate, X[:2], X[:0], np.zeros(2), seed=0)
    # The stair of (1, 3) and (3, 1) over the corner covers 5; with (2, 2) it covers 6.
    np.testing.assert_allclose(gain(X), [0.0, 0.0, 1.0], atol=0.02)


def test_it_is_the_mean_over_what_the_candidate_may_turn_out_to_be() -> None:
    """Far from all rows it is anywhere; its gain is counted by inclusion and exclusion."""
    rows = [[0.5, 1.0], [1.0, 0.5]]
    surrogate, X = certain(rows), np.array([[0.0], [1.0]])
    gain = expected_improvement(surrogate, X, X[:0], np.array([-1.0, -1.0]), seed=0)
    far = torch.tensor([[50.0]], dtype=torch.float64)
    posterior = surrogate.model.posterior(far)
    deviation = np.sqrt(posterior.variance.detach().numpy())
    normal = np.random.default_rng(0).standard_normal((400_000, 2))
    above = np.maximum(posterior.mean.detach().numpy() + normal * deviation + 1, 0)
    taken = [np.minimum(above, side).prod(1) for side in ([1.5, 2.0], [2.0, 1.5], [1.5, 1.5])]
    gains = above.prod(1) - (taken[0] + taken[1] - taken[2])
    assert gain(far.numpy())[0] == pytest.approx(gains.mean(), rel=0.02)


@pytest.mark.parametrize("name", NAMES)
def test_there_is_always_something_that_may_be_gained(name: str) -> None:
    """So candidates can be told apart without a logarithm."""
    found = values(name, EVERY, [])
    assert np.isfinite(found).all()
    assert (found > 0).mean() > 0.95


def test_where_nothing_seen_clears_the_corner_all_above_it_is_gain() -> None:
    surrogate, X = certain([[-1.0, -1.0], [2.0, 3.0]]), np.array([[0.0], [1.0]])
    gain = expected_improvement(surrogate, X[:1], X[:0], np.zeros(2), seed=0)
    np.testing.assert_allclose(gain(X), [0.0, 6.0], atol=0.02)


def test_the_order_of_the_candidates_does_not_matter() -> None:
    there, back = values("gp", EVERY, []), values("gp", EVERY[::-1], [])
    np.testing.assert_allclose(there, back[::-1], rtol=1e-6)


def test_the_same_seed_gives_the_same_value_whatever_the_global_generator() -> None:
    first = values("map-saas", EVERY[:50], PENDING)
    torch.manual_seed(7)
    np.testing.assert_array_equal(values("map-saas", EVERY[:50], PENDING), first)
    other = values("map-saas", EVERY[:50], PENDING, seed=1)
    assert not np.array_equal(other, first)
    assert math.isclose(other.max(), first.max(), rel_tol=0.2)
