"""A pack of memories trains as PEFT trains each of them alone, for every family and precision."""

from __future__ import annotations

import pytest
import torch

from models.trainer import Trainer
from models.training import Stage, Training
from tests.models.test_trainer import courses, peft_training, run
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
    pack = [
        Training(full.key, full.learner, (stage,), stage.rows, full.learning_rate, full.seed)
        for full in courses(base)
        for stage in [Stage("tuning", full.stages[0].rows, 1)]
    ]
    expected = [peft_training(family, course, dtype) for course in pack]
    start = [[t.clone() for t in course.learner.tensors().values()] for course in pack]
    trainer = Trainer(base, padded_tokens=300)
    for course in pack:
        trainer.add(course)
    outcomes = run(trainer)[1]
    apart: list[torch.Tensor] = []
    for course, theirs, before in zip(pack, expected, start, strict=True):
        ours = outcomes[course.key].learner.parameters()
        apart += [
            (got - want).detach().abs().flatten() for got, want in zip(ours, theirs, strict=True)
        ]
        moved = max((a - b).abs().max() for a, b in zip(ours, before, strict=True))
        assert moved > 4e-3  # so the tolerance is a fortieth of what was learned, or less
    all_apart = torch.cat(apart)
    rounded = 0 if dtype == torch.float64 else len(all_apart) // 1000
    assert int((all_apart > tolerance).sum()) <= rounded
    assert float(all_apart.max()) < (tolerance if dtype == torch.float64 else 5 * tolerance)
