"""Benchmarks with options through a comparison's own units: LaMP's and PersonaMem's files."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.arena import Arena
from cluster.folder import RunFolder
from cluster.groundwork import prepared
from cluster.standing import Standing
from cluster.standing_text import as_json, markdown
from cluster.terms import Terms
from cluster.unit import BASE, Unit
from models.catalog import PERSONALIZERS
from models.choices import choice_items, measure, picks
from models.history import Histories, split
from models.lines import DataError
from models.registry import Registry
from tests.cluster import tiny_contest
from tests.cluster.tiny_run import write_base
from tests.models.published_files import PERSONAS, RATERS, put_lamp, put_persona_mem

GENERATED = {"ROUGE-L", "ROUGE-1", "Persona-F1", "P-Cover"}


def terms(folder: Path, data: Path, **others: Any) -> Terms:
    """Tiny terms on a benchmark's folder."""
    if not (folder / "base").exists():
        write_base(folder)
    given = {
        "methods": ("none", "milp", "rag"), "users": 3, "seeds": 1, "trials": 1, "items": 2,
        "min_items": 8, "injection_epochs": 0, "tuning_epochs": 1, "population": "off", **others,
    }  # fmt: skip
    return Terms(str(data), str(folder / "base"), **given)


def compared(folder: Path, of: Terms) -> tuple[Arena, Standing]:
    arena = tiny_contest.begun(folder, of)
    tiny_contest.tried(arena)
    return arena, tiny_contest.tested(arena)


def metrics(standing: Standing) -> set[str]:
    return {metric.name for metric in standing.metrics}


def mean(standing: Standing, label: str, name: str) -> float:
    row = standing.row(label)
    assert row is not None
    found = row.mean(next(metric for metric in standing.metrics if metric.name == name))
    assert found is not None
    return found


def test_ratings_are_picked_and_a_memory_learns_its_users(tmp_path: Path) -> None:
    data = put_lamp(tmp_path / "lamp", questions=3)
    arena, standing = compared(tmp_path, terms(tmp_path, data, trials=3, tuning_epochs=10))
    assert metrics(standing) == {"loss", "accuracy", "MAE", "RMSE"}
    assert (standing.items, standing.with_options) == (9, 9)
    assert standing.guessing == pytest.approx(1 / 5)
    # What the base picks, taken anew: the questions are asked, and nothing else.
    histories = Histories.open(arena.folder.data)
    tests = [choice_items(split(histories.load(u.user_id)).test) for u in arena.users]
    assert [len(items) for items in tests] == [3, 3, 3]
    picked = picks(arena.base, arena.attach, [None] * 3, tests, True)
    by_hand = [measure(items, own) for items, own in zip(tests, picked, strict=True)]
    assert mean(standing, "none", "accuracy") == sum(each.accuracy for each in by_hand) / 3
    assert mean(standing, "none", "MAE") == pytest.approx(sum(e.mae or 0 for e in by_hand) / 3)
    # Each user gives one score to everything.
    assert mean(standing, "milp", "accuracy") > mean(standing, "none", "accuracy")
    assert mean(standing, "milp", "RMSE") < mean(standing, "none", "RMSE")
    told = json.loads(as_json(standing))["differences"]["milp"]
    assert told["RMSE"]["low"] <= told["RMSE"]["mean"] <= told["RMSE"]["high"]
    page = markdown(standing)
    assert "9 test items, all with options to pick from" in page
    assert "| accuracy | MAE | RMSE |" in page
    assert page.count("| chance |") == 1
    answers = [json.loads(file.read_text()) for file in (arena.folder.path / "answers").iterdir()]
    assert not any(text for told in answers for text in told.values())
    for name, text in tiny_contest.texts_of(arena.folder.path / "units").items():
        assert not any(user in text for user in RATERS), name


def test_tags_have_f1_and_no_errors(tmp_path: Path) -> None:
    data = put_lamp(tmp_path / "lamp", task=2)
    arena, standing = compared(tmp_path, terms(tmp_path, data, users=4))
    assert metrics(standing) == {"loss", "accuracy", "F1"}
    assert standing.guessing == pytest.approx(1 / 15)
    texts = tiny_contest.texts_of(arena.folder.path / "units").values()
    assert not any("comedy" in text or "classic" in text for text in texts)


def test_multiple_choice_has_accuracy_alone(tmp_path: Path) -> None:
    data = put_persona_mem(tmp_path / "mem")
    of = terms(tmp_path, data, users=len(PERSONAS), user_said="query")
    arena, standing = compared(tmp_path, of)
    assert metrics(standing) == {"loss", "accuracy"}
    assert standing.items == 2 * len(PERSONAS)
    # Options differ from item to item: each counts by its mean per token.
    base = arena.units.read(Unit("untrained", BASE))["users"]
    histories = Histories.open(arena.folder.data)
    for user in arena.users:
        items = split(histories.load(user.user_id)).test
        (picked,) = picks(arena.base, arena.attach, [None], [items], False)
        hits = [pick == item.response for pick, item in zip(picked, items, strict=True)]
        assert base[user.digest]["measured"]["chosen"]["accuracy"] == sum(hits) / 2


def test_items_without_options_are_answered_beside(tmp_path: Path) -> None:
    draw, lines = random.Random(0), []
    for user in "abc":
        for i in range(40):
            line = {"user_id": user, "time": i, "session": f"{user}{i}", "query": f"what {i}?"}
            if i % 2:
                line |= {"response": draw.choice(["yes", "no"]), "choices": ["yes", "no"]}
            else:
                line |= {"response": f"I say {user} {i}"}
            lines.append(line)
    file = tmp_path / "data.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    arena, standing = compared(tmp_path, terms(tmp_path, file, methods=("none",)))
    assert metrics(standing) >= GENERATED | {"accuracy", "F1"}
    own = next(iter(arena.units.read(Unit("untrained", BASE))["users"].values()))
    assert (own["items"], own["answered"], own["with_options"]) == (8, 2, 4)
    assert "24 test items, 12 of them with options to pick from, the others" in markdown(standing)


def test_bad_labels_and_words_of_the_model_are_refused_before_anything(tmp_path: Path) -> None:
    def begin(data: Path, **others: Any) -> None:
        of = terms(tmp_path, data, methods=("none",), **others)
        run = RunFolder(tmp_path / f"{data.name}-out")
        run.begin(resume=False)
        prepared(of, run, ())

    data = put_lamp(tmp_path / "lamp")
    outputs = json.loads((data / "dev_outputs.json").read_text())
    outputs["golds"][1]["output"] = "6"
    (data / "dev_outputs.json").write_text(json.dumps(outputs))
    with pytest.raises(DataError, match="expected an output among 1, 2, 3, 4, 5, got '6'"):
        begin(data)
    with pytest.raises(DataError, match="--user-said query"):
        begin(put_persona_mem(tmp_path / "mem"))
    line = {"user_id": "a", "time": 1, "query": "q", "response": "x", "choices": ["yes", "no"]}
    (tmp_path / "own.jsonl").write_text(json.dumps(line))
    with pytest.raises(DataError, match=r"own\.jsonl:1: expected 'response' to be one of"):
        begin(tmp_path / "own.jsonl")
    assert not list(tmp_path.glob("*-out/units"))


def test_there_is_nothing_to_judge_where_all_is_picked(tmp_path: Path) -> None:
    of = terms(tmp_path, put_lamp(tmp_path / "lamp"), methods=("none",))
    run = RunFolder(tmp_path / "out")
    run.begin(resume=False)
    begun = prepared(of, run, ())
    with pytest.raises(ValueError, match="--judge: expected test items that are answered in words"):
        begun.check_judged()
    words = tiny_contest.write_data(tmp_path)
    other = replace(begun, histories=Histories.read(words, tmp_path / "words"))
    users = tuple(
        replace(user, user_id=user_id)
        for user, user_id in zip(other.choice.searched, tiny_contest.USERS, strict=True)
    )
    replace(other, choice=replace(other.choice, searched=users)).check_judged()


@pytest.mark.long
@pytest.mark.parametrize("method", sorted(set(PERSONALIZERS) - {"none", "milp", "rag"}))
def test_every_method_picks(tmp_path: Path, method: str) -> None:
    data = put_lamp(tmp_path / "lamp", items=12)
    arena, standing = compared(tmp_path, terms(tmp_path, data, methods=("none", method)))
    assert [row.label for row in standing.rows] == ["none", method]
    row = standing.rows[1]
    assert not row.failed_trials
    assert 0 <= mean(standing, method, "accuracy") <= 1
    registry = Registry(arena.folder.path / "registries" / method)
    if row.on_base < len(arena.users):
        assert any(registry.current(user.user_id).kind == method for user in arena.users)
