"""A base, users with memories that change its answers, and a registry that publishes them."""

from __future__ import annotations

from pathlib import Path

import torch

from models.bank import Memory
from models.base import Base
from models.personalizer import UserState
from models.registry import BaseIdentity, Registry
from search.space import BASE_CONFIG, MemoryConfig

PLACES = {
    "ada": MemoryConfig((0, 2), 4, 1e-3),
    "bob": MemoryConfig((1,), 8, 1e-3),
    "a:b/c ü": MemoryConfig((0, 1, 3), 2, 1e-3),
}
NOBODY = "nobody"  # published as kind `base`


def state_of(base: Base, user_id: str, configuration: MemoryConfig, seed: int) -> UserState:
    """A random memory that is strong enough to change greedy answers."""
    memory = Memory.initialise(base, configuration, seed)
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: torch.randn(tensor.shape, generator=generator) * 0.3
        for name, tensor in memory.tensors().items()
    }
    return UserState("milp", user_id, configuration.to_json(), tensors)


def states(base: Base) -> dict[str, UserState]:
    """Every user's state."""
    return {
        user_id: state_of(base, user_id, configuration, seed)
        for seed, (user_id, configuration) in enumerate(PLACES.items(), 1)
    }


def publish(folder: Path, base: Base) -> Registry:
    """A registry with every user, and one whom the base answers."""
    registry = Registry(folder)
    for state in states(base).values():
        registry.publish(state, BaseIdentity.of(base), {"loss": 1.0})
    nobody = UserState("none", NOBODY, BASE_CONFIG.to_json(), {})
    registry.publish(nobody, BaseIdentity.of(base), {}, reason="too little text")
    return registry
