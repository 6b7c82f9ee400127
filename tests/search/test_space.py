"""The search space: canonical form by hand, its laws over whole small spaces."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest

from search.layers import spread
from search.space import BASE_CONFIG, MemoryConfig, SearchSpace

# Every combination of the ablation switches, of rank and rate searched or fixed, and of a budget
# below and at the number of layers.
SPACES = [
    SearchSpace(5, ranks, rates, count, layers, number)
    for ranks, rates, count, layers, number in itertools.product(
        [(8, 16, 96), (16,)], [(1e-4, 1e-3, 1e-2), (5e-4,)], [3, 5], [True, False], [True, False]
    )
]
whole_spaces = pytest.mark.parametrize("space", SPACES, ids=str)


@pytest.mark.parametrize(
    ("marked", "count", "layers"),
    [
        ("11111111", 8, (0, 1, 2, 3, 4, 5, 6, 7)),
        ("11111111", 2, (0, 7)),
        ("11111111", 3, (0, 4, 7)),
        ("11111111", 1, (4,)),
        ("01011010", 8, (1, 3, 4, 6)),
        ("01011010", 3, (1, 4, 6)),
        ("01011010", 0, ()),
        ("00000000", 8, ()),
    ],
)
def test_a_budget_keeps_evenly_spaced_layers(
    marked: str, count: int, layers: tuple[int, ...]
) -> None:
    config = SearchSpace(8).canonical([mark == "1" for mark in marked], count, 16, 1e-3)
    assert config == MemoryConfig(layers, 16, 1e-3)


def test_spread_keeps_the_count_and_both_ends() -> None:
    for size, count in itertools.product(range(1, 40), range(2, 40)):
        kept = spread(range(size), count)
        assert len({*kept}) == min(size, count)
        assert kept[0] == 0
        assert kept[-1] == size - 1


def test_ablations_by_hand() -> None:
    def drawn(layers: bool, number: bool) -> MemoryConfig:
        space = SearchSpace(6, max_count=4, search_layers=layers, search_number=number)
        return space.canonical([False, True, True, False, False, False], 1, 8, 1e-3)

    assert drawn(layers=True, number=True).layers == (2,)
    assert drawn(layers=True, number=False).layers == (1, 2)
    assert drawn(layers=False, number=True).layers == (3,)
    assert drawn(layers=False, number=False).layers == (0, 2, 3, 5)


def test_ranks_above_half_of_the_smallest_dimension_are_left_out_and_said() -> None:
    space, left_out = SearchSpace.for_base(4, 64)
    assert (space.ranks, left_out) == ((8, 16, 32), (64, 96))
    assert SearchSpace.for_base(4, 192)[1] == ()
    fixed, left_out = SearchSpace.for_base(4, 64, ranks=(32,))
    assert (fixed.ranks, fixed.search_size, left_out) == ((32,), False, ())
    with pytest.raises(ValueError, match="half the base's smallest"):
        SearchSpace.for_base(4, 15)


def test_no_more_than_32_layers_hold_a_memory_by_default() -> None:
    assert (SearchSpace(40).max_count, SearchSpace(12).max_count) == (32, 12)
    assert SearchSpace(32).dimensions == 35


@pytest.mark.parametrize(
    "wrong",
    [
        {"layer_count": 0},
        {"layer_count": 4, "max_count": 0},
        {"layer_count": 4, "ranks": ()},
        {"layer_count": 4, "ranks": (16, 8)},
        {"layer_count": 4, "learning_rates": (0.0, 1e-3)},
    ],
)
def test_an_impossible_space_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected"):
        SearchSpace(**wrong)  # type: ignore[arg-type]


@whole_spaces
def test_size_counts_exactly_what_enumerate_gives(space: SearchSpace) -> None:
    configs = list(space.enumerate())
    assert len(configs) == len({*configs}) == space.size()
    assert all(config in space for config in configs)
    assert BASE_CONFIG not in space


@whole_spaces
def test_decode_is_the_inverse_of_encode(space: SearchSpace) -> None:
    for config in space.enumerate():
        encoding = space.encode(config)
        assert space.decode(encoding) == config
        assert encoding.shape == (space.dimensions,)
    features = space.features(list(space.enumerate()), derived=True)
    assert ((features >= 0) & (features <= 1)).all()
    assert len(np.unique(features, axis=0)) == space.size()


@whole_spaces
def test_neighbours_are_mutual_and_stay_inside(space: SearchSpace) -> None:
    for config in space.enumerate():
        near = space.neighbours(config)
        assert len(near) == len({*near})
        assert config not in near
        assert all(other in space and config in space.neighbours(other) for other in near)


@whole_spaces
def test_every_configuration_can_be_reached_by_steps(space: SearchSpace) -> None:
    reached = {next(space.enumerate())}
    edge = list(reached)
    while edge:
        edge = [near for config in edge for near in space.neighbours(config)]
        edge = [near for near in dict.fromkeys(edge) if near not in reached]
        reached.update(edge)
    assert len(reached) == space.size()


@whole_spaces
def test_random_points_cover_the_space_and_nothing_else(space: SearchSpace) -> None:
    generator = np.random.default_rng(0)
    assert {space.sample(generator) for _ in range(6000)} == {*space.enumerate()}


def test_random_points_are_half_by_count_and_half_by_bits() -> None:
    space, generator = SearchSpace(32), np.random.default_rng(1)
    counts = np.array([len(space.sample(generator).layers) for _ in range(4000)])
    # By count, 22 of 32 counts lie outside 12 to 21; by bits, hardly any does (5 %).
    outside = ((counts < 12) | (counts > 21)).mean()
    by_bits = 1 - sum(math.comb(32, n) for n in range(12, 22)) / 2**32
    assert abs(outside - (22 / 32 + by_bits) / 2) < 0.03
    assert {1, 2, 31, 32} <= {*counts.tolist()}


def test_features_by_hand() -> None:
    space = SearchSpace(4, ranks=(8, 16, 32), learning_rates=(1e-4, 1e-3, 1e-2))
    row = space.features([MemoryConfig((0, 2), 16, 1e-3)], derived=True)[0]
    # Bits, 2 of 4, the middle rank, the middle rate; 32 in log2 between 8 and 4 x 32.
    np.testing.assert_allclose(row, [1, 0, 1, 0, 0.5, 0.5, 0.5, 2 / 4])


def test_a_stranger_is_not_encoded() -> None:
    with pytest.raises(ValueError, match="expected a configuration of the space, got L9"):
        SearchSpace(4).encode(MemoryConfig((9,), 8, 1e-3))


def test_json_there_and_back() -> None:
    for space in SPACES:
        assert SearchSpace.from_json(space.to_json()) == space
    with pytest.raises(ValueError, match="expected a search space"):
        SearchSpace.from_json({"ranks": [8]})


def test_it_imports_neither_torch_nor_optuna() -> None:
    code = "import sys, search.space; print({'torch', 'optuna', 'scipy'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
