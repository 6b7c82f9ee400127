"""A base finds its feed-forward layers, computes the model's own loss and refuses what it can't."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from models.base import Base
from models.loss import batches, row_losses, row_nll
from models.milp import Milp
from models.personalizer import attach
from models.prompt import Row
from tests.tiny import ALL_FAMILIES, save_tiny_base, tiny_base, tiny_model, tiny_tokenizer


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_every_family_lists_its_feed_forward_matrices(family: str) -> None:
    base = tiny_base(family)
    assert base.layer_count == 4
    for layer in range(4):
        shapes = base.matrix_shapes(layer)
        assert {frozenset(shape) for shape in shapes.values()} == {frozenset({32, 48})}
        for name, module in base.feed_forward[layer].items():
            assert base.model.get_submodule(name) is module
            x = torch.randn(1, 3, shapes[name][0])
            assert module(x).shape[-1] == shapes[name][1]
            assert f".{layer}." in name
            assert "attn" not in name
            assert "attention" not in name


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_row_loss_is_the_models_own_loss(family: str) -> None:
    base = tiny_base(family, torch.float64)
    rows = [Row(tuple(range(5, 25)), 8), Row(tuple(range(40, 47)), 1), Row((9, 3, 7), 2)]
    nll = row_nll(base, rows)
    for row, got in zip(rows, nll, strict=True):
        labels = torch.tensor([[-100] * row.predict_from + list(row.tokens[row.predict_from :])])
        loss = base.model(input_ids=torch.tensor([row.tokens]), labels=labels).loss
        assert_close(got / row.predicted, loss.to(torch.float64), rtol=0, atol=1e-6)


def test_losses_of_rows_do_not_depend_on_their_neighbours() -> None:
    base = tiny_base(dtype=torch.float64)
    rows = [Row(tuple(range(3, 3 + n)), 1) for n in (4, 60, 17, 31)]
    together = row_losses(base, rows, [None] * 4, attach(Milp(), base))
    alone = [row_losses(base, [row], [None], attach(Milp(), base))[0] for row in rows]
    assert_close(torch.tensor(together), torch.tensor(alone), rtol=0, atol=1e-9)


def test_batches_cover_all_rows_within_the_limit() -> None:
    rows = [Row(tuple(range(n)), 1) for n in (5, 100, 7, 30, 30, 4)]
    cut = list(batches(rows, 60, torch.device("cpu")))
    assert sorted(i for batch in cut for i in batch) == list(range(6))
    for batch in cut:
        longest = max(len(rows[i].tokens) for i in batch)
        assert len(batch) == 1 or len(batch) * longest <= 60


def test_loads_from_disk_frozen_with_a_stable_fingerprint(tmp_path: Path) -> None:
    folder = save_tiny_base(tmp_path / "base")
    base, again = Base.load(folder, device="cpu"), Base.load(folder, device="cpu")
    assert base.fingerprint == again.fingerprint
    assert not any(p.requires_grad for p in base.model.parameters())
    assert base.context == 128
    other = Base.load(save_tiny_base(tmp_path / "other", seed=1), device="cpu")
    assert other.fingerprint != base.fingerprint


def test_refuses_a_base_without_a_tokenizer(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="tokenizer"):
        Base.load(tmp_path, device="cpu")


def test_refuses_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises((OSError, ValueError), match="absent"):
        Base.load(tmp_path / "absent", device="cpu")


def test_gemma_caps_its_logits() -> None:
    model = tiny_model("gemma2", torch.float64)
    base = Base.wrap("gemma", model, tiny_tokenizer())
    tokens = torch.tensor([[4, 9, 30]])
    assert_close(base.logits(base.hidden(tokens)), model(tokens).logits, rtol=0, atol=1e-9)
    assert model.config.final_logit_softcapping is not None
