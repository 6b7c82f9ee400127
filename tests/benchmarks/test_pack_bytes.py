"""What a pack holds is counted whole, and its parts apart."""

from __future__ import annotations

import pytest
import torch

from benchmarks.pack_bytes import Kept, measured
from benchmarks.packing_setup import Setup
from models.milp import lora_of


def test_kept_activations_are_those_of_the_backward_pass_without_weights() -> None:
    frozen, memory = torch.ones(4, 8), torch.ones(8, 4, requires_grad=True)
    kept = Kept({frozen.untyped_storage()._cdata})
    given = torch.ones(3, 4, requires_grad=True) * 2
    with torch.autograd.graph.saved_tensors_hooks(kept.see, lambda tensor: tensor):
        inner = (given @ frozen) @ memory.T.T  # keeps given @ frozen: 3 x 8; a view of the memory
        inner = inner.exp()  # keeps its result: 3 x 4
        inner = inner.view(12).exp()  # and again
    assert kept.most == 4 * (3 * 8 + 3 * 4 + 3 * 4)


def test_what_begins_a_text_is_not_zeros() -> None:
    base = Setup.of("llama", "tiny", "cpu", "float32", users=1, trials=1, seed=0).base
    first = torch.tensor(base.prompt.prompt("")[:1])
    assert base.model.get_input_embeddings()(first).norm() > 0.1


def test_a_pack_holds_its_base_its_memories_and_a_batch() -> None:
    setup = Setup.of("llama", "tiny", "cpu", "float32", users=2, trials=4, seed=0)
    found = measured(setup, steps=2)
    weights = sum(lora_of(task).parameter_count(setup.base.per_rank) for task in setup.tasks)
    parts = (found["base_bytes"], found["memory_bytes"], found["activation_bytes"])
    assert found["memory_bytes"] == 16 * weights
    assert found["base_bytes"] >= 4 * sum(p.numel() for p in setup.base.model.parameters())
    assert found["peak_bytes"] > sum(parts)
    assert found["process_bytes"] > found["base_bytes"]
    assert found["peak_over_lean"] == pytest.approx(found["peak_bytes"] / sum(parts))


def test_a_memory_more_costs_no_more_than_its_state() -> None:
    peaks = {}
    for memories in (8, 32):
        setup = Setup.of("llama", "tiny", "cpu", "float32", users=2, trials=memories, seed=0)
        peaks[memories] = measured(setup, steps=2)
    few, many = peaks[8], peaks[32]
    held = many["peak_bytes"] - few["peak_bytes"]
    state = many["memory_bytes"] - few["memory_bytes"]
    activations = many["activation_bytes"] - few["activation_bytes"]
    assert held < 1.3 * (state + activations)
