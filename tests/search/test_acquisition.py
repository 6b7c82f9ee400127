"""The maximiser of the acquisition function, against trying everything."""

import functools
from collections.abc import Sequence

import numpy as np
import pytest

from search.acquisition import Value, local_search
from search.improvement import expected_improvement
from search.pareto import oriented
from search.space import MemoryConfig, SearchSpace
from search.surrogate import fit
from tests.search.planted import BASE, OBJECTIVES, SPACE, planted

REFERENCE = oriented(OBJECTIVES, [BASE])[0]
GENERATOR = np.random.default_rng(3)
SEEN = list(dict.fromkeys(SPACE.sample(GENERATOR) for _ in range(16)))
EVERY = list(SPACE.enumerate())


@functools.cache
def acquisition(name: str, pending: tuple[MemoryConfig, ...] = ()) -> Value:
    """The value of configurations, given what was seen."""
    features = functools.partial(SPACE.features, derived=name == "gp")
    Y = oriented(OBJECTIVES, [planted(config) for config in SEEN])
    surrogate = fit(name, features(SEEN), Y, 0)
    X, X_pending = features(SEEN), features(pending)
    values = expected_improvement(surrogate, X, X_pending, REFERENCE, 0)
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


@pytest.mark.parametrize("seed", range(3))
def test_local_search_finds_a_higher_hill_of_another_rank(seed: int) -> None:
    """What is known lies on one hill; from there every step towards the other leads down."""
    space = SearchSpace(16, ranks=(8, 16, 32, 64), learning_rates=(1e-4, 1e-3, 1e-2))
    known, top = MemoryConfig(tuple(range(10)), 32, 1e-3), MemoryConfig((1, 3, 5, 7), 64, 1e-3)

    def away(config: MemoryConfig, other: MemoryConfig) -> float:
        steps = len({*config.layers} ^ {*other.layers})
        return steps + 4 * (config.rank != other.rank) + (config.learning_rate != 1e-3)

    def value(configs: Sequence[MemoryConfig]) -> np.ndarray:
        hills = [(9 - away(c, known), 12 - 2 * away(c, top), 0.0) for c in configs]
        return np.array([max(heights) for heights in hills])

    starts = [known, *space.neighbours(known)[:3]]
    generator = np.random.default_rng(seed)
    assert local_search(value, space, (), starts=starts, generator=generator) == top


def test_local_search_goes_by_the_value_and_not_by_its_screen() -> None:
    space = SearchSpace(16, ranks=(8, 16, 32), learning_rates=(1e-3,))
    top = MemoryConfig((2, 3, 5, 7), 16, 1e-3)
    valued: list[MemoryConfig] = []

    def away(configs: Sequence[MemoryConfig]) -> np.ndarray:
        return np.array([len({*c.layers} ^ {*top.layers}) + (c.rank != 16) for c in configs])

    def value(configs: Sequence[MemoryConfig]) -> np.ndarray:
        valued.extend(configs)
        return -away(configs)

    def screen(configs: Sequence[MemoryConfig]) -> np.ndarray:
        """Its top is one step from the true one."""
        return -away(configs) + 1.5 * np.array([c.layers == (2, 3, 5, 7, 9) for c in configs])

    generator = np.random.default_rng(0)
    found = local_search(value, space, (), generator=generator, screen=screen)
    assert found == top
    assert len(valued) < 250  # of 196,605


def test_exchanges_put_another_layer_in_the_place_of_one() -> None:
    sets = SearchSpace(4, ranks=(8,), learning_rates=(1e-3,)).sets
    assert sets.exchanges((0, 3)) == [(1, 3), (2, 3), (0, 1), (0, 2)]
    assert sets.exchanges((0, 1, 2, 3)) == []
    assert SearchSpace(4, search_layers=False).sets.exchanges((0, 3)) == []


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


@pytest.mark.parametrize("name", ["gp", "map-saas"])
def test_what_is_pending_is_worth_less(name: str) -> None:
    best = EVERY[int(every_value(name).argmax())]
    alone = acquisition(name)([best])[0]
    beside_itself = acquisition(name, pending=(best,))([best])[0]
    assert beside_itself < alone / 3
