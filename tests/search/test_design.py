"""Sequences of points, and the design that a search begins with."""

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from search.design import (
    DEFAULT,
    Design,
    SequenceSampler,
    default_memory,
    sobol_points,
    uniform_points,
)
from search.samplers import Observation, Proposal
from search.space import BASE_CONFIG, MemoryConfig, SearchSpace
from tests.search.planted import BASE, SPACE, observed

Points = Callable[[int, int], Iterator[np.ndarray]]


@pytest.mark.parametrize("points", [sobol_points, uniform_points])
def test_points_lie_in_the_cube(points: Points) -> None:
    drawn = np.array([*itertools.islice(points(12, 0), 256)])
    assert drawn.shape == (256, 12)
    assert ((drawn >= 0) & (drawn < 1)).all()


def test_sobol_points_are_spread_more_evenly_than_uniform_ones() -> None:
    def unevenness(points: Points, seed: int) -> float:
        drawn = np.array([*itertools.islice(points(12, seed), 64)])
        counts = [np.histogram(column, 16, (0, 1))[0] for column in drawn.T]
        return float(np.var(counts))

    for seed in range(5):
        assert unevenness(sobol_points, seed) == 0  # four of 64 in each sixteenth
        assert unevenness(uniform_points, seed) > 1


def test_the_design_lasts_for_so_many_configurations_and_until_a_model_can_learn() -> None:
    configs = [SPACE.sample(np.random.default_rng(seed)) for seed in range(4)]
    design, anchor = Design("sobol", 3), Observation(BASE_CONFIG, BASE)
    assert design.remaining([anchor, *observed(configs[:2])], [])
    assert design.remaining([anchor, *observed(configs[:1])], configs[1:])
    assert not design.remaining([anchor, *observed(configs[:2])], configs[2:3])
    failed = [Observation(config, None) for config in configs[:3]]
    assert design.remaining([anchor, *failed, *observed(configs[3:])], [])


def test_a_short_design_of_sobol_points_begins_with_what_needs_no_search() -> None:
    wide = SearchSpace(40)
    assert default_memory(wide).rank == 32
    assert default_memory(wide).learning_rate == 1e-3
    assert len(default_memory(wide).layers) == 32
    narrow = SearchSpace(3, (8, 16), (5e-4,), search_layers=False, search_number=False)
    assert default_memory(narrow) == MemoryConfig((0, 1, 2), 16, 5e-4)
    assert default_memory(narrow) in narrow
    sequence = [p.config for p in SequenceSampler("sobol").walk(SPACE, (), 4, 7)]
    first = default_memory(SPACE)
    assert (
        Design("sobol", 4).points(SPACE, 4, 7) == [first, *(c for c in sequence if c != first)][:4]
    )
    begins = Design("sobol", 4).next(SPACE, (), 7)
    assert begins == Proposal(first, DEFAULT)
    after = Design("sobol", 4).next(SPACE, [first], 7)
    assert after is not None
    assert after.config == next(c for c in sequence if c != first)
    assert Design("sobol", 12).points(SPACE, 4, 7) == sequence
    random = [p.config for p in SequenceSampler("random").walk(SPACE, (), 4, 7)]
    assert Design("random", 4).points(SPACE, 4, 7) == random
