"""How methods stand, by hand: means over seeds, differences, ties, tables."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest

from cluster.comparison import METRICS
from cluster.results import Measured, Recall
from cluster.standing import TIE, Cost, Row, Standing, difference_of
from cluster.standing_text import as_json, grids, markdown
from cluster.tally import measured_of, values_of
from models.gain import paired_interval

LOSS, ROUGE_L = METRICS[0], METRICS[1]
SETTINGS = {
    "data": "d", "base": "b", "users": 4, "min_items": 30, "items": 32, "seeds": 2, "seed": 7,
    "trials": 8, "injection_epochs": 3, "tuning_epochs": 3, "epoch_tokens": 8192,
}  # fmt: skip


def a_row(label: str, losses: dict[str, float], **others: Any) -> Row:
    return Row(label, {"loss": losses}, trials=1, **others)


def a_standing(*rows: Row, **others: Any) -> Standing:
    return Standing("none", rows, settings=SETTINGS, commits=("0123456789abcdef",), **others)


def test_a_users_value_is_the_mean_over_seeds() -> None:
    first = Measured(2.0, 5, rouge_l=0.2, recall={"all": Recall(1, 2, 0.5)})
    second = Measured(4.0, 5, rouge_l=0.4, recall={"all": Recall(2, 2, 0.5)})
    other = Measured(1.0, 5)
    values = values_of([{"u": first, "v": other}, {"u": second, "v": other}])
    assert values["loss"] == {"u": 3.0, "v": 1.0}
    assert values["ROUGE-L"] == {"u": pytest.approx(0.3)}
    assert values["recall, all"] == {"u": 0.75}
    assert "Persona-F1" not in values


def test_who_was_not_measured_has_no_value() -> None:
    users = {"u": {"measured": asdict(Measured(2.0, 5))}, "v": {"failed": True}}
    assert measured_of(users) == {"u": Measured(2.0, 5)}


def test_differences_are_taken_within_users() -> None:
    none = a_row("none", {"a": 3.0, "b": 5.0, "c": 1.0, "d": 2.0})
    own = a_row("own", {"a": 2.0, "b": 5.0 + TIE / 2, "c": 1.5, "d": 2.0})
    found = a_standing(none, own).difference(own, LOSS)
    assert found is not None
    differences = [-1.0, TIE / 2, 0.5, 0.0]
    interval = paired_interval(differences, 7)
    assert found.mean == pytest.approx(sum(differences) / 4)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert (found.wins, found.ties, found.losses) == (1, 2, 1)


def test_more_is_better_where_it_is() -> None:
    assert difference_of([0.2, 0.2, -0.1], ROUGE_L, 0).wins == 2
    assert difference_of([0.2, 0.2, -0.1], LOSS, 0).wins == 1


def test_a_single_users_difference_has_no_interval() -> None:
    found = difference_of([-0.5], LOSS, 0)
    assert (found.mean, found.low, found.high, found.wins) == (-0.5, None, None, 1)


def test_a_row_that_lacks_users_is_held_against_those_it_has() -> None:
    none, own = a_row("none", {"a": 3.0, "b": 5.0}), a_row("own", {"b": 4.0})
    found = a_standing(none, own).difference(own, LOSS)
    assert found is not None
    assert found.mean == -1.0


def test_tables_name_rows_costs_and_who_was_left_out() -> None:
    none = a_row("none", {"a": 3.0, "b": 5.0}, on_base=2, promised=0.0, kept=0.0)
    own = a_row(
        "own",
        {"a": 2.0, "b": 4.5},
        no_gain=2,
        failed=3,
        promised=0.25,
        kept=-0.125,
        cost=Cost(
            trained_parameters=1200,
            stored_bytes=5000,
            extra_tokens=12.25,
            shared_times=2,
            shared_seconds=4.0,
        ),
    )
    standing = a_standing(none, own, left_out={"needy": "expected 9 | users"}, population=None)
    page = markdown(standing)
    assert "| own | -0.750 | [-1.000, -0.500] | 2 | 0 | 0 |" in page
    assert "| none | 1 | +0.000 | +0.000 | 2 | 0 | 0 | 0 |" in page
    assert "| own | 1 | +0.250 | -0.125 | 0 | 2 | 3 | 0 |" in page
    assert "| own | 1,200 | \N{EN DASH} | 5,000 | 12.2 |" in page
    assert "| own | 2 | 4.0 |" in page
    assert "needy" in page
    assert "expected 9" in page
    assert "commit 0123456789ab." in page


def test_what_is_shared_has_a_table_where_anything_is() -> None:
    titles = [grid.title for grid in grids(a_standing(a_row("none", {"a": 3.0})))]
    assert not any("shared" in title for title in titles)


def test_the_json_holds_values_and_differences() -> None:
    none, own = a_row("none", {"a": 3.0, "b": 5.0}), a_row("own", {"a": 2.0, "b": 4.5})
    content = json.loads(as_json(a_standing(none, own)))
    assert content["rows"][1]["values"]["loss"] == {"a": 2.0, "b": 4.5}
    assert content["differences"]["own"]["loss"]["mean"] == -0.75
    assert content["tie"] == TIE
