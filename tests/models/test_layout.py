"""Rows behind one another are computed as padded rows are, and none reads another."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from models.bank import Bank, Memory
from models.base import Base
from models.batching import in_turn
from models.layout import Layout
from models.loss import row_nll, row_nll_behind
from models.prompt import Row
from search.space import MemoryConfig
from tests.tiny import ALL_FAMILIES, tiny_base

LENGTHS = (3, 90, 17, 3, 9, 90, 2, 16)  # several groups of attention, and rows of like length
IN_PLACE = (3,) * 5 + (60,) * 3  # two groups, and no token has to be moved
DEALT = (0, 0, 0, 1, 1, None, 2, 2)  # whose memory each row runs under


def rows(lengths: Sequence[int] = LENGTHS) -> list[Row]:
    rng = random.Random(0)
    return [Row(tuple(rng.randrange(6, 60) for _ in range(n)), min(n - 1, 2)) for n in lengths]


def memories(base: Base) -> list[Memory]:
    """Three that do something: B is not zero."""
    made = [Memory.initialise(base, MemoryConfig((i, 3), 4, 1e-3), i) for i in range(3)]
    for memory in made:
        for _, b_OR in memory.pairs.values():
            nn.init.normal_(b_OR, generator=torch.Generator().manual_seed(memory.rank))
    return made


def computed(
    base: Base, behind: bool, factor: float = 1.0, lengths: Sequence[int] = LENGTHS
) -> tuple[Tensor, list[Tensor]]:
    """Loss of each row, gradients of all memories' weights; the first memory's times a factor."""
    packed = memories(base)
    with torch.no_grad():
        for tensor in packed[0].parameters():
            tensor *= factor
    own = [None if i is None else packed[i] for i in DEALT]
    if behind:
        own = [memory for memory, n in zip(own, lengths, strict=True) for _ in range(n)]
    with Bank.of(base).rows(own):
        nll_B = (row_nll_behind if behind else row_nll)(base, rows(lengths))
    torch.autograd.backward(nll_B.sum())
    gradients = [tensor.grad for memory in packed for tensor in memory.parameters()]
    return nll_B.detach(), [gradient for gradient in gradients if gradient is not None]


@pytest.mark.parametrize("lengths", [LENGTHS, IN_PLACE])
@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_losses_and_gradients_are_those_of_padded_rows(family: str, lengths: Sequence[int]) -> None:
    base = tiny_base(family, torch.float64)
    if family == "gemma2":  # its attention is not torch's own
        assert base.longest_behind == 0
        return
    assert base.longest_behind >= max(LENGTHS)
    layout = Layout.of(lengths, base.device)
    assert len(layout.groups) > 1
    assert layout.in_place == (lengths == IN_PLACE)
    padded, behind = (computed(base, kind, lengths=lengths) for kind in (False, True))
    assert len(padded[1]) == len(behind[1]) > 0
    assert_close(behind, padded, rtol=0, atol=1e-10)


def test_a_memory_that_is_not_a_number_harms_no_other_row() -> None:
    base = tiny_base(dtype=torch.float64)
    whole, _ = computed(base, behind=True)
    broken, _ = computed(base, behind=True, factor=math.nan)
    others = [i for i, own in enumerate(DEALT) if own != 0]
    assert broken[[0, 1, 2]].isnan().all()
    assert_close(broken[others], whole[others], rtol=0, atol=0)


def test_rows_longer_than_a_sliding_window_are_not_laid_behind_others() -> None:
    base = tiny_base("mistral")
    base.model.config.sliding_window = 7
    assert base.longest_behind == 7


def test_pieces_hold_all_rows_in_order_and_no_more_than_asked() -> None:
    rng = random.Random(1)
    for most in (1, 10, 100, 10_000):
        lengths = [rng.randrange(1, 40) for _ in range(50)]
        pieces = in_turn(lengths, most)
        assert [i for piece in pieces for i in piece] == list(range(50))
        sizes = [sum(lengths[i] for i in piece) for piece in pieces]
        assert all(
            size <= most or len(piece) == 1 for size, piece in zip(sizes, pieces, strict=True)
        )
    assert len(in_turn([5] * 100, 400)) == 2  # two of 250, not 400 and 100
    assert in_turn([], 10) == []
