"""The packing benchmark runs anywhere, and both of its sides do the same work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import packing, short_users
from benchmarks.shapes import SHAPES


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The figures of a tiny run."""
    out: Path = tmp_path_factory.mktemp("packing") / "found.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(short_users, "MOST", 36)
        words = "--device cpu --base-shape tiny --dtype float32 --memories 2 1 --users 2 --trials 2"
        packing.main([*words.split(), "--out", str(out)])
    content: dict[str, Any] = json.loads(out.read_text())
    return content


@pytest.mark.long
def test_both_sides_train_the_same(found: dict[str, Any]) -> None:
    (base,) = found["bases"]
    alone, (one, two) = base["peft"], base["packed"]
    assert (alone["memories"], one["memories"], two["memories"]) == (1, 1, 2)
    assert (alone["trials"], one["trials"], two["trials"]) == (2, 2, 4)
    assert alone["steps_per_trial"] == one["steps_per_trial"] == two["steps_per_trial"] > 20
    assert one["mean_loss_nats"] == pytest.approx(alone["mean_loss_nats"], abs=1e-4)
    assert one["occupancy"] == 1.0 >= two["occupancy"] > 0.5


@pytest.mark.long
def test_ratios_bounds_and_shares_fit_together(found: dict[str, Any]) -> None:
    (base,) = found["bases"]
    alone = base["peft"]
    for pack in base["packed"]:
        for kind, rate in (("trials", "trials_per_hour"), ("trainings", "trainings_per_hour")):
            assert pack[f"{kind}_times_peft"] == pytest.approx(pack[rate] / alone[rate])
        assert pack["trials_bound"] * alone["share_of_peak"] == pytest.approx(1)
        assert 0 < pack["share_of_peak"] < 1
        assert pack["trials_per_hour"] < pack["trainings_per_hour"]
        assert pack["foretold_bytes"] >= pack["lean_bytes"] > 0
        assert pack["peak_bytes"] is None  # only a GPU counts it


@pytest.mark.long
def test_every_switch_has_its_row(found: dict[str, Any]) -> None:
    rows, whole = found["bases"][0]["ablation"], found["bases"][0]["packed"][-1]
    assert [row["switch"] for row in rows] == [*packing.ABLATIONS]
    assert all(row["memories"] == 2 and row["default_times_this"] > 0 for row in rows)
    for row in rows:  # none of what is taken away changes a result
        assert row["mean_loss_nats"] == pytest.approx(whole["mean_loss_nats"], abs=1e-4)
    assert {row["steps_per_trial"] for row in rows} == {
        found["bases"][0]["peft"]["steps_per_trial"]
    }


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        packing.main(["--device", "cuda"])
    assert ended.value.code == 2
    assert "expected a GPU that torch can use, got none" in capsys.readouterr().err


def test_users_have_30_to_200_short_items_and_sizes_are_spread() -> None:
    users = short_users.histories(5, seed=1)
    sizes = sorted(len(user.interactions) for user in users)
    assert sizes == [47, 81, 115, 149, 183]
    assert short_users.histories(5, seed=1) == users
    words = [len(i.response.split()) for user in users for i in user.interactions]
    assert 4 <= min(words) <= max(words) <= 20
    assert [set(sizes) for sizes in SHAPES.values()] == [{"tiny", "1b", "7b"}] * 2


def test_it_needs_no_ray_and_nothing_of_the_search() -> None:
    absent = dict.fromkeys(("ray", "optuna", "botorch", "datasets"))
    program = f"import sys\nsys.modules.update({absent})\nimport benchmarks.packing"
    root = Path(packing.__file__).parents[1]
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
