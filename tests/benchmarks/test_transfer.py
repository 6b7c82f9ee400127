"""The transfer benchmark's arithmetic, and one small case of it for real."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import transfer
from benchmarks.transfer import Outcome, cases, interval, measured, table
from search.samplers import PORTFOLIO, SamplerSettings


def test_an_interval_holds_the_mean_and_grows_with_the_spread() -> None:
    narrow, wide = (interval(0.1 + spread * np.array([-1.0, 0, 0, 1])) for spread in (0.01, 0.1))
    assert narrow[0] < 0.1 < narrow[1]
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    assert interval(np.full(5, 0.3)) == pytest.approx((0.3, 0.3))


def test_a_table_tells_means_paired_differences_and_trials_to_the_goal() -> None:
    without = np.linspace(0, 1, 50)[None] * np.ones((3, 1))
    shares = {"none": without, "portfolio of 5": without + 0.1}
    lines = table([Outcome("related", shares, np.array([0.55, 0.9, 2.0]))]).splitlines()
    assert lines[2].startswith("| related | none | 0.500 |")
    assert lines[2].endswith("| 46 (2 of 3) |")
    assert lines[3].startswith("| related | portfolio of 5 | 0.600 |")
    assert lines[3].endswith("| 41 (2 of 3) |")
    assert lines[4].startswith("| related | difference | +0.100 [+0.100, +0.100] |")
    unreached = table([Outcome("related", shares, np.full(3, 2.0))]).splitlines()
    assert unreached[2].endswith("| > 50 (0 of 3) |")
    assert table([Outcome("related", shares)]).splitlines()[2].endswith("|  |")


def test_related_users_begin_with_a_portfolio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random searches of few trials, so that it is quick; what is kept is read again."""
    for name, value in {"TARGETS": 1, "TRIALS": 8, "SOURCES": 4, "GOAL_TRIALS": 4}.items():
        monkeypatch.setattr(transfer, name, value)
    settings = SamplerSettings("random", 6)
    monkeypatch.setattr(transfer, "SETTINGS", settings)
    first = measured(cases(0, 8)[0], 0, tmp_path, settings, goal=True)
    files = sorted(tmp_path.rglob("*.json"))
    none, advised = first.shares
    assert (none, advised[:-1]) == ("none", "portfolio of ")
    assert 1 <= int(advised[-1]) <= 3
    assert {rows.shape for rows in first.shares.values()} == {(1, 8)}
    assert first.goals is not None
    assert first.goals.shape == (1,)
    again = measured(cases(0, 8)[0], 0, tmp_path, settings)
    assert sorted(tmp_path.rglob("*.json")) == files
    assert again.goals is None
    assert any(PORTFOLIO in file.name for file in files)
    np.testing.assert_array_equal(again.shares[advised], first.shares[advised])
