"""Pretraining: what it learns from, and that what it writes is a base."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from models.base import Base
from models.history import Histories
from models.pretrain import PretrainSettings, documents, pretrain, train_tokenizer, windows
from tests.tiny import tiny_interactions

SMALL = PretrainSettings(layers=2, width=32, vocabulary=300, context=48, batch=8, epochs=3)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    lines = [
        {"user_id": user, "time": i.time, "query": i.query, "response": i.response}
        for user in ("ann", "bob", "cat")
        for i in tiny_interactions(user, 60)
    ]
    lines.append({"user_id": "ann", "time": 99.0, "query": None, "response": "a post\nof mine"})
    file = tmp_path / "interactions.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    return file


def test_it_lowers_the_loss_and_writes_a_base(data: Path, tmp_path: Path) -> None:
    losses: list[float] = []
    pretrain(data, tmp_path / "base", SMALL, lambda step, steps, loss: losses.append(loss))
    assert sum(losses[-5:]) / 5 < losses[0] - 1.5
    base = Base.load(tmp_path / "base", "cpu")
    assert base.layer_count == 2
    assert base.context == 48
    assert base.prompt.name == "plain/1"


def test_the_same_seed_gives_the_same_base(data: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        pretrain(data, tmp_path / name, SMALL)
    one, two = (Base.load(tmp_path / name, "cpu").fingerprint for name in ("one", "two"))
    assert one == two


def test_documents_are_whole_and_one_line_each_side(data: Path, tmp_path: Path) -> None:
    texts = list(documents(Histories.read(data, tmp_path / "data")))
    assert len(texts) == 181
    assert "a post of mine" in texts
    tokenizer = train_tokenizer(texts, SMALL)
    tokens_NT, targets_NT = windows(tokenizer, texts, SMALL)
    end = tokenizer.eos_token_id
    assert tokens_NT.shape[1] == 48
    assert bool((tokens_NT[:, 0] == end).all())
    real = targets_NT != -100
    assert torch.equal(targets_NT[real], tokens_NT[real])
    assert int((targets_NT == end).sum()) == 181


def test_refuses_a_full_folder_and_too_little_text(data: Path, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="empty folder"):
        pretrain(data, tmp_path, SMALL)
    few = tmp_path / "few.jsonl"
    few.write_text(json.dumps({"user_id": "a", "time": 1, "query": "hi", "response": "ho"}))
    with pytest.raises(ValueError, match="at least 8 windows"):
        pretrain(few, tmp_path / "none", SMALL)


def test_refuses_a_width_that_heads_do_not_divide() -> None:
    with pytest.raises(ValueError, match="32 divides"):
        PretrainSettings(width=100)
