"""Losses by position, against a loop over positions of a tiny base."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import positions
from models.base import Base
from models.history import Interaction
from tests.tiny import save_tiny_base, tiny_base, tiny_interactions


def test_a_position_is_what_the_base_says_after_what_stands_before() -> None:
    base = tiny_base()
    texts_UT = positions.running_text(base, [tiny_interactions("ann", 9)] * 2, 2, 12)
    assert texts_UT.shape == (2, 12)
    found = positions.losses_by_position(base, texts_UT)
    for place in (0, 5, 10):
        logits_UV = base.model(input_ids=texts_UT[:, : place + 1]).logits[:, -1]
        alone = torch.nn.functional.cross_entropy(logits_UV, texts_UT[:, place + 1])
        torch.testing.assert_close(found[place], alone, atol=1e-5, rtol=0)


def test_what_stands_beyond_an_edge_is_counted_by_hand() -> None:
    base = tiny_base()
    item = Interaction("ann", 0.0, "What about dogs?", "I like them, and cats too.")
    row = base.prompt.pair(item.query, item.response)
    edge = len(row.tokens) - 3
    assert positions.share_beyond(base, [[item]], edge) == pytest.approx(3 / row.predicted)
    assert positions.share_beyond(base, [[item]], 0) == 1
    assert positions.share_beyond(base, [[item]], len(row.tokens)) == 0


def test_it_reads_data_and_refuses_histories_that_are_too_short(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data.jsonl"
    lines = [
        {"user_id": i.user_id, "time": i.time, "query": i.query, "response": i.response}
        for i in tiny_interactions("ann", 40)
    ]
    data.write_text("\n".join(map(json.dumps, lines)))
    base = str(save_tiny_base(tmp_path / "base"))
    context = Base.load(base, "cpu").context
    words = ["--data", str(data), "--base", base, "--edge", "8"]
    positions.main([*words, "--tokens", "70"])
    printed = capsys.readouterr().out
    assert "1 users\n" in printed
    assert "| 64 to 127 |" in printed
    assert "answers' tokens beyond 8: " in printed
    with pytest.raises(ValueError, match="give fewer --tokens"):
        positions.running_text(Base.load(base, "cpu"), [], 1, context)
