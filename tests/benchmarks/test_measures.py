"""Each measure of the trainer can be taken away, and the losses stay."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import measures
from benchmarks.plain_ways import Measure, in_order, replaced
from models import lowrank
from models.prompt import Row
from tests.cluster import tiny_run


def test_rows_are_cut_in_the_order_in_which_they_come() -> None:
    rows = [Row(tuple(range(length)), 1) for length in (2, 9, 3, 3, 12, 2)]
    cut = in_order(rows, 20, torch.device("cpu"))
    assert cut == [[0, 1], [2, 3], [4], [5]]
    assert in_order([], 20, torch.device("cpu")) == []


def test_what_was_replaced_comes_back() -> None:
    own = lowrank.MANY
    with replaced(Measure("", lowrank, "MANY", own + 1)):
        assert own + 1 == lowrank.MANY
    assert own == lowrank.MANY


@pytest.mark.long
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_losses_stay_without_each_measure(
    dtype: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, base = tiny_run.write_data(tmp_path), tiny_run.write_base(tmp_path)
    words = ["--data", str(data), "--base", str(base), "--users", "2", "--epoch-tokens", "128"]
    measures.main([*words, "--dtype", dtype])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(measures.rows(dtype))
