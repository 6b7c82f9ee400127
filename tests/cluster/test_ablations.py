"""The paper's ablations as presets: each searches or trains what it names, all else alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest
from typer.testing import CliRunner

from cluster.ablations import ABLATIONS, FIXED_RANK, AblationName
from cluster.experiment import PRESETS, Experiment, PresetName, experiment_from
from milpa import app
from search.space import LEARNING_RATES, RANKS, SearchSpace

GIVEN: dict[str, Any] = {"data": "some-data", "base": "some/base"}
LAYERS = 6
SPACES = [name for name in ABLATIONS if name.startswith("search-")]


def space_of(experiment: Experiment, layers: int = LAYERS) -> SearchSpace:
    space, _ = SearchSpace.for_base(
        layers,
        4096,
        ranks=experiment.ranks,
        learning_rates=experiment.learning_rates,
        search_layers=experiment.search_layers,
        search_number=experiment.search_number,
    )
    return space


def test_every_ablation_is_a_preset_and_every_preset_has_a_name() -> None:
    assert set(get_args(AblationName)) == set(ABLATIONS)
    assert set(get_args(PresetName)) == set(PRESETS)
    assert len(SPACES) == 7


@pytest.mark.parametrize("name", SPACES)
def test_a_space_searches_what_its_name_says_and_fixes_the_rest(name: str) -> None:
    space = space_of(experiment_from({**GIVEN, "preset": name}))
    named = {"number", "size", "layers"} if name == "search-all" else set(name.split("-")[1:])
    assert space.search_number == ("number" in named)
    assert space.search_layers == ("layers" in named)
    assert space.search_size == ("size" in named)
    assert space.ranks == (RANKS if "size" in named else (FIXED_RANK,))
    assert space.learning_rates == LEARNING_RATES
    sets = set(space.sets.enumerate())
    counts = {len(layers) for layers in sets}
    whole = tuple(range(LAYERS))
    if named == {"size"}:
        assert sets == {whole}
    elif "layers" not in named:
        assert len(sets) == LAYERS  # one for each number, evenly spaced
        assert counts == set(range(1, LAYERS + 1))
    else:
        assert len(sets) == 2**LAYERS - 1


def test_the_number_searched_binds_only_above_32_layers() -> None:
    """As the note says: on smaller bases the two hold the same configurations."""
    one, other = (
        space_of(experiment_from({**GIVEN, "preset": name}))
        for name in ("search-layers", "search-number-layers")
    )
    assert set(one.enumerate()) == set(other.enumerate())
    assert one.dimensions + 1 == other.dimensions


@pytest.mark.parametrize(
    ("name", "injection", "tuning"),
    [
        ("stages-injection", 3, 0),
        ("stages-tuning", 0, 3),
        ("stages-both", 3, 3),
        ("stages-apart", 3, 3),
    ],
)
def test_stages_train_what_they_name(name: str, injection: int, tuning: int) -> None:
    experiment = experiment_from({**GIVEN, "preset": name})
    assert (experiment.injection_epochs, experiment.tuning_epochs) == (injection, tuning)
    assert space_of(experiment) == space_of(experiment_from(GIVEN))


@pytest.mark.parametrize("name", ABLATIONS)
def test_nothing_else_differs_from_the_default(name: AblationName) -> None:
    back = {field: getattr(PRESETS["scale"](**GIVEN), field) for field in ABLATIONS[name]}
    assert replace(experiment_from({**GIVEN, "preset": name}), preset="scale", **back) == (
        PRESETS["scale"](**GIVEN)
    )


def test_flags_go_before_an_ablation() -> None:
    experiment = experiment_from({**GIVEN, "preset": "search-number", "ranks": [4], "trials": 2})
    assert (experiment.ranks, experiment.trials) == ((4,), 2)
    assert not experiment.search_layers


def test_the_help_names_every_preset() -> None:
    shown = CliRunner(env={"COLUMNS": "300"}).invoke(app, ["search", "--help"])
    assert shown.exit_code == 0
    for name in PRESETS:
        assert name in shown.output


def test_an_unknown_preset_is_refused_by_the_command_line() -> None:
    words = ["search", "--data", "d", "--base", "b", "--preset", "search-nothing"]
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 2
    assert "--preset" in shown.output
