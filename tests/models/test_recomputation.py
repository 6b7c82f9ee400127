"""Recomputed layers keep less and compute the same."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from models.bank import Bank, Memory
from models.base import Base
from models.recomputation import recomputed
from search.space import MemoryConfig
from tests.tiny import ALL_FAMILIES, tiny_base

TOKENS = torch.arange(6, 6 + 3 * 11).reshape(3, 11)
PACK = ((0, 2), (1,), (3,))  # the layers of each memory


def gradients(
    base: Base, packs: tuple[tuple[int, ...], ...], layers: AbstractContextManager[None]
) -> tuple[list[Tensor], int]:
    """The gradients of a pack's memories, and the bytes that were kept for the backward pass."""
    memories = [
        Memory.initialise(base, MemoryConfig(pack, 4, 1e-3), i) for i, pack in enumerate(packs)
    ]
    kept: dict[int, int] = {}
    own = {t.data_ptr() for m in memories for t in m.parameters()}
    own |= {t.data_ptr() for t in base.model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with Bank.of(base).rows(memories), layers:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = base.hidden(TOKENS).square().sum()
            size = sum(kept.values())
        loss.backward()
    return [p.grad for memory in memories for p in memory.parameters()], size


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_gradients_are_the_same_and_less_is_kept(family: str) -> None:
    base = tiny_base(family, torch.float64)
    expected, whole = gradients(base, PACK, nullcontext())
    got, kept = gradients(base, PACK, recomputed(base))
    assert len(got) == len(expected) > 0
    for ours, plain in zip(got, expected, strict=True):
        assert_close(ours, plain, rtol=0, atol=1e-12)
    assert kept < whole / 3


def test_layers_below_the_lowest_memory_still_build_no_graph() -> None:
    base = tiny_base()
    runs: list[int] = []
    for i, layer in enumerate(base.layers):
        layer.mlp.register_forward_pre_hook(lambda *_, i=i: runs.append(i))
    with recomputed(base):
        gradients(base, ((2,), (3,), (3,)), nullcontext())
    assert sorted(runs) == [0, 1, 2, 2, 3, 3]


def test_answers_are_computed_once_and_the_base_is_given_back() -> None:
    base = tiny_base()
    runs: list[int] = []
    base.layers[0].mlp.register_forward_pre_hook(lambda *_: runs.append(0))
    with torch.no_grad(), recomputed(base):
        base.hidden(TOKENS)
    assert runs == [0]
    assert all("forward" not in vars(layer) for layer in base.layers)
