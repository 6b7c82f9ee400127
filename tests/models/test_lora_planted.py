"""LoRA methods learn what is a user's own: facts that no prompt tells, and no stranger's memory."""

from __future__ import annotations

import pytest

from models.history import Interaction
from models.lora_all import LoraAll
from models.milp import Milp
from models.oppu import Oppu
from models.options import Options
from models.personalizer import Budget, Configuration, Personalizer, Task, attach, fit
from models.scoring import answers, losses
from models.words import holds
from search.space import MemoryConfig
from tests.tiny import tiny_base

PETS = {"ann": "parrot", "bob": "horse"}
BUDGET = Budget(injection_epochs=2, tuning_epochs=18, patience_epochs=18)


def items(user: str, first: int, count: int) -> tuple[Interaction, ...]:
    """Questions that all users are asked alike; the answer is the user's own."""
    ask = ("which pet is mine", "what do I keep at home", "who lives with me")
    return tuple(
        Interaction(user, float(i), f"{ask[i % 3]}, day {i}?", f"a {PETS[user]}")
        for i in range(first, first + count)
    )


@pytest.mark.parametrize(
    ("method", "configuration"),
    [
        (Milp(), MemoryConfig((0, 2), 8, 1e-2)),
        (LoraAll(), Options.of(rank=8, learning_rate=1e-2)),
        (Oppu(), Options.of(learning_rate=1e-2, epochs=24)),
    ],
    ids=["milp", "lora-all", "oppu"],
)
def test_own_facts_are_known_and_strangers_are_not(
    method: Personalizer, configuration: Configuration
) -> None:
    base, users = tiny_base(), list(PETS)
    tasks = [
        Task(user, user, items(user, 0, 24), items(user, 24, 3), configuration, 1, budget=BUDGET)
        for user in users
    ]
    states = [done.state for done in fit(method, base, tasks)]
    later = [items(user, 40, 6) for user in users]
    attached = attach(method, base)
    told = answers(base, attached, states, later, [8] * len(users))
    without = answers(base, attached, [None] * len(users), later, [8] * len(users))
    for user, texts, plain in zip(users, told, without, strict=True):
        assert sum(holds(text, PETS[user]) for text in texts) >= 5
        assert not any(holds(text, pet) for text in plain for pet in PETS.values())
        others = [pet for name, pet in PETS.items() if name != user]
        assert not any(holds(text, pet) for text in texts for pet in others)
    for i in range(len(users)):
        on_own = [found.nats for found in losses(base, attached, states, [later[i]] * len(users))]
        assert min(on_own) == on_own[i]
