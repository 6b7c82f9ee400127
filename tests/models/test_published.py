"""What is damaged, or made for another base, is an error and never loaded."""

from __future__ import annotations

import json
import os
import pickle
import random
from pathlib import Path

import pytest
import torch

from models.base import Base
from models.personalizer import UserState
from models.registry import DamagedState, NoMemory, Registry, UnknownUser, WrongBase
from tests.states import a_state, assert_same, flip, nothing, publish
from tests.tiny import tiny_base


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json", "state.json"])
def test_any_flipped_byte_is_noticed(registry: Registry, base: Base, name: str) -> None:
    publish(registry, a_state(), base)
    file = registry.current("ann").folder / name
    whole = file.read_bytes()
    for place in random.Random(0).sample(range(len(whole)), 25):
        flip(file, place)
        with pytest.raises(DamagedState, match="publish this user's state again"):
            registry.load("ann", base)
        file.write_bytes(whole)
    assert_same(registry.load("ann", base), a_state())


def test_cut_longer_missing_and_linked_files_are_noticed(
    registry: Registry, base: Base, tmp_path: Path
) -> None:
    publish(registry, a_state(), base)
    file = registry.current("ann").folder / "adapter_model.safetensors"
    whole = file.read_bytes()
    for content in (whole[:-1], whole + b"\0", b""):
        file.write_bytes(content)
        with pytest.raises(DamagedState):
            registry.load("ann", base)
    file.unlink()
    with pytest.raises(DamagedState, match="expected a plain file, got: No such file"):
        registry.load("ann", base)
    (tmp_path / "elsewhere").write_bytes(whole)
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DamagedState):
        registry.load("ann", base)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(DamagedState):
        registry.load("ann", base)
    file.unlink()
    file.mkdir()
    with pytest.raises(DamagedState):
        registry.load("ann", base)


def test_publishing_again_repairs(registry: Registry, base: Base) -> None:
    digest = publish(registry, a_state(), base)
    flip(registry.current("ann").folder / "adapter_model.safetensors", 900)
    assert publish(registry, a_state(), base) == digest
    assert_same(registry.load("ann", base), a_state())
    pointer = next((registry.folder / "users").rglob("*.json"))
    pointer.write_text("{")
    publish(registry, a_state(), base)
    assert_same(registry.load("ann", base), a_state())


def test_a_damaged_current_state_can_be_withdrawn(registry: Registry, base: Base) -> None:
    publish(registry, a_state(), base)
    publish(registry, a_state(seed=2), base)
    flip(registry.current("ann").folder / "state.json", 5)
    registry.withdraw("ann")
    assert_same(registry.load("ann", base), a_state())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"null",
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"user_id": "ann", "current": "../../../x", "earlier": [], "withdrawn": []}',
        b'{"user_id": "ann", "current": 5, "earlier": [], "withdrawn": []}',
        b'{"user_id": "ann", "current": null, "earlier": ["x"], "withdrawn": []}',
        b'{"user_id": 7, "current": null, "earlier": [], "withdrawn": []}',
        b'{"user_id": "ann", "current": null}',
        b" " * (2 << 20),
    ],
)
def test_a_damaged_pointer_hides_nobody_else(
    registry: Registry, base: Base, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    publish(registry, a_state(), base)
    pointer = next((registry.folder / "users").rglob("*.json"))
    publish(registry, a_state("bob"), base)
    pointer.write_bytes(content)
    with pytest.raises(DamagedState):
        registry.load("ann", base)
    assert registry.users() == ["bob"]
    assert pointer.name in caplog.text
    assert "ann" not in caplog.text
    assert registry.forget("ann") == 1


def test_a_pointer_to_somebody_elses_state_is_refused(registry: Registry, base: Base) -> None:
    publish(registry, a_state("ann"), base)
    publish(registry, a_state("bob"), base)
    ann, bob = registry.current("ann"), registry.current("bob")
    bob.folder.rename(ann.folder.parent / bob.digest)
    for pointer in (registry.folder / "users").rglob("*.json"):
        value = json.loads(pointer.read_text())
        pointer.write_text(json.dumps({**value, "current": bob.digest}))
    with pytest.raises(DamagedState, match="another's") as caught:
        registry.load("ann", base)
    assert "ann" not in str(caught.value)  # a server logs this


def test_another_base_is_refused(registry: Registry, base: Base) -> None:
    publish(registry, a_state(), base)
    publish(registry, nothing("bob"), base)
    other = tiny_base(seed=1)
    assert other.fingerprint != base.fingerprint
    for user_id in ("ann", "bob"):
        with pytest.raises(WrongBase, match=f"{base.fingerprint[:12]}.*got 'tiny-llama'"):
            registry.load(user_id, other)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("model.layers.9.mlp.up_proj", (32, 48), "expected matrices of the base"),
        ("model.layers.0.self_attn.k_proj", (32, 32), "expected matrices of the base"),
        ("model.layers.0.mlp.up_proj", (31, 48), "expected 32 features"),
        ("model.layers.0.mlp.up_proj", (32, 47), "expected 48 features"),
    ],
)
def test_a_tensor_without_its_place_is_an_error(
    registry: Registry, base: Base, name: str, shape: tuple[int, int], message: str
) -> None:
    a_RI, b_OR = torch.ones(2, shape[0]), torch.ones(shape[1], 2)
    tensors = {f"{name}.lora_A.weight": a_RI, f"{name}.lora_B.weight": b_OR}
    publish(registry, UserState("milp", "ann", {}, tensors), base)
    with pytest.raises(DamagedState, match=message):
        registry.load("ann", base)


def test_errors_survive_pickling() -> None:
    for error in (UnknownUser("a"), WrongBase("b"), DamagedState("c"), NoMemory("d")):
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error)
        assert str(again) == str(error) in "abcd"
