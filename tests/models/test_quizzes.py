"""Benchmarks' published folders as users' data: known by their names, tested on questions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from models.history import Histories, History, Interaction, TooShort, split
from models.lines import DataError
from models.quizzes import find, histories
from models.splitting import cuts
from tests.models.published_files import PERSONAS, put_lamp, put_persona_mem


def test_a_folder_is_known_by_its_files_names(tmp_path: Path) -> None:
    lamp, persona_mem, other = tmp_path / "lamp", tmp_path / "mem", tmp_path / "other"
    put_lamp(lamp)
    put_persona_mem(persona_mem)
    other.mkdir()
    (other / "dev_questions.json").write_text("[]")
    found = [find(folder) for folder in (lamp, persona_mem, other, tmp_path / "none", "a/name")]
    assert [each and each.name for each in found] == ["LaMP", "PersonaMem", None, None, None]
    assert found[1] is not None
    assert found[1].others.name == "shared_contexts_32k.jsonl"
    put_persona_mem(lamp)
    with pytest.raises(DataError, match=r"expected one file of questions, got dev_questions\.json"):
        find(lamp)


def test_the_questions_alone_are_the_test_part(tmp_path: Path) -> None:
    put_lamp(tmp_path / "lamp", questions=2)
    read = histories(tmp_path / "lamp", tmp_path / "run" / "data", "response")
    for user in read.user_ids:
        history = read.load(user)
        parts = split(history)
        assert parts.by_session
        assert [item.held_out for item in parts.test] == [True, True]
        assert len(parts.train) + len(parts.validation) == len(history.interactions) - 2
        assert not any(item.held_out for item in (*parts.train, *parts.validation))
        assert abs(len(parts.validation) - len(parts.train) / 7) < 1
    left = [entry.name for entry in (tmp_path / "run").iterdir()]
    assert left == ["data"]  # nothing lies beside it


def test_persona_mems_users_ask(tmp_path: Path) -> None:
    put_persona_mem(tmp_path / "mem")
    with pytest.raises(DataError, match="give --user-said query"):
        histories(tmp_path / "mem", tmp_path / "data", "response")
    read = histories(tmp_path / "mem", tmp_path / "data", "query")
    assert read.counts["unasked_answers"] == len(PERSONAS)  # each conversation begins with one
    parts = split(read.load(read.user_ids[0]))
    assert all(item.choices for item in parts.test)
    assert not any(item.choices for item in parts.train)


def test_any_other_source_is_read_as_ever(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    lines = [{"user_id": "ann", "time": i, "query": "q", "response": f"r {i}"} for i in range(20)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = histories(file, tmp_path / "a", "response")
    assert found.digest == Histories.read(file, tmp_path / "b").digest
    lines[-1]["held_out"] = True
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    other = histories(file, tmp_path / "c", "response")
    assert other.digest != found.digest
    assert split(other.load("ann")).test == other.load("ann").interactions[-1:]
    lines[3]["held_out"] = "yes"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(
        DataError, match=r"jsonl:4: expected 'held_out' as true or false, got 'yes'"
    ):
        histories(file, tmp_path / "d", "response")


def test_cuts_before_a_given_test_part_by_hand() -> None:
    sessions = [*"A" * 10, *"B" * 4, *"C" * 3, *"D" * 2]
    assert cuts(sessions, [True] * 19, 17) == (14, 17, True)
    assert cuts([None] * 41, [True] * 41, 40) == (35, 40, False)
    assert cuts([None] * 7, [True] * 7, 6) == (3, 6, False)
    assert cuts([None] * 6, [True] * 6, 5) is None  # 3 to learn from, 2 to validate on
    assert cuts([None] * 30, [*[True] * 29, False], 29) is None  # nothing to test on
    assert cuts([*"A" * 20, *"B" * 3], [True] * 23, 20) == (17, 20, False)
    assert cuts([*"A" * 14, *"B" * 3, "A"], [True] * 18, 17) == (14, 17, False)
    has_query = [*[True] * 8, False, *[True] * 3, False, True]
    assert cuts([None] * 14, has_query, 13) == (9, 13, False)


def test_what_is_held_out_is_the_end(tmp_path: Path) -> None:
    items = tuple(Interaction("ann", float(i), "q", "r") for i in range(12))
    late = (*items[:-1], replace(items[-1], held_out=True))
    assert len(split(History("ann", late)).test) == 1
    early = (replace(items[0], held_out=True), *items[1:])
    with pytest.raises(DataError, match="'held_out' on the last interactions"):
        split(History("ann", early))
    with pytest.raises(TooShort, match=r"6 or more interactions .* got 5 and 1"):
        split(History("ann", late[6:]))
