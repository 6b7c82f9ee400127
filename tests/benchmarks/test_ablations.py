"""The ablations' commands and table, and the whole of it on tiny searches."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import ablations
from benchmarks.ablation_table import Outcome, document
from benchmarks.ablations import PRESETS, WHOLE, Plan
from cluster.experiment import experiment_from
from cluster.results import Measured, UserResult
from models.gain import paired_interval
from search.space import BASE_CONFIG, MemoryConfig
from tests.cluster import tiny_run

LAYERS = 8
CONFIGURATIONS = (MemoryConfig((0, 3), 16, 1e-3), MemoryConfig((1,), 32, 1e-3), BASE_CONFIG)


def user(place: int, loss: float) -> UserResult:
    configuration = CONFIGURATIONS[place]
    measured = Measured(loss, 10, rouge_l=0.2)
    return UserResult(
        user_id=f"secret {place}",
        digest=str(place) * 16,
        by_session=True,
        pairs=40,
        kind="milp" if configuration.layers else "base",
        reason=None,
        configuration=configuration,
        parameters=100 * len(configuration.layers) * configuration.rank,
        strength=1.0,
        anchor=measured,
        winner=measured,
    )


def made(preset: str, *losses: float) -> Outcome:
    users = tuple(user(place, loss - 1) for place, loss in enumerate(losses))
    return Outcome(
        preset,
        LAYERS,
        users,
        {u.user_id: replace(u.winner, loss_nats=u.winner.loss_nats + 1) for u in users},
    )


def cells(text: str, heading: str, first: str) -> list[str]:
    part = text[text.index(heading) :]
    line = next(line for line in part.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("| ").split("|")]


def test_the_table_tells_means_and_paired_differences_of_both_parts() -> None:
    text = document([made(WHOLE, 3, 4, 5), made("search-size", 3.1, 4.5, 4.9)], 7, 32)
    assert "secret" not in text
    interval = paired_interval([3.1 - 3, 4.5 - 4, 4.9 - 5], 7)
    shown = f"+0.167 [{interval.low:+.3f}, {interval.high:+.3f}]"
    assert cells(text, "## On test", "search-size")[1:4] == ["4.167", shown, "1 of 3"]
    assert cells(text, "## On validation", "search-size")[1:4] == ["3.167", shown, "1 of 3"]
    # No difference to itself; two users of three have a memory; ROUGE-L x100.
    assert cells(text, "## On test", WHOLE)[1:] == ["4.000", "", "", "20.0", "", "", "2", "2,133"]
    assert "recall" not in text


def test_parameters_are_ratios_to_all_layers() -> None:
    text = document([made(WHOLE, 3, 4, 5)], 0, 32)
    own = [2 / 8, 1 / 8]
    at_32 = [2 * 16 / (8 * 32), 1 * 32 / (8 * 32)]
    for name, (one, other) in (
        ("all layers at the winner's own rank", own),
        ("all layers at rank 32", at_32),
    ):
        expected = [f"{(one + other) / 2:.3f}", f"{min(one, other):.3f}", f"{max(one, other):.3f}"]
        assert cells(text, "## Parameters", name)[1:] == expected
    assert "Over 2 users with a memory; 1 more keep the base" in text


def test_only_users_split_between_sessions_count_where_there_are_any() -> None:
    whole = made(WHOLE, 3, 4, 5)
    marked = replace(whole, users=(replace(whole.users[0], by_session=False), *whole.users[1:]))
    text = document([marked], 0, 32)
    assert "on 2 users" in text
    assert cells(text, "## On test", WHOLE)[1] == "4.500"
    nobody = replace(whole, users=tuple(replace(u, by_session=False) for u in whole.users))
    assert "on 3 users" in document([nobody], 0, 32)


def test_runs_of_other_users_are_refused_without_naming_them() -> None:
    with pytest.raises(ValueError, match="search-size: expected the users of search-all") as caught:
        document([made(WHOLE, 3, 4, 5), made("search-size", 3, 4)], 0, 32)
    assert "secret" not in str(caught.value)


def plan(out: Path) -> Plan:
    return Plan("data", "base", out, (4, 8), 6, ("--users", "2"))


def searched(words: list[str]) -> dict[str, object]:
    """The experiment that `milpa search` makes of its words."""
    parser = argparse.ArgumentParser()
    for name in ("data", "base", "out", "preset", "population", "users"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--ranks", type=int, action="append")
    parser.add_argument("--resume", action="store_true")
    given = vars(parser.parse_args(words[1:]))
    return {
        **given,
        "experiment": experiment_from(
            {k: v for k, v in given.items() if k not in ("out", "resume", "users")}
        ),
    }


def test_every_preset_searches_on_the_base_of_the_whole_space(tmp_path: Path) -> None:
    first = searched(plan(tmp_path).search(WHOLE))
    assert (first["base"], first["population"], first["ranks"]) == ("base", None, [4, 8])
    (tmp_path / WHOLE / "base").mkdir(parents=True)
    (tmp_path / WHOLE / "key").touch()
    assert searched(plan(tmp_path).search(WHOLE))["resume"]
    for preset in PRESETS[1:]:
        found = searched(plan(tmp_path).search(preset))
        assert found["base"] == str(tmp_path / WHOLE / "base")
        assert found["population"] == "off"
        assert found["users"] == "2"
        assert not found["resume"]
        fixed = preset in ("search-number", "search-layers", "search-number-layers")
        assert found["ranks"] == ([6] if fixed else [4, 8])
    assert len(PRESETS) == 10


def test_flags_that_ablations_set_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data", "d", "--base", "b", "--out", "o", "--tuning-epochs", "1"]
    with pytest.raises(SystemExit):
        ablations.main(words)
    assert "no ablation sets, got --tuning-epochs" in capsys.readouterr().err


@pytest.mark.long
def test_ablations_run_and_go_on_from_what_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, base = tiny_run.write_data(tmp_path), tiny_run.write_base(tmp_path)
    words = ["--data", str(data), "--base", str(base), "--out", str(tmp_path / "out")]
    words += ["--users", "2", "--trials", "2", "--ranks", "4", "8", "--rank", "4"]
    words += ["--sampler", "random", "--winner-epochs", "1", "--items", "2", "--slots", "2"]
    ablations.main([*words, "--presets", "search-number"])
    compared = tmp_path / "out" / WHOLE / "compare.json"
    before = compared.stat().st_mtime_ns
    capsys.readouterr()
    ablations.main([*words, "--presets", "search-number", "stages-tuning"])
    assert compared.stat().st_mtime_ns == before
    text = capsys.readouterr().out
    for preset in (WHOLE, "search-number", "stages-tuning"):
        loss = float(cells(text, "## On test", preset)[1])
        assert 0 < loss < 20
    assert (tmp_path / "out" / "ablations.md").read_text() in text
    number = ablations.outcome("search-number", tmp_path / "out" / "search-number")
    assert {u.configuration.rank for u in number.users if u.configuration.layers} <= {4}
