"""Small memories and states that do something, for tests of what is kept of them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.testing import assert_close

from models import peft_format
from models.base import Base
from models.catalog import attach_all
from models.personalizer import UserState
from models.pointer import Pointer, name_on_disk
from models.published import BaseIdentity, Published
from models.registry import Registry
from tests.tiny import tiny_base

TOKENS = torch.arange(6, 6 + 22).reshape(2, 11)
CONFIGURATION = {"layers": [0, 2], "rank": 3, "learning_rate": 5e-4}
OBJECTIVES = {"loss_nats": 2.5, "rouge_l": 0.25}


def lora(family: str, layers: tuple[int, ...], rank: int, seed: int) -> dict[str, Tensor]:
    """A LoRA that does something, in float32."""
    generator = torch.Generator().manual_seed(seed)
    base, tensors = tiny_base(family), {}
    for layer in layers:
        for name, (features_in, features_out) in base.matrix_shapes(layer).items():
            a_RI = torch.randn(rank, features_in, generator=generator)
            tensors[f"{name}.lora_A.weight"] = a_RI * 0.2
            b_OR = torch.randn(features_out, rank, generator=generator)
            tensors[f"{name}.lora_B.weight"] = b_OR * 0.2
    return tensors


def write(folder: Path, tensors: dict[str, Tensor], fan_in_fan_out: bool = False) -> Path:
    folder.mkdir()
    for name, content in peft_format.encode(tensors, "tiny", fan_in_fan_out).items():
        (folder / name).write_bytes(content)
    return folder


def a_state(user_id: str = "ann", seed: int = 1, family: str = "llama") -> UserState:
    return UserState("milp", user_id, CONFIGURATION, lora(family, (0, 2), 3, seed))


def nothing(user_id: str = "ann") -> UserState:
    return UserState("milp", user_id, {"layers": []}, {})


def publish(registry: Registry, state: UserState, base: Base, reason: str | None = None) -> str:
    return registry.publish(state, BaseIdentity.of(base), OBJECTIVES, reason)


def published(registry: Registry, user_id: str) -> list[Published]:
    """A user's states, every one checked: oldest first, the current one last."""
    name = name_on_disk(user_id)
    pointer = Pointer.read(registry.folder / "users" / name[:2] / f"{name}.json")
    digests = [*pointer.earlier, *([pointer.current] if pointer.current else [])]
    return [Published.read(registry.folder / "states" / name[:2] / d)[0] for d in digests]


def assert_same(got: UserState | None, expected: UserState) -> None:
    assert got is not None
    assert got.method == expected.method
    assert got.user_id == expected.user_id
    assert got.configuration == expected.configuration
    assert got.text == expected.text
    assert set(got.tensors) == set(expected.tensors)
    for name, tensor in expected.tensors.items():
        assert_close(got.tensors[name], tensor, rtol=0, atol=0)


def bank_logits(base: Base, state: UserState | None) -> Tensor:
    with torch.no_grad(), attach_all(base)([state] * len(TOKENS)):
        return base.logits(base.hidden(TOKENS))


def flip(file: Path, place: int) -> None:
    """Change one bit of a file."""
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
