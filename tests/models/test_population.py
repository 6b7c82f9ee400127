"""What users share is learned from others' open sessions, and merging it changes nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch.testing import assert_close

from models.bank import Bank
from models.base import Base
from models.history import Histories, History, split
from models.population import PopulationSettings, closed_sessions, learn, merge, prepare, sample
from tests.models.test_bank import random_memory
from tests.tiny import ALL_FAMILIES, save_tiny_base, tiny_base, tiny_interactions, tiny_model

SETTINGS = PopulationSettings(rank=4, interactions=60, held_out=10, epochs=2)


def histories(users: int = 6) -> list[History]:
    return [History(f"u{i}", tuple(tiny_interactions(f"u{i}", 30))) for i in range(users)]


def test_sessions_of_validation_and_test_are_closed_to_the_population() -> None:
    searched = History("me", tuple(tiny_interactions("me", 40)))
    parts = split(searched)
    closed = closed_sessions([parts])
    assert closed == {i.session for i in (*parts.validation, *parts.test)}
    shared = next(iter(closed))
    other = History("u0", tuple(replace(i, session=shared) for i in tiny_interactions("u0", 20)))
    open_one = History("u1", tuple(tiny_interactions("u1", 20)))
    assert sample([other], closed, SETTINGS) == []
    assert {i.user_id for i in sample([other, open_one], closed, SETTINGS)} == {"u1"}


def test_the_sample_is_bounded_seeded_and_over_all_users() -> None:
    drawn = sample(histories(), set(), SETTINGS)
    assert len(drawn) == 70
    assert len({(i.user_id, i.time) for i in drawn}) == 70
    assert {i.user_id for i in drawn} == {f"u{i}" for i in range(6)}
    assert drawn == sample(histories(), set(), SETTINGS)
    assert drawn != sample(histories(), set(), replace(SETTINGS, seed=1))


def test_learning_lowers_the_loss_on_held_out_words_and_leaves_the_base_alone() -> None:
    base = tiny_base()
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    seen: list[tuple[int, int]] = []
    population = learn(
        base, sample(histories(), set(), SETTINGS), SETTINGS, lambda *s: seen.append(s)
    )
    assert population.loss_after_nats < population.loss_before_nats - 0.2
    assert population.interactions == 63
    assert seen[-1][0] == seen[-1][1] == len(seen)
    for name, tensor in base.model.state_dict().items():
        assert_close(tensor, before[name], rtol=0, atol=0)


def test_refuses_too_small_a_population() -> None:
    with pytest.raises(ValueError, match="at least 10 interactions"):
        learn(tiny_base(), tiny_interactions("a", 5), SETTINGS)


def test_refuses_a_base_too_narrow_for_its_rank() -> None:
    wide = replace(SETTINGS, rank=17)  # the tiny base's matrices are 32 and 48 wide
    with pytest.raises(ValueError, match=r"34 or more wide.* rank 17, got 32; use --population"):
        learn(tiny_base(), sample(histories(), set(), SETTINGS), wide)


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_a_merged_base_computes_what_base_and_memory_computed(family: str) -> None:
    base = tiny_base(family, torch.float64)
    memory = random_memory(base, (0, 1, 2, 3), 4, 1)
    tokens = torch.arange(5, 25).reshape(2, 10)
    with torch.no_grad():
        plain = base.hidden(tokens)
        with Bank.of(base).rows([memory, memory]):
            expected = base.hidden(tokens)
        merge(base, memory)
        merged = base.hidden(tokens)
    assert_close(merged, expected, rtol=0, atol=1e-9)
    assert (merged - plain).abs().max() > 1e-3


def test_prepare_writes_a_base_of_its_own_and_the_adapter_that_made_it(tmp_path: Path) -> None:
    source = save_tiny_base(tmp_path / "original")
    users = histories()
    lines = [
        json.dumps({k: getattr(i, k) for k in ("user_id", "time", "query", "response", "session")})
        for history in users
        for i in history.interactions
    ]
    (tmp_path / "interactions.jsonl").write_text("\n".join(lines))
    read = Histories.read(tmp_path / "interactions.jsonl", tmp_path / "data")
    closed = closed_sessions([split(users[0])])
    report = prepare(str(source), read, {"u0"}, closed, tmp_path, SETTINGS, lambda *steps: None)
    assert report["users"] == 5
    assert json.loads((tmp_path / "population" / "report.json").read_text()) == report
    original, merged = (Base.load(f, "cpu", "float32") for f in (source, tmp_path / "base"))
    assert merged.fingerprint != original.fingerprint
    tokens = torch.arange(5, 25).reshape(2, 10)
    adapted = PeftModel.from_pretrained(original.model, tmp_path / "population").eval()
    with torch.no_grad():
        expected = adapted(tokens).logits
        assert_close(merged.logits(merged.hidden(tokens)), expected, rtol=0, atol=1e-4)
        assert (expected - tiny_model().eval()(tokens).logits).abs().max() > 1e-2
