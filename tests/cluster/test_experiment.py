import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from cluster.experiment import PRESETS, Experiment, experiment_from, flags, seed_of

GIVEN: dict[str, Any] = {"data": "some-data", "base": "some/base"}


def test_every_field_is_a_flag_and_only_data_and_base_are_required() -> None:
    parameters = {parameter.name: parameter for parameter in flags()}
    assert list(parameters) == [field.name for field in fields(Experiment)]
    required = [name for name, p in parameters.items() if p.default is p.empty]
    assert required == ["data", "base"]


def test_what_is_not_given_is_the_presets() -> None:
    given = {**GIVEN, "preset": "demo", "trials": None, "ranks": [], "seed": 7}
    assert experiment_from(given) == replace(PRESETS["demo"](**GIVEN), seed=7)


def test_a_flag_may_switch_off_what_the_preset_has_on() -> None:
    assert not experiment_from({**GIVEN, "search_layers": False}).search_layers
    assert experiment_from({**GIVEN, "injection_epochs": 0}).injection_epochs == 0


def test_settings_are_json_and_equal_to_themselves_after_it() -> None:
    experiment = experiment_from({**GIVEN, "ranks": [4, 8], "users": 3})
    assert experiment.ranks == (4, 8)
    stored = json.loads(json.dumps(experiment.to_json()))
    assert experiment.differences({**stored, "commit": "abc"}) == []


def test_differences_name_flag_stored_and_given() -> None:
    stored = experiment_from({**GIVEN, "min_items": 40}).to_json()
    assert experiment_from(GIVEN).differences(stored) == ["--min-items: the run has 40, got 30"]
    assert experiment_from({**GIVEN, "min_items": 40}).differences(stored) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("trials", 0),
        ("users", 0),
        ("seed", -1),
        ("items", 0),
        ("injection_epochs", -1),
        ("repeat_winner", -1),
    ],
)
def test_a_number_out_of_range_is_refused_by_its_flag(field: str, value: int) -> None:
    with pytest.raises(ValueError, match="--" + field.replace("_", "-")):
        experiment_from({**GIVEN, field: value})


@pytest.mark.parametrize(
    ("field", "values", "says"),
    [
        ("ranks", [0, 8], "expected ranks above 0"),
        ("ranks", [16, 8], "expected ranks above 0 in rising order"),
        ("learning_rates", [0.0], "expected learning rates above 0"),
        ("learning_rates", [1e-3, math.nan], "expected learning rates above 0"),
    ],
)
def test_values_that_no_space_can_hold_are_refused(
    field: str, values: list[float], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        experiment_from({**GIVEN, field: values})


def test_a_total_below_the_users_initial_points_is_refused_with_what_to_do() -> None:
    experiment = experiment_from({**GIVEN, "total_trials": 47})
    experiment.check_total(3)
    with pytest.raises(ValueError, match=r"--total-trials: expected at least 48, 12 .* 4 users"):
        experiment.check_total(4)
    experiment_from(GIVEN).check_total(1000)


def test_stopping_needs_a_sampler_that_says_what_it_expects() -> None:
    assert experiment_from({**GIVEN, "stop_below": 0.01}).stop_below == 0.01
    with pytest.raises(ValueError, match=r"--stop-below.*map-saas, gp, saas.*got tpe: leave it"):
        experiment_from({**GIVEN, "stop_below": 0.01, "sampler": "tpe"})
    with pytest.raises(ValueError, match=r"--stop-below: .* below 1, got 1\.5"):
        experiment_from({**GIVEN, "stop_below": 1.5})


def test_training_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="--injection-epochs and --tuning-epochs"):
        experiment_from({**GIVEN, "injection_epochs": 0, "tuning_epochs": 0})


def test_the_paper_preset_is_the_published_search() -> None:
    paper = experiment_from({**GIVEN, "preset": "paper"})
    assert (paper.trials, paper.initial_points, paper.batch) == (200, 100, 4)
    assert (paper.sampler, paper.design) == ("saas", "random")
    assert (paper.learning_rates, paper.population, paper.transfer) == ((5e-4,), "off", "off")
    assert paper.ranks == (8, 16, 32, 64, 96)
    assert not paper.stop_early


def test_an_unknown_preset_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="scale, demo"):
        experiment_from({**GIVEN, "preset": "huge"})


@pytest.mark.parametrize(("trials", "expected"), [(1, 1), (6, 3), (24, 12), (100, 12)])
def test_initial_points_are_at_most_half_and_twelve(trials: int, expected: int) -> None:
    assert experiment_from({**GIVEN, "trials": trials}).initial_points == expected


def test_a_path_is_the_same_from_wherever_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data.jsonl").touch()
    monkeypatch.chdir(tmp_path)
    here = experiment_from({**GIVEN, "data": "data.jsonl"})
    assert here == experiment_from({**GIVEN, "data": str(tmp_path / "data.jsonl")})
    assert experiment_from(GIVEN).base == "some/base"


def test_a_seed_is_of_all_its_parts_and_never_changes() -> None:
    assert seed_of(1, "ann") == seed_of(1, "ann") != seed_of(1, "bob")
    assert seed_of("1", "2") != seed_of("12")
    assert 0 <= seed_of(0, "\udcff") < 2**31  # any user id, also one that is no valid Unicode
