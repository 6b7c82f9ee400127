"""A LoRA on every layer: the main method's training at one fixed configuration."""

from __future__ import annotations

from dataclasses import replace

import pytest
from torch.testing import assert_close

from models.lora_all import SPACE, LoraAll
from models.milp import Milp
from models.options import Options, default
from models.personalizer import fit
from search.space import MemoryConfig, SearchSpace
from tests.models.test_milp import task
from tests.tiny import tiny_base


def test_it_is_the_memory_of_the_configuration_with_every_layer() -> None:
    base, options = tiny_base(), Options.of(rank=16, learning_rate=2e-3)
    same = MemoryConfig((0, 1, 2, 3), 16, 2e-3)
    (got,) = fit(LoraAll(), base, [task(configuration=options)])
    (expected,) = fit(Milp(), base, [task(configuration=same)])
    assert got.state is not None
    assert expected.state is not None
    assert (got.loss_nats, got.steps, got.counts) == (
        expected.loss_nats,
        expected.steps,
        expected.counts,
    )
    assert got.state.tensors.keys() == expected.state.tensors.keys()
    for name, tensor in expected.state.tensors.items():
        assert_close(got.state.tensors[name], tensor, rtol=0, atol=0)
    assert got.state.configuration == {"rank": 16, "learning_rate": 2e-3}


def test_a_setting_that_is_missing_is_named() -> None:
    assert default(SPACE) == Options.of(rank=8, learning_rate=5e-4)
    with pytest.raises(ValueError, match="learning_rate"):
        LoraAll().start(tiny_base()).add(replace(task(), configuration=Options.of(rank=8)))


def test_a_rank_that_the_search_space_of_the_base_leaves_out_is_refused() -> None:
    base = tiny_base()
    kept, left_out = SearchSpace.for_base(base.layer_count, base.smallest_dimension, ranks=(16, 32))
    assert (kept.ranks, left_out) == ((16,), (32,))
    with pytest.raises(ValueError, match=r"expected a rank of at most 16, half of .* got 32"):
        fit(LoraAll(), base, [task(configuration=Options.of(rank=32, learning_rate=2e-3))])
