"""Useful work is what torch counts of a trial's own products, no more."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.useful_work import Work
from benchmarks.workload import Person, PlannedTrial, Stage
from models.bank import Bank, Memory
from models.loss import row_nll
from models.prompt import Row
from search.space import MemoryConfig
from tests.tiny import tiny_base

TOKENS = tuple(range(5, 65))
_AT = torch.ops.aten
COUNTED_AS = {_AT.mm: _AT.mm, _AT.addmm: _AT.addmm, _AT.addmm_: _AT.addmm, _AT.bmm: _AT.bmm}


class Products(TorchDispatchMode):
    """Operations of all matrix products inside, by torch's own formulas."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if product := COUNTED_AS.get(func._overloadpacket):
            self.flops += flop_registry[product](*args, **(kwargs or {}), out_val=out)
        return out


def counted(layers: tuple[int, ...], is_trained: bool) -> int:
    """Operations of all products of one row, forward and perhaps backward."""
    base = tiny_base(dtype=torch.float64)  # whose products are torch's own on every processor
    memory = Memory.initialise(base, MemoryConfig(layers, 8, 1e-3), 0)
    with torch.set_grad_enabled(is_trained), Products() as done, Bank.of(base).rows([memory]):
        nll = row_nll(base, [Row(TOKENS, 40)])
        if is_trained:
            nll.sum().backward()
    return done.flops


@pytest.mark.parametrize("layers", [(0, 1, 2, 3), (2,), (1, 3)])
def test_a_row_of_training_and_one_of_validation(layers: tuple[int, ...]) -> None:
    row = (TOKENS, 40)
    trial = PlannedTrial(0, layers, 8, 1e-3, 0)
    learns = Person([Stage([row], 1)], [], [], [], 0)
    validates = Person([Stage([row], 1)], [row], [], [], 0)
    work = Work.of(tiny_base(), learns, trial)
    both = Work.of(tiny_base(), validates, trial)
    assert work.training_flops == pytest.approx(counted(layers, True))
    read = both.training_flops - work.training_flops
    assert read == pytest.approx(counted(layers, False), rel=0.01)
    assert (work.trained_tokens, work.predicted_tokens) == (60, 20)


def test_every_epoch_and_every_token_of_an_answer_counts() -> None:
    base, trial = tiny_base(), PlannedTrial(0, (0,), 4, 1e-3, 0)
    row = (TOKENS, 40)
    once = Work.of(base, Person([Stage([row], 1)], [row], [TOKENS], [""], 6), trial)
    thrice = Work.of(base, Person([Stage([row], 3)], [row], [TOKENS] * 2, [""], 6), trial)
    assert thrice.training_flops == pytest.approx(3 * once.training_flops)
    assert thrice.answering_flops == pytest.approx(2 * once.answering_flops)
    assert (once.answer_tokens, thrice.answer_tokens) == (6, 12)
