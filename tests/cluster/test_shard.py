from __future__ import annotations

from pathlib import Path

import pytest

from cluster.budget import Rules
from cluster.shard import TRIALS_PER_SLOT, ShardPlan, config_of, shards_beside, shards_of
from cluster.studies import Asked, SearchPlan
from search.samplers import SamplerSettings
from search.space import MemoryConfig, SearchSpace


@pytest.mark.parametrize(
    ("users", "trials", "slots"),
    [(1, 24, 4), (8, 24, 4), (1000, 24, 4), (1000, 24, 128), (7, 1, 4)],
)
def test_every_user_is_in_one_shard_of_enough_trials(users: int, trials: int, slots: int) -> None:
    digests = [f"{i:016x}" for i in range(users)]
    shards = shards_of(digests, trials, slots)
    assert sorted(digest for shard in shards for digest in shard) == digests
    if len(shards) > 1:
        fewest = min(len(shard) * (trials + 1) for shard in shards)
        assert fewest >= TRIALS_PER_SLOT * slots


def test_no_shard_is_larger_than_it_must_be() -> None:
    sizes = [len(shard) for shard in shards_of([str(i) for i in range(1000)], 24, 4)]
    assert max(sizes) * 25 < 2 * TRIALS_PER_SLOT * 4


@pytest.mark.parametrize(
    ("users", "slots", "beside"),
    [
        (1000, 4, 1),
        (100_000, 255, 1),
        (100_000, 256, 2),
        (100_000, 1024, 8),
        (1000, 1024, 8),
        (500, 1024, 1),
        (1, 1024, 1),
    ],
)
def test_shards_beside_each_other_have_all_slots_at_all_times(
    users: int, slots: int, beside: int
) -> None:
    assert shards_beside(users, 24, slots) == beside
    digests = [str(i) for i in range(users)]
    shards = shards_of(digests, 24, slots // beside, beside)
    assert sorted(digest for shard in shards for digest in shard) == sorted(digests)
    assert len(shards) % beside == 0
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize("stop_early", [True, False])
def test_tune_is_given_digests_and_no_more_than_a_trial_needs(
    tmp_path: Path, stop_early: bool
) -> None:
    config = MemoryConfig((0, 2), 8, 1e-3)
    search = SearchPlan("", SearchSpace(4), (1,) * 4, SamplerSettings("random", 2), Rules(4))
    plan = ShardPlan("a", {}, search, tmp_path, packers=2, slots=4, stop_early=stop_early)
    assert config_of(Asked("0123456789abcdef", 3, config, 7), plan) == {
        "user": "0123456789abcdef",
        "key": config.key,
        "configuration": config.to_json(),
        "seed": 7,
        "packers": 2,
        "checkpoints": stop_early,
    }
