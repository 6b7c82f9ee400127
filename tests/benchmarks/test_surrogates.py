"""Variants of the surrogate: each is fitted, sees what it says it sees, and searches."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.cohorts import Extent
from benchmarks.searches import searched
from benchmarks.surrogates import VARIANTS, Smeared, cohort, fit
from search.design import DEFAULT
from search.space import MemoryConfig
from search.surrogate import Surrogate

COHORT = cohort(8, list(VARIANTS), Extent(1, 1, 8))
(PROBLEM,) = COHORT.problems
SPACE = PROBLEM.space
GENERATOR = np.random.default_rng(0)
SEEN = list(dict.fromkeys(SPACE.sample(GENERATOR) for _ in range(40)))


def features(*configs: MemoryConfig) -> np.ndarray:
    return SPACE.features(configs, derived=True)


def fitted(variant: str) -> Surrogate:
    """To the negative of the loss, and to ROUGE-L."""
    return fit(variant, "gp", features(*SEEN), PROBLEM.true(SEEN) * (-1, 1), 0)


def likeness(variant: str, first: tuple[int, ...], second: tuple[int, ...]) -> float:
    """The prior covariance of two sets of layers, all else equal, before anything is fitted."""
    kernel, smears = VARIANTS[variant]
    made = kernel(12)
    rows = torch.as_tensor(features(*(MemoryConfig(s, 32, 1e-3) for s in (first, second))))
    rows = Smeared(12)(rows) if smears else rows
    with torch.no_grad():
        return float(made(rows).to_dense()[0, 1])


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_predicts_what_it_has_not_seen(variant: str) -> None:
    unseen = [c for c in (SPACE.sample(GENERATOR) for _ in range(100)) if c not in SEEN]
    surrogate = fitted(variant)
    rows = torch.as_tensor(features(*unseen))
    for j, model in enumerate(surrogate.model.models):
        with torch.no_grad():
            predicted = model.posterior(rows).mean.numpy()[:, 0]
        true = PROBLEM.true(unseen)[:, j] * (-1, 1)[j]
        assert np.corrcoef(predicted, true)[0, 1] > 0.5


@pytest.mark.parametrize("variant", ["smooth", "smooth-one", "smooth-own", "additive"])
def test_smeared_layers_are_like_their_neighbours(variant: str) -> None:
    assert likeness(variant, (1,), (2,)) > likeness(variant, (1,), (6,)) + 1e-4


@pytest.mark.parametrize("variant", ["size", "plain", "matern", "one-scale", "hamming", "own"])
def test_others_know_no_neighbours(variant: str) -> None:
    assert likeness(variant, (1,), (2,)) == pytest.approx(likeness(variant, (1,), (6,)))
    assert likeness(variant, (1, 2), (1, 3)) > likeness(variant, (1, 2), (3, 4)) + 1e-4


def test_a_variant_searches_under_its_own_name(tmp_path: Path) -> None:
    contender = next(c for c in COHORT.contenders if c.name == "own")
    trace = searched(PROBLEM, contender, 0, tmp_path)
    assert trace.contender == "own"
    assert trace.sources == [DEFAULT] + ["sobol"] * 3 + ["gp"] * 4
    assert COHORT.default == "size"
