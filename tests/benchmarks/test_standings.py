"""Tables say what the figures say, each contender against the default on the same users."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from benchmarks.cohorts import DEFAULT, GOAL
from benchmarks.curves import Curves
from benchmarks.drawing import Line, drawing
from benchmarks.standings import Standing, drawn, standing, tables

TRIALS = 30


def curves(name: str, *steps: float, trials: int = TRIALS) -> Curves:
    """By user: a share that rises by a step at every trial, to 1 at most."""
    rise = np.arange(1, trials + 1)
    shares = {f"user{i}": [np.minimum(step * rise, 1)] for i, step in enumerate(steps)}
    return Curves(name, trials, shares, 0.25, 0.125)


OURS, GOALS = curves(DEFAULT, 0.02, 0.04), curves(GOAL, 0.01, 0.02)
SHORT = curves("short", 0.01, 0.03, trials=20)


def rows(text: str, heading: str) -> dict[str, dict[str, str]]:
    """The table under a heading: by contender, then by column."""
    table = text[text.index(heading) :].split("\n\n")[1]
    head, _, *body = [
        [c.strip() for c in line.strip("|").split("|")] for line in table.splitlines()
    ]
    return {cells[0]: dict(zip(head, cells, strict=True)) for cells in body}


def standings(*every: Curves) -> list[Standing]:
    return [standing(one, OURS, GOALS) for one in every]


def test_differences_are_the_default_less_the_other() -> None:
    _, other, short = standings(OURS, GOALS, SHORT)
    assert other.budgets == (10, 20, 30)
    assert short.budgets == (10, 20)
    assert other.default_ahead is not None
    assert [e.mean for e in other.default_ahead] == pytest.approx([0.15, 0.3, 0.35])
    assert short.default_ahead is not None
    assert [(e.low, e.high) for e in short.default_ahead] == [
        pytest.approx((0.1, 0.1)), pytest.approx((0.2, 0.2))
    ]  # fmt: skip
    assert short.default_area_ahead is not None  # over the short one's trials: 10.5 steps
    assert short.default_area_ahead.mean == pytest.approx(0.01 * 10.5)


def test_the_default_is_not_compared_with_itself_nor_anybody_with_nobody() -> None:
    assert standing(OURS, OURS, GOALS).default_ahead is None
    alone = standing(SHORT, None, None)
    assert alone.default_ahead is None
    assert alone.goal is None
    assert "goal" not in tables("alone", DEFAULT, [alone])


def test_tables_show_the_figures() -> None:
    text = tables("a title", DEFAULT, standings(OURS, GOALS, SHORT))
    assert text.startswith("## a title\n")
    assert rows(text, "Share of the true")[DEFAULT]["10"] == "0.300 [0.200, 0.400]"
    assert rows(text, "Share of the true")["short"]["30"] == ""
    assert rows(text, "log10")[GOAL]["30"] == "-0.28 [-0.40, -0.15]"
    ahead = rows(text, f"How far {DEFAULT}")
    assert set(ahead) == {GOAL, "short"}
    assert ahead["short"]["20"] == "0.200 [0.200, 0.200]"
    assert ahead["short"]["area"] == "0.105 [0.105, 0.105]"
    about = rows(text, "CPU-seconds")
    assert about[DEFAULT]["goal reached"] == "2 of 2"
    assert about[DEFAULT]["median trials"] == about[DEFAULT]["mean curve"] == "15"
    assert about["short"]["goal reached"] == "1 of 2"
    assert about["short"]["median trials"] == "> 20"
    assert about["short"]["CPU-s a trial"] == "0.250"
    assert about["short"]["stand-ins"] == "12.5%"


def test_with_one_user_no_interval_is_shown() -> None:
    one, goal = curves(DEFAULT, 0.02), curves(GOAL, 0.01)
    text = tables("one", DEFAULT, [standing(c, one, goal) for c in (one, goal)])
    assert "no interval" in text
    assert rows(text, "Share of the true")[DEFAULT]["10"] == "0.200"


def test_nothing_searched_is_said() -> None:
    assert "No user has been searched by all" in tables("empty", DEFAULT, [])


def test_a_drawing_puts_values_where_they_belong() -> None:
    lines = [Line("a < b", [0.0, 0.5, 1.0], [0.0, 0.25, 1.0], [0.0, 0.75, 1.0]), Line("c", [0.5])]
    root = ET.fromstring(drawing("title", "trials", lines))
    names = [element.text for element in root.findall(".//{*}text")]
    assert {"a < b", "c", "title", "trials", "3"} <= {*names}
    first, second = (e.attrib["points"].split() for e in root.findall(".//{*}polyline"))
    places = [tuple(map(float, point.split(","))) for point in first]
    assert places[1][0] - places[0][0] == pytest.approx(places[2][0] - places[1][0], abs=0.2)
    assert places[0][1] > places[1][1] > places[2][1]
    assert second == [f"{places[0][0]:.1f},{places[1][1]:.1f}"]
    (band,) = root.findall(".//{*}polygon")
    assert len(band.attrib["points"].split()) == 6


def test_every_contender_is_drawn() -> None:
    root = ET.fromstring(drawn("a title", [OURS, GOALS, SHORT]))
    assert len(root.findall(".//{*}polyline")) == 3
    assert len(root.findall(".//{*}polygon")) == 3
