"""Exported memories are plain PEFT adapters, for the searched base and for the original one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Literal

import peft
import pytest
import torch
from torch.testing import assert_close

from models.base import Base
from models.personalizer import UserState
from models.registry import DamagedState, NoMemory, Registry
from tests.states import TOKENS, a_state, bank_logits, flip, lora, nothing, publish, write
from tests.tiny import tiny_base, tiny_model


def test_an_export_is_a_plain_adapter_without_the_user(
    registry: Registry, base: Base, tmp_path: Path
) -> None:
    publish(registry, a_state("ann@home"), base)
    registry.export("ann@home", tmp_path / "new" / "adapter")
    files = sorted((tmp_path / "new" / "adapter").iterdir())
    assert [f.name for f in files] == ["adapter_config.json", "adapter_model.safetensors"]
    assert not any(b"ann@home" in f.read_bytes() for f in files)
    wrapped = peft.PeftModel.from_pretrained(tiny_model(), tmp_path / "new" / "adapter")
    with torch.no_grad():
        theirs = wrapped.eval()(TOKENS).logits
    assert_close(theirs, bank_logits(base, a_state("ann@home")), rtol=0, atol=2e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("with_memory", [True, False])
def test_onto_the_original_base_the_population_is_added(
    tmp_path: Path, family: str, with_memory: bool
) -> None:
    fan = family == "gpt2"
    shared = lora(family, (0, 1, 2, 3), 5, 9)
    population = write(tmp_path / "population", shared, fan)
    model = tiny_model(family)
    for name in {n.rsplit(".lora_", 1)[0] for n in shared}:
        delta = shared[f"{name}.lora_B.weight"] @ shared[f"{name}.lora_A.weight"]
        model.get_submodule(name).weight.data += delta.T if fan else delta
    merged = Base.wrap("merged", model, tiny_base(family).tokenizer)
    registry = Registry(tmp_path / "registry")
    state = a_state(family=family) if with_memory else nothing()
    publish(registry, state, merged)
    registry.export("ann", tmp_path / "out", "original", population)
    wrapped = peft.PeftModel.from_pretrained(tiny_model(family), tmp_path / "out")
    with torch.no_grad():
        got = wrapped.eval()(TOKENS).logits
    expected = bank_logits(merged, state)
    assert_close(got, expected, rtol=0, atol=1e-4)
    assert (expected - tiny_base(family).logits(tiny_base(family).hidden(TOKENS))).abs().max() > 0.1
    written = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert written["r"] == written["lora_alpha"] == (8 if with_memory else 5)
    assert written["base_model_name_or_path"] == "tiny"


def test_nothing_to_export_is_said_with_its_reason(
    registry: Registry, base: Base, tmp_path: Path
) -> None:
    publish(registry, nothing(), base, "only 12 items")
    both: tuple[Literal["searched"], Literal["original"]] = ("searched", "original")
    for onto in both:
        with pytest.raises(NoMemory, match="answered by the base: only 12 items"):
            registry.export("ann", tmp_path / "out", onto)
    assert not (tmp_path / "out").exists()


def test_exports_overwrite_nothing(registry: Registry, base: Base, tmp_path: Path) -> None:
    publish(registry, a_state(), base)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="new or empty folder"):
        registry.export("ann", tmp_path / "full")
    (tmp_path / "empty").mkdir()
    registry.export("ann", tmp_path / "empty")
    assert len(os.listdir(tmp_path / "empty")) == 2
    assert sorted(os.listdir(tmp_path)) == ["empty", "full", "registry"]


def test_only_a_lora_can_be_exported(registry: Registry, base: Base, tmp_path: Path) -> None:
    publish(registry, UserState("milp+rag", "ann", {}, a_state().tensors, {"facts": "x"}), base)
    with pytest.raises(
        ValueError, match=r"a LoRA alone, got one of method milp\+rag with text.json"
    ):
        registry.export("ann", tmp_path / "out")


def test_a_damaged_state_is_not_exported(registry: Registry, base: Base, tmp_path: Path) -> None:
    publish(registry, a_state(), base)
    flip(registry.current("ann").folder / "adapter_model.safetensors", 900)
    with pytest.raises(DamagedState):
        registry.export("ann", tmp_path / "out")
    assert not (tmp_path / "out").exists()
