"""How much of a memory is kept."""

from __future__ import annotations

import math

import pytest
from torch.testing import assert_close

from models.bank import Memory
from models.base import Base
from models.milp import Milp
from models.personalizer import Task, UserState, attach, fit
from models.scoring import Loss, losses
from models.strength import difference, moderated, scaled, surest
from search.space import MemoryConfig
from tests.tiny import tiny_base, tiny_interactions

CONFIG = MemoryConfig((1, 3), 4, 5e-3)


@pytest.fixture(scope="module")
def base() -> Base:
    return tiny_base()


@pytest.fixture(scope="module")
def trained(base: Base) -> UserState:
    pairs = tuple(tiny_interactions("ann", 12))
    state = fit(Milp(), base, [Task("a", "ann", pairs, pairs, CONFIG, 0)])[0].state
    assert state is not None
    return state


def test_the_difference_of_two_losses_by_hand() -> None:
    loss = Loss(0.0, (2, 2), (1.0, 2.0))
    other = Loss(0.0, (2, 2), (1.5, 1.5))
    mean, error = difference(loss, other)
    assert mean == 0
    # Both items lie one nat (half a nat on each of two tokens) from the mean.
    assert error == pytest.approx(math.sqrt((1 + 1) * 2) / 4)
    assert difference(Loss(0.0, (3,), (1.0,)), Loss(0.0, (3,), (2.0,))) == (-1.0, math.inf)


def test_half_the_strength_is_half_the_product(base: Base, trained: UserState) -> None:
    whole, half = Memory.from_state(base, trained), Memory.from_state(base, scaled(trained, 0.5))
    for (a, b), (c, d) in zip(whole.pairs.values(), half.pairs.values(), strict=True):
        assert_close(d @ c, 0.5 * (b @ a))


def test_a_memory_that_helps_everywhere_is_kept_whole(base: Base, trained: UserState) -> None:
    """Judged on what it was trained on, the farther the better."""
    state, strength = moderated(base, attach(Milp(), base), trained, tiny_interactions("ann", 12))
    assert strength == 1
    for name, tensor in trained.tensors.items():
        assert_close(state.tensors[name], tensor)


def test_a_memory_that_goes_too_far_is_shortened(base: Base, trained: UserState) -> None:
    items = tiny_interactions("ann", 12)
    too_far = scaled(trained, 16.0)
    state, strength = moderated(base, attach(Milp(), base), too_far, items)
    assert strength < 1
    whole, kept = losses(base, attach(Milp(), base), [too_far, state], [items] * 2)
    assert kept.nats < whole.nats


def test_a_saving_that_rests_on_one_item_counts_for_less() -> None:
    counts = (5, 5, 5, 5)
    of_base = Loss(2.0, counts, (2.0, 2.0, 2.0, 2.0))
    sure = Loss(1.9, counts, (1.9, 1.9, 1.9, 1.9))
    lucky = Loss(1.8, counts, (1.2, 2.0, 2.0, 2.0))
    assert surest([sure, lucky], of_base) == 0
    assert surest([sure, Loss(1.8, counts, (1.8, 1.8, 1.8, 1.8))], of_base) == 1
