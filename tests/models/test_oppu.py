"""A LoRA a user on queries and values: what it learns, and that it is a plain adapter."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import peft
import pytest
import torch
from torch.testing import assert_close

from models.bank import Memory
from models.base import Base
from models.history import Interaction
from models.milp import pair_rows
from models.oppu import SPACE, Oppu, OppuRecipe
from models.options import Options, default
from models.personalizer import Budget, UserState, fit
from models.registry import Registry
from models.trainer import Trainer
from models.training import Stage, Training
from search.space import MemoryConfig
from tests.models.test_milp import task
from tests.models.test_trainer import peft_training, rows_of, run
from tests.states import TOKENS, bank_logits, lora, publish, write
from tests.tiny import ALL_FAMILIES, tiny_base, tiny_model

FAST = Options.of(learning_rate=2e-2, epochs=2)


def state_of(base: Base) -> UserState:
    (done,) = fit(Oppu(), base, [task(configuration=FAST)])
    assert done.state is not None
    return done.state


def test_it_learns_the_users_pairs_for_two_epochs_whatever_the_budget() -> None:
    base = tiny_base()
    post = Interaction("ann", 99.0, None, "just a post of mine")
    wanted = task(configuration=default(SPACE), budget=Budget(3, 9, minimum_steps=500))
    wanted = replace(wanted, train=(*wanted.train, post))
    course = OppuRecipe(base, "oppu").course(wanted)
    assert course is not None
    (stage,) = course.stages
    assert stage == Stage("tuning", pair_rows(base, wanted.train[:-1]), 2)
    assert course.learning_rate == 1e-4
    cut = replace(wanted, budget=Budget(epoch_tokens=100))
    assert OppuRecipe(base, "oppu").course(cut).counts["tokens_beyond_epoch"] > 0  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="expected words of the user"):
        OppuRecipe(base, "oppu").course(replace(wanted, train=(post,)))


def test_a_base_too_narrow_for_its_rank_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.oppu.RANK", 17)  # the tiny base's queries and values are 32 wide
    with pytest.raises(ValueError, match=r"at most 16, .* got 17: give a smaller rank, or leave"):
        fit(Oppu(), tiny_base(), [task(configuration=FAST)])


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_an_export_is_an_adapter_that_peft_runs_alike(tmp_path: Path, family: str) -> None:
    base, registry = tiny_base(family), Registry(tmp_path / "registry")
    state = state_of(base)
    modules = {name.rsplit(".lora_", 1)[0] for name in state.tensors}
    assert modules == {name for layer in base.attention for name in layer}
    publish(registry, state, base)
    registry.export("ann", tmp_path / "adapter")
    ours = bank_logits(base, registry.load("ann", base))
    wrapped = peft.PeftModel.from_pretrained(tiny_model(family), tmp_path / "adapter")
    with torch.no_grad():
        theirs = wrapped.eval()(TOKENS).logits
        merged = wrapped.merge_and_unload()(TOKENS).logits
    assert_close(ours, theirs, rtol=0, atol=2e-5)
    assert_close(ours, merged, rtol=0, atol=1e-4)
    assert (ours - bank_logits(base, None)).abs().max() > 1e-2
    written = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert written["r"] == written["lora_alpha"] == 8
    assert written["target_modules"] == sorted(modules)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_onto_the_original_base_the_population_is_added(tmp_path: Path, family: str) -> None:
    shared = lora(family, (0, 1, 2, 3), 5, 9)
    population = write(tmp_path / "population", shared, family == "gpt2")
    model = tiny_model(family)
    for name in {n.rsplit(".lora_", 1)[0] for n in shared}:
        delta = shared[f"{name}.lora_B.weight"] @ shared[f"{name}.lora_A.weight"]
        model.get_submodule(name).weight.data += delta.T if family == "gpt2" else delta
    base = Base.wrap("merged", model, tiny_base(family).tokenizer)
    registry, state = Registry(tmp_path / "registry"), state_of(base)
    publish(registry, state, base)
    registry.export("ann", tmp_path / "out", "original", population)
    wrapped = peft.PeftModel.from_pretrained(tiny_model(family), tmp_path / "out")
    with torch.no_grad():
        got = wrapped.eval()(TOKENS).logits
    assert_close(got, bank_logits(base, state), rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_it_trains_as_peft_does_beside_memories_of_other_matrices(family: str) -> None:
    base = tiny_base(family, torch.float64)
    places = {"low": (True, (0, 1, 2, 3)), "high": (True, (2,)), "feed-forward": (False, (1, 3))}
    pack = []
    for seed, (key, (on_attention, layers)) in enumerate(places.items()):
        memory = Memory.initialise(base, MemoryConfig(layers, 8, 5e-3), seed, on_attention)
        rows = rows_of(seed, 20)
        pack.append(Training(key, memory, (Stage("tuning", rows, 1),), rows, 5e-3, seed))
    expected = [peft_training(family, course, torch.float64) for course in pack]
    trainer = Trainer(base, padded_tokens=300)
    for course in pack:
        trainer.add(course)
    outcomes = run(trainer)[1]
    for course, theirs in zip(pack, expected, strict=True):
        for got, want in zip(outcomes[course.key].learner.parameters(), theirs, strict=True):
            assert_close(got, want, rtol=0, atol=1e-6)
