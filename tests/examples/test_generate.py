"""The invented users: the same for the same seed, and fair to whoever has to remember them."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from examples.generate import write
from examples.people import draw_facts, draw_user
from examples.questions import QUESTIONS
from examples.tellings import TELLINGS
from examples.world import ATTRIBUTES, CONSEQUENCES
from models.history import Histories, History, Split, split

USERS = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("examples")
    write(path, USERS, 3, 12)
    return path


@pytest.fixture(scope="module")
def users(folder: Path) -> list[tuple[History, Split]]:
    histories = Histories.read(folder / "users", folder / "data")
    loaded = [histories.load(user) for user in histories.user_ids]
    return [(history, split(history)) for history in loaded]


def test_same_seed_same_bytes(folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "again", USERS, 3, 12)
    write(tmp_path / "other", USERS, 4, 12)
    for part in ("users", "population"):
        file = f"{part}/interactions.jsonl"
        assert (tmp_path / "again" / file).read_bytes() == (folder / file).read_bytes()
        assert (tmp_path / "other" / file).read_bytes() != (folder / file).read_bytes()


def test_the_world_is_wide_enough() -> None:
    assert len(ATTRIBUTES) >= 8
    assert all(len(set(values)) >= 12 for values in ATTRIBUTES.values())
    words = Counter(word for values in ATTRIBUTES.values() for word in values)
    words += Counter(word for values in CONSEQUENCES.values() for word in values.values())
    assert set(words.values()) == {1}


def test_histories_vary_in_size_by_ten_times(users: list[tuple[History, Split]]) -> None:
    sizes = sorted(len(history.interactions) for history, _ in users)
    assert sizes[-1] >= 10 * sizes[0]


def test_parts_lie_between_sessions(users: list[tuple[History, Split]]) -> None:
    for _, parts in users:
        assert parts.by_session
        sessions = [{i.session for i in p} for p in (parts.train, parts.validation, parts.test)]
        assert sum(map(len, sessions)) == len(set().union(*sessions))


def test_every_tested_fact_is_told_before_the_cut(users: list[tuple[History, Split]]) -> None:
    for _, parts in users:
        told = " ".join(f"{i.query or i.response}" for i in parts.train)
        told_by_query = {value for value in sum(ATTRIBUTES.values(), ()) if value in told}
        for item in (*parts.validation, *parts.test):
            if item.fact is None:
                continue
            if item.fact.kind == "inferred":
                source = next(
                    attribute_value
                    for consequence in CONSEQUENCES.values()
                    for attribute_value, value in consequence.items()
                    if value == item.fact.value
                )
                assert source in told_by_query
            else:
                assert item.fact.value in told_by_query
            assert item.fact.value in item.response


def test_what_is_unasked_is_never_asked_about_in_training(
    users: list[tuple[History, Split]],
) -> None:
    kinds: Counter[str] = Counter()
    for _, parts in users:
        asked = {i.fact.value for i in parts.train if i.fact is not None}
        answered = " ".join(i.response for i in parts.train if i.query is not None)
        for item in (*parts.validation, *parts.test):
            if item.fact is None:
                continue
            kinds[item.fact.kind] += 1
            assert (item.fact.value in asked) == (item.fact.kind == "asked")
            if item.fact.kind != "asked":
                assert item.fact.value not in answered
    assert set(kinds) == {"asked", "unasked", "inferred"}
    assert len(ATTRIBUTES) // 3 == 3


def test_phrasings_of_the_parts_are_disjoint() -> None:
    for seed in range(20):
        rng = random.Random(seed)
        person = draw_user(rng, "someone", draw_facts(rng), 0.5)
        for topic, words in person.questions.items():
            sets = [set(words.training), set(words.validation), set(words.test)]
            sets.append(set(TELLINGS.get(topic, ())))
            assert sum(map(len, sets)) == len(set().union(*sets))
            assert words.test
            assert bool(words.training) == (topic in ATTRIBUTES)


def test_test_questions_never_stood_in_training(users: list[tuple[History, Split]]) -> None:
    for _, parts in users:
        trained = {i.query for i in parts.train if i.fact is not None}
        assert trained
        assert not trained & {i.query for i in parts.test if i.fact is not None}


def test_chance_is_one_of_the_values(users: list[tuple[History, Split]]) -> None:
    facts = [i.fact for _, parts in users for i in parts.test if i.fact is not None]
    assert facts
    assert {fact.choices for fact in facts} == {16}


def test_other_people_are_others_with_facts_of_their_own(folder: Path) -> None:
    lines = (folder / "population" / "interactions.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert len({record["user_id"] for record in records}) == 12
    assert all(record["user_id"].startswith("other-") for record in records)


def test_every_attribute_is_told_and_asked_in_many_phrasings() -> None:
    assert min(len(TELLINGS[name]) for name in ATTRIBUTES) >= 6
    assert min(len(QUESTIONS[name]) for name in ATTRIBUTES) >= 8
