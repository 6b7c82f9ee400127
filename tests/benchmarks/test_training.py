"""The whole benchmark on a tiny base: every system runs the same trials to the same losses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import baseline_tune_peft, training
from benchmarks.meter import Cost
from benchmarks.training_table import Measured
from benchmarks.workload import Workload
from tests.cluster import tiny_run


def measured(dtype: str, loss_apart: float) -> Measured:
    cost = Cost(1.0, 1.0, 0.5, 1, {})
    return Measured("chat", dtype, "fresh", cost, 1, {}, 2.0, 0.5, loss_apart=loss_apart)


def test_unequal_losses_are_found_by_precision() -> None:
    close = [measured("float32", 1e-5), measured("bfloat16", 1e-2)]
    assert training.unequal(close) == []
    assert len(training.unequal([*close, measured("float32", 1e-2)])) == 1
    assert len(training.unequal([*close, measured("bfloat16", float("inf"))])) == 1


def test_nothing_to_measure_on_is_refused_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        training.main(["--base", "base", "--out", str(tmp_path / "out")])
    assert ended.value.code == 2
    assert "expected --data or --examples, got neither" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_measurements_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        training.main(["--base", "base", "--examples", "4", "--out", str(tmp_path)])
    assert ended.value.code == 2
    assert "--out: expected a folder that is to be made" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_all_systems_run_the_same_trials(tmp_path: Path) -> None:
    data, base = tiny_run.write_data(tmp_path), tiny_run.write_base(tmp_path)
    out = tmp_path / "out"
    words = ["--base", str(base), "--data", str(data), "--out", str(out)]
    with pytest.raises(SystemExit) as ended:
        training.main([*words, "--users", "2", "--trials", "3", "--dtypes", "float32"])
    assert ended.value.code == 0
    found = json.loads((out / "training.json").read_text())["measured"]
    assert [one["system"] for one in found] == ["milpa", "fresh", "reused"]
    assert {one["trials"] for one in found} == {6}
    for one in found:
        assert sum(one["phases"].values()) == pytest.approx(one["cost"]["cpu_seconds"])
        assert min(one["phases"].values()) > 0
    _searches_by_optuna(out / "data.jsonl-float32" / "workload.json", tmp_path)


def _searches_by_optuna(workload: Path, folder: Path) -> None:
    """The same baseline as it would search by itself."""
    words = ["--workload", str(workload), "--form", "reused", "--out", str(folder / "o.json")]
    words += ["--ready", str(folder / "ready"), "--optuna", "2", "--layers", "4"]
    baseline_tune_peft.main(words)
    trials = json.loads((folder / "o.json").read_text())["trials"]
    people = [trial["trial"]["person"] for trial in trials]
    assert sorted(people) == [0, 0, 1, 1]
    assert len(Workload.load(workload).people) == 2
