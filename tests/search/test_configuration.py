"""Configurations: canonical, named, and the same after JSON."""

import re

import pytest

from search.configuration import BASE_CONFIG, MemoryConfig


def test_two_that_mean_the_same_are_equal() -> None:
    assert MemoryConfig((3, 0, 3), 8, 1e-3) == MemoryConfig((0, 3), 8, 1e-3)
    assert MemoryConfig((), 16, 1e-3) == BASE_CONFIG


@pytest.mark.parametrize(
    ("layers", "rank", "rate"),
    [((-1,), 8, 1e-3), ((0,), 0, 1e-3), ((0,), 8, 0.0), ((0,), 8, float("nan"))],
)
def test_nonsense_is_refused(layers: tuple[int, ...], rank: int, rate: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        MemoryConfig(layers, rank, rate)


def test_keys_are_short_and_safe_and_tell_configurations_apart() -> None:
    configs = [
        BASE_CONFIG,
        *(MemoryConfig((0, 3, 7), rank, rate) for rank in (8, 16) for rate in (5e-4, 5.1e-4)),
        *(MemoryConfig(tuple(range(first, 40)), 16, 5e-5) for first in range(20)),
    ]
    keys = [config.key for config in configs]
    assert keys[:2] == ["base", "L0.3.7-r8-lr0.0005"]
    assert len({*keys}) == len(configs)
    assert all(len(key) < 64 and re.fullmatch(r"[A-Za-z0-9.-]+", key) for key in keys)


def test_json_there_and_back() -> None:
    for config in (BASE_CONFIG, MemoryConfig((1, 2), 8, 5.62e-4)):
        assert MemoryConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"layers": "12", "rank": 8, "learning_rate": 1e-3},
        {"layers": [1], "rank": "8", "learning_rate": 1e-3},
        {"layers": [1.5], "rank": 8, "learning_rate": 1e-3},
    ],
)
def test_other_json_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected layers"):
        MemoryConfig.from_json(values)


def test_parameters_are_rank_times_the_features_of_the_active_layers() -> None:
    # LLaMA2-7B: gate, up and down of 4096 and 11008 features, 45,312 for each rank (equation 6).
    per_rank = [3 * (4096 + 11008)] * 32
    assert MemoryConfig(tuple(range(32)), 32, 1e-3).parameter_count(per_rank) == 46_399_488
    assert MemoryConfig((0, 2), 8, 1e-3).parameter_count([10, 1000, 20]) == 8 * 30
    assert BASE_CONFIG.parameter_count(per_rank) == 0
