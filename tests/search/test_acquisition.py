"""The acquisition function and its maximiser, against trying everything."""

import functools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from botorch.acquisition.multi_objective import logei
from botorch.models import ModelListGP, SingleTaskGP

from search.acquisition import Value, expected_improvement, local_search
from search.pareto import oriented
from search.samplers import AcquisitionName
from search.space import MemoryConfig, SearchSpace
from search.surrogate import NAMES, Surrogate, fit
from tests.search.planted import BASE, OBJECTIVES, SPACE, planted

REFERENCE = oriented(OBJECTIVES, [BASE])[0]
GENERATOR = np.random.default_rng(3)
SEEN = list(dict.fromkeys(SPACE.sample(GENERATOR) for _ in range(16)))
EVERY = list(SPACE.enumerate())
KINDS: tuple[AcquisitionName, AcquisitionName] = ("qnehvi", "qlognehvi")


@functools.cache
def acquisition(
    name: str, pending: tuple[MemoryConfig, ...] = (), kind: AcquisitionName = "qlognehvi"
) -> Value:
    """The value of configurations, given what was seen."""
    features = functools.partial(SPACE.features, derived=name == "gp")
    Y = oriented(OBJECTIVES, [planted(config) for config in SEEN])
    surrogate = fit(name, features(SEEN), Y, 0)
    X, X_pending = features(SEEN), features(pending)
    values = expected_improvement(surrogate, X, X_pending, REFERENCE, 0, kind)
    return lambda configs: values(features(configs))


@functools.cache
def every_value(name: str) -> np.ndarray:
    """The value of every configuration of the space."""
    return np.asarray(acquisition(name)(EVERY))


@pytest.mark.parametrize("name", ["gp", "map-saas"])
@pytest.mark.parametrize("seed", [0, 1])
def test_local_search_finds_the_best_of_all(name: str, seed: int) -> None:
    """It looks at a fraction of the space and finds what exhaustive search finds."""
    looked: set[MemoryConfig] = set()

    def value(configs: Sequence[MemoryConfig]) -> np.ndarray:
        looked.update(configs)
        return np.asarray(acquisition(name)(configs))

    generator = np.random.default_rng(seed)
    found = local_search(value, SPACE, {*SEEN}, generator=generator)
    untaken = [(v, c) for v, c in zip(every_value(name), EVERY, strict=True) if c not in SEEN]
    assert found is not None
    assert acquisition(name)([found])[0] == pytest.approx(max(v for v, _ in untaken), abs=1e-9)
    assert len(looked) < len(EVERY) / 3
    assert not looked & {*SEEN}


def test_local_search_climbs_where_the_pool_is_poor() -> None:
    """On a smooth hill of 30 layers, whose top no random pool holds."""
    space = SearchSpace(30, ranks=(8, 16, 32), learning_rates=(1e-4, 1e-3, 1e-2))
    top = MemoryConfig(tuple(range(0, 30, 3)), 16, 1e-3)

    def value(configs: Sequence[MemoryConfig]) -> np.ndarray:
        distances: np.ndarray = np.abs(space.features(configs) - space.encode(top)).sum(1)
        return -distances

    assert local_search(value, space, (), generator=np.random.default_rng(0)) == top
    beside = local_search(value, space, {top}, generator=np.random.default_rng(0))
    assert beside in space.neighbours(top)


def test_local_search_looks_beside_its_starts() -> None:
    space = SearchSpace(30)
    start = MemoryConfig((3,), 8, 1e-4)
    needle = MemoryConfig((3, 7), 8, 1e-4)

    def value(configs: Sequence[MemoryConfig]) -> np.ndarray:
        return np.array([float(config == needle) for config in configs])

    generator = np.random.default_rng(0)
    assert local_search(value, space, {start}, starts=[start], generator=generator) == needle


def test_where_everything_is_taken_nothing_is_found() -> None:
    space = SearchSpace(2, ranks=(8,), learning_rates=(1e-3,))

    def value(configs: Sequence[MemoryConfig]) -> np.ndarray:
        return np.zeros(len(configs))

    every = set(space.enumerate())
    assert local_search(value, space, every, generator=np.random.default_rng(0)) is None


@pytest.mark.parametrize("name", NAMES)
def test_the_improvement_and_its_logarithm_prefer_the_same(name: str) -> None:
    """Both by sampling, the logarithm smoothed: alike where there is something to gain."""
    plain, log = (np.asarray(acquisition(name, (), k)(EVERY[::7])) for k in KINDS)
    assert (plain >= 0).all()
    assert plain.max() > 0.01
    high = plain > 0.1 * plain.max()
    assert np.abs(np.log(plain[high]) - log[high]).max() < 0.2


@pytest.mark.parametrize("name", ["gp", "map-saas"])
def test_what_is_pending_is_worth_less(name: str) -> None:
    best = EVERY[int(every_value(name).argmax())]
    alone = acquisition(name)([best])[0]
    beside_itself = acquisition(name, pending=(best,))([best])[0]
    assert beside_itself < alone - 1


def test_the_value_is_the_expected_gain_in_hypervolume() -> None:
    """By hand, where next to nothing is uncertain."""
    X = torch.tensor([[0.0], [1.0], [0.5]], dtype=torch.float64)
    Y = torch.tensor([[1.0, 3.0], [3.0, 1.0], [2.0, 2.0]], dtype=torch.float64)
    noise = torch.full((3, 1), 1e-6, dtype=torch.float64)
    models = [SingleTaskGP(X, Y[:, [j]], noise, outcome_transform=None) for j in range(2)]
    certain = Surrogate(ModelListGP(*models).eval(), np.zeros(2), np.ones(2))
    plain, log = (
        expected_improvement(certain, X[:2].numpy(), np.empty((0, 1)), np.zeros(2), 0, kind)
        for kind in KINDS
    )
    # The stair of (1, 3) and (3, 1) over the corner covers 5; with (2, 2) it covers 6.
    assert plain(X[2:].numpy())[0] == pytest.approx(1.0, abs=0.02)
    assert math.exp(log(X[2:].numpy())[0]) == pytest.approx(1.0, abs=0.02)


def test_botorch_compiles_nothing() -> None:
    acquisition("gp")
    assert logei._C is None
