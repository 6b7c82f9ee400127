"""Useful work is what torch counts of a trial's own products, no more."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.useful_work import Work
from benchmarks.workload import Person, PlannedTrial, Stage
from models.bank import Bank, Memory
from models.loss import row_nll
from models.prompt import Row
from search.space import MemoryConfig
from tests.tiny import tiny_base

TOKENS = tuple(range(5, 65))
PRODUCTS = {torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm}


def counted(layers: tuple[int, ...], is_trained: bool) -> int:
    """Operations of all products of one row, forward and perhaps backward."""
    base = tiny_base()
    memory = Memory.initialise(base, MemoryConfig(layers, 8, 1e-3), 0)
    with FlopCounterMode(display=False) as counter, Bank.of(base).rows([memory]):
        nll = row_nll(base, [Row(TOKENS, 40)])
        if is_trained:
            nll.sum().backward()
    counts = counter.get_flop_counts()["Global"]
    return sum(count for product, count in counts.items() if product in PRODUCTS)


@pytest.mark.parametrize("layers", [(0, 1, 2, 3), (2,), (1, 3)])
def test_a_row_of_training_and_one_of_validation(layers: tuple[int, ...]) -> None:
    row = (TOKENS, 40)
    trial = PlannedTrial(0, layers, 8, 1e-3, 0)
    learns = Person([Stage([row], 1)], [], [], [], 0)
    validates = Person([Stage([row], 1)], [row], [], [], 0)
    work = Work.of(tiny_base(), learns, trial)
    both = Work.of(tiny_base(), validates, trial)
    assert work.training_flops == pytest.approx(counted(layers, True), rel=0.03)
    read = both.training_flops - work.training_flops
    assert read == pytest.approx(counted(layers, False), rel=0.03)
    assert (work.trained_tokens, work.predicted_tokens) == (60, 20)


def test_every_epoch_and_every_token_of_an_answer_counts() -> None:
    base, trial = tiny_base(), PlannedTrial(0, (0,), 4, 1e-3, 0)
    row = (TOKENS, 40)
    once = Work.of(base, Person([Stage([row], 1)], [row], [TOKENS], [""], 6), trial)
    thrice = Work.of(base, Person([Stage([row], 3)], [row], [TOKENS] * 2, [""], 6), trial)
    assert thrice.training_flops == pytest.approx(3 * once.training_flops)
    assert thrice.answering_flops == pytest.approx(2 * once.answering_flops)
    assert (once.answer_tokens, thrice.answer_tokens) == (6, 12)
