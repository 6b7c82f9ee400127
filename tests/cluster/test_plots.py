"""Figures as plotly's dictionaries: what stands where."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cluster import plots
from cluster.courses import Course, Trial
from search.space import BASE_CONFIG, MemoryConfig

NEAR, FAR = MemoryConfig((0,), 8, 1e-3), MemoryConfig((1, 2), 32, 1e-3)
COURSE = Course(
    trials=(
        Trial(BASE_CONFIG, (3.0, 0.10), on_front=False),
        Trial(FAR, (2.8, 0.30), on_front=True),
        Trial(NEAR, (2.5, 0.20), on_front=True),
        Trial(MemoryConfig((3,), 8, 1e-3), (2.9, 0.15), on_front=False),
    ),
    winner=NEAR,
    published=(2.4, 0.25),
    reference=(3.0, 0.10),
    hypervolume=(0.0, 0.04, 0.07, 0.07),
)


def traces(figure: plots.Figure) -> dict[str, Any]:
    return {trace.get("name"): trace for trace in figure["data"]}


def test_the_front_holds_every_trial_once_and_the_marked_ones() -> None:
    drawn = traces(plots.front(COURSE))
    assert drawn["trial"]["x"] == [2.9]
    assert drawn["front"]["x"] == [2.5, 2.8]
    assert drawn["front"]["y"] == [20, 30]
    assert drawn["base (anchor)"]["x"] == [3.0]
    assert drawn["winning trial"]["x"] == [2.5]
    assert drawn["winner, trained in full"]["y"] == [25]
    assert drawn["reference point"]["x"] == [3.0]
    # What a point dominates lies at greater loss, so its edge first runs to the right.
    assert drawn["front"]["line"]["shape"] == "hv"


def test_hypervolume_has_a_value_for_every_trial() -> None:
    figure = plots.hypervolume([0.0, 0.04, 0.07])
    assert figure["data"][0]["y"] == [0.0, 4.0, 7.0]
    assert figure["data"][0]["x"] == [0, 1, 2]


def test_the_heat_map_shows_ranks_where_layers_are_active() -> None:
    figure = plots.layers(["a", "b", "c"], [NEAR, FAR, BASE_CONFIG], 3)
    cells = figure["data"][0]
    assert cells["z"] == [[0.0, None, None], [None, 1.0, 1.0], [None, None, None]]
    assert list(cells["colorbar"]["ticktext"]) == ["8", "32"]
    assert plots.layer_counts([NEAR, FAR, BASE_CONFIG], 3)["data"][0]["y"] == [1, 1, 1]


def test_the_heat_map_stands_when_every_winner_is_the_base() -> None:
    figure = plots.layers(["a"], [BASE_CONFIG], 2)
    assert figure["data"][0]["z"] == [[None, None]]


def test_ranks_are_counted_layer_by_layer() -> None:
    cells = plots.layer_ranks([NEAR, FAR, FAR, BASE_CONFIG], 3)["data"][0]
    assert cells["z"] == [[1, None, None], [None, 2, 2]]
    assert (cells["zmin"], cells["zmax"]) == (0, 2)
    assert plots.layer_ranks([BASE_CONFIG], 3)["data"][0]["z"] == []


def test_the_gain_matrix_is_centred_on_no_change() -> None:
    figure = plots.personal_gain(["a", "b"], [[-0.2, None], [0.1, -0.05]])
    cells = figure["data"][0]
    assert (cells["zmin"], cells["zmax"]) == (-0.2, 0.2)
    assert cells["z"] == [[-0.2, None], [0.1, -0.05]]
    assert len(figure["layout"]["shapes"]) == 2


@pytest.mark.parametrize("name", ["<a href='javascript:x'>n</a>", "<b>", "&lt;"])
def test_no_user_id_is_markup_in_a_figure(name: str) -> None:
    figures = [plots.layers([name], [NEAR], 2), plots.personal_gain([name], [[0.1]])]
    for figure in figures:
        text = json.dumps(figure)
        assert name not in text
        assert "&lt;" in text or "&amp;" in text


def test_many_users_are_rows_without_names() -> None:
    names = [f"u{i}" for i in range(plots.NAMED_ROWS + 1)]
    figure = plots.layers(names, [NEAR] * len(names), 2)
    assert figure["layout"]["yaxis"]["showticklabels"] is False
    assert figure["layout"]["height"] < 1000


def test_figures_are_small_and_hold_only_json() -> None:
    text = json.dumps(plots.front(COURSE), allow_nan=False)
    assert len(text) < 4000
