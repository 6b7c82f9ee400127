"""Differences between models by hand: means, intervals, who is better, who is worst."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from cluster.chosen import Chosen
from cluster.comparison import METRICS, Compared, Comparison, contrast, mean_of
from cluster.comparison_text import grids, markdown, show
from cluster.results import Measured, Recall
from models.gain import paired_interval

LOSS, ROUGE_L = METRICS[0], METRICS[1]
RECALL = next(metric for metric in METRICS if metric.name == "recall, all")


def one(loss: float, hits: int = 0, asked: int = 10) -> Measured:
    recall = {"all": Recall(hits, asked, asked / 20)} if asked else {}
    return Measured(loss, 50, rouge_1=0.2, rouge_l=0.1, persona_f1=0.1, p_cover=1.5, recall=recall)


def person(name: str, base: float, own: float, strangers: float | None = None) -> Compared:
    measured = {"base": one(base, 1), "own": one(own, 6)}
    if strangers is not None:
        measured["strangers"] = one(strangers, 2)
    return Compared(name, name, name != "mixed", "milp", 12, 8, ("x",), measured)  # type: ignore[arg-type]


USERS = (
    person("a", 3.0, 2.5, 2.9),
    person("b", 4.0, 3.9, 3.8),
    person("mixed", 2.0, 2.2, 2.3),
)


def comparison(users: tuple[Compared, ...] = USERS) -> Comparison:
    return Comparison("bases/small", "RUN/base", "people.jsonl", 7, 4, users)


def test_a_contrast_by_hand() -> None:
    found = contrast(LOSS, "own", "base", USERS, seed=7)
    assert found is not None
    differences = [-0.5, -0.1, 0.2]
    assert found.mean == pytest.approx(-0.4 / 3)
    interval = paired_interval([u.difference(LOSS, "own", "base") or 0.0 for u in USERS], 7)
    assert (found.low, found.high) == (interval.low, interval.high)
    assert (found.better, found.users) == (2, 3)
    assert found.worst == pytest.approx(max(differences))
    assert found.worst_user == "mixed"


def test_of_what_should_be_great_the_least_is_worst() -> None:
    users = (USERS[0], replace(USERS[1], measured={"base": one(4.0, 5), "own": one(3.9, 3)}))
    found = contrast(RECALL, "own", "base", users, seed=0)
    assert found is not None
    assert found.worst == pytest.approx(-0.2)
    assert (found.better, found.worst_user) == (1, "b")


def picked(*squares: float) -> Measured:
    """Ratings that were so many steps off, squared."""
    mean = sum(squares) / len(squares)
    chosen = Chosen(len(squares), 0.5, 0.2, mae=1.0, mse=mean)
    return Measured(1.0, 1, chosen=chosen)


def test_what_is_of_all_items_at_once_is_no_mean_over_users() -> None:
    users = (
        replace(USERS[0], measured={"base": picked(9.0), "own": picked(1.0)}),
        replace(USERS[1], measured={"base": picked(1.0, 0.0, 3.0), "own": picked(4.0, 4.0, 4.0)}),
        replace(USERS[2], measured={"base": one(2.0), "own": picked(0.0)}),  # no picks of the base
    )
    means = comparison(users).means(users)["RMSE"]
    assert means == {"base": (13 / 4) ** 0.5, "own": (13 / 5) ** 0.5}
    found = next(c for c in comparison(users).contrasts(users) if c.metric == "RMSE")
    assert (found.of, found.to, found.users) == ("own", "base", 2)
    assert found.mean == pytest.approx((13 / 4) ** 0.5 - (13 / 4) ** 0.5)
    assert (found.better, found.worst_user) == (1, "b")
    assert found.worst == pytest.approx(2.0 - (4 / 3) ** 0.5)
    text = markdown(comparison(users))
    assert "own - base: RMSE" in text


def test_users_without_a_number_are_left_out_of_its_contrast() -> None:
    users = (*USERS, person("alone", 3.0, 2.0))
    against = contrast(LOSS, "own", "strangers", users, seed=0)
    assert against is not None
    assert against.users == 3
    assert contrast(LOSS, "base", "original", users, seed=0) is None
    without = replace(USERS[0], measured={"base": one(3.0, 0, 0), "own": one(2.0, 0, 0)})
    assert contrast(RECALL, "own", "base", [without], seed=0) is None


def test_a_single_user_has_no_interval() -> None:
    found = contrast(LOSS, "own", "base", USERS[:1], seed=0)
    assert found is not None
    assert (found.low, found.high) == (None, None)
    assert json.loads(json.dumps(comparison(USERS[:1]).to_json(), allow_nan=False))


def test_claims_are_made_on_users_split_between_sessions() -> None:
    assert [user.user_id for user in comparison().headline] == ["a", "b"]
    assert [user.user_id for user in comparison(USERS[2:]).headline] == ["mixed"]
    found = comparison().to_json()
    assert found["headline"]["users"] == ["a", "b"]  # type: ignore[index]
    assert found["all"]["users"] == ["a", "b", "mixed"]  # type: ignore[index]


def test_means_of_every_model_that_was_measured() -> None:
    means = comparison().means(USERS[:2])
    assert means["loss"] == pytest.approx({"base": 3.5, "own": 3.2, "strangers": 3.35})
    assert means["recall, all"] == pytest.approx({"base": 0.1, "own": 0.6, "strangers": 0.2})


def test_strangers_are_one_model() -> None:
    found = mean_of([one(3.0, hits=1), one(4.0, hits=4)])
    assert found.loss_nats == 3.5
    assert found.recall["all"] == Recall(5, 20, 1.0)
    assert RECALL.read(found) == 0.25


def test_the_document_says_what_was_found() -> None:
    text = markdown(comparison())
    assert "3 users, 2 of them split between sessions" in text
    assert "| own - base: loss | -0.300 | [" in text
    assert "| 2 of 2 | -0.100 |" in text
    assert "mixed \\*" in text
    assert "original" not in text.split("## Means")[1].split("\n\n")[1]


@pytest.mark.parametrize("name", ["a|b", "<img src=x>", "[x](http://y)", "`x`", "a\n| b |"])
def test_no_user_id_is_markup_in_the_document(name: str) -> None:
    plain, hostile = markdown(comparison()), markdown(comparison((person(name, 3, 2), *USERS[1:])))
    assert name not in hostile
    rows = [line for line in hostile.splitlines() if line.startswith("|")]
    assert len(rows) == len([line for line in plain.splitlines() if line.startswith("|")])
    for table in hostile.split("\n\n"):
        bars = {line.replace("\\|", "").count("|") for line in table.splitlines()}
        assert len(bars) == 1


def test_the_terminal_shows_every_table_and_reads_no_markup() -> None:
    console = Console(file=io.StringIO(), width=200)
    made = comparison((person("[red]x[/red]", 3, 2), *USERS))
    show(made, console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "[red]x[/red]" in printed
    assert all(grid.title in printed for grid in grids(made))
