"""A pack of memories trains as PEFT trains each of them alone, for every family and precision."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

from models.base import Base
from models.recomputation import recomputed
from models.trainer import Trainer
from models.training import Stage, Training
from tests.models.test_trainer import courses, peft_training, run, training
from tests.tiny import ALL_FAMILIES, tiny_base


@pytest.mark.parametrize("family", ALL_FAMILIES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-4)])
def test_a_pack_equals_peft(family: str, dtype: torch.dtype, tolerance: float) -> None:
    """Layers with gaps, unequal ranks, 3, 2 and 5 steps; one epoch, so that the best is the last.

    Where a norm is computed in float32 whatever the model's precision (root mean square), float64
    is no closer than that. In float32 a gradient may be no more than rounding, of which Adam still
    makes a step: one number in a thousand may be apart by a part of one.
    """
    base = tiny_base(family, dtype)
    all_apart = apart(base, family, dtype, one_epoch(courses(base)))
    rounded = 0 if dtype == torch.float64 else len(all_apart) // 1000
    assert int((all_apart > tolerance).sum()) <= rounded
    assert float(all_apart.max()) < (tolerance if dtype == torch.float64 else 5 * tolerance)


@pytest.mark.parametrize("is_recomputed", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize(
    ("family", "dtype", "tolerance"),
    [("gpt2", torch.float64, 1e-9), ("llama", torch.float32, 1e-4)],
    ids=["float64", "float32"],
)
def test_after_twenty_steps_a_pack_still_equals_peft(
    family: str, dtype: torch.dtype, tolerance: float, is_recomputed: bool
) -> None:
    base = tiny_base(family, dtype)
    pack = one_epoch(
        [
            training(base, "a", (0, 3), 4, 160),
            training(base, "b", (1,), 8, 160),
            training(base, "c", (2, 3), 4, 168),
        ]
    )
    assert min(course.stages[0].steps for course in pack) == 20
    with recomputed(base) if is_recomputed else nullcontext():
        assert float(apart(base, family, dtype, pack).max()) < tolerance


def one_epoch(full: Sequence[Training]) -> list[Training]:
    """The same memories and rows, gone through once and validated on themselves."""
    return [
        Training(one.key, one.learner, (stage,), stage.rows, one.learning_rate, one.seed)
        for one in full
        for stage in [Stage("tuning", one.stages[0].rows, 1)]
    ]


def apart(base: Base, family: str, dtype: torch.dtype, pack: Sequence[Training]) -> Tensor:
    """How far every number of a pack's memories lies from what PEFT makes of it."""
    expected = [peft_training(family, course, dtype) for course in pack]
    start = [[t.clone() for t in course.learner.tensors().values()] for course in pack]
    trainer = Trainer(base, padded_tokens=300)
    for course in pack:
        trainer.add(course)
    outcomes = run(trainer)[1]
    found: list[Tensor] = []
    for course, theirs, before in zip(pack, expected, start, strict=True):
        ours = outcomes[course.key].learner.parameters()
        found += [
            (got - want).detach().abs().flatten() for got, want in zip(ours, theirs, strict=True)
        ]
        moved = max((a - b).abs().max() for a, b in zip(ours, before, strict=True))
        assert moved > 4e-3  # so the tolerance is a fortieth of what was learned, or less
    return torch.cat(found)
