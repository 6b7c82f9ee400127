"""Which studies of a storage a new user may learn from."""

from dataclasses import replace
from typing import Any

import pytest
from optuna.storages import RDBStorage

from search import evidence
from search.evidence import earlier
from search.pareto import LOSS, PARAMETERS
from search.patience import PatientStorage
from search.samplers import FEWEST_TOLD, Evidence, Proposal
from search.space import MemoryConfig, SearchSpace
from search.study import Study
from tests.search.begun import ask_one, statements
from tests.search.planted import BASE, OBJECTIVES, SPACE, planted

HERE = "fingerprint"


def search(
    storage: RDBStorage,
    name: str,
    trials: int = FEWEST_TOLD,
    space: SearchSpace = SPACE,
    base: str = HERE,
) -> Study:
    """A study with so many trials told, and one pending."""
    study = Study.open(storage, name, space, OBJECTIVES, base)
    study.tell(study.ask_anchor(0).number, BASE)
    for config, _ in zip(space.enumerate(), range(trials + 1), strict=False):
        number = ask_one(study, Proposal(config, "sobol"), seed=0).number
        if number <= trials:
            study.tell(number, planted(config))
    return study


def shown_by(study: Study) -> Evidence:
    return Evidence(tuple(study.completed()), study.reference)


def found(storage: PatientStorage, base: str = HERE, seed: int = 0, **named: Any) -> list[Evidence]:
    return list(earlier(storage, SPACE, OBJECTIVES, base, seed=seed, **named).values())


def test_only_studies_of_the_same_question_with_enough_told_are_read(
    storage: PatientStorage,
) -> None:
    kept = search(storage, "kept")
    search(storage, "too short", trials=FEWEST_TOLD - 1)
    search(storage, "another space", space=replace(SPACE, ranks=(8, 16)))
    search(storage, "another base", base="another")
    search(storage, "the new user's own")
    Study.open(storage, "other objectives", SPACE, (LOSS, PARAMETERS), HERE)
    storage.create_new_study([], "not ours")
    (one,) = found(storage, besides=["the new user's own"])
    assert one == shown_by(kept)
    assert len(one.usable) == FEWEST_TOLD
    assert found(storage, "none") == []
    assert found(storage, "") == []
    unnamed = search(storage, "of no base", base="")
    assert found(storage, "") == [shown_by(unnamed)]


def test_they_show_what_their_studies_show(storage: PatientStorage) -> None:
    """Failures, stopped trials, pending ones, an odd order of coming back, a reference point."""
    study = search(storage, "one")
    for config, _ in zip(reversed(list(SPACE.enumerate())), range(3), strict=False):
        ask_one(study, Proposal(config, "sobol"), seed=0)
    *_, late, failed, stopped = study.pending()
    study.stop(stopped.number, "dominated", {"steps": 8})
    study.fail(failed.number, "not a number")
    study.tell(late.number, planted(late.config))
    study.settle_reference(2)
    assert study.reference is not None
    assert len(study.pending()) == 1
    assert found(storage) == [shown_by(study)] == [shown_by(Study(storage, "one"))]


def test_layers_beyond_an_integer_come_back(storage: PatientStorage) -> None:
    space = SearchSpace(60, SPACE.ranks, SPACE.learning_rates, 60)
    study = Study.open(storage, "wide", space, OBJECTIVES)
    study.tell(study.ask_anchor(0).number, BASE)
    for layer in range(60 - FEWEST_TOLD, 60):
        config = MemoryConfig((0, layer), 8, 1e-3)
        study.tell(ask_one(study, Proposal(config, "sobol"), seed=0).number, (3.0, 0.2))
    (one,) = earlier(storage, space, OBJECTIVES, "").values()
    assert one == shown_by(study)


def test_the_seed_draws_them_and_no_more_than_are_needed_are_used(
    storage: PatientStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    studies = [search(storage, f"user{i}") for i in range(6)]
    shown = {study._id: shown_by(study) for study in studies}
    whole = [earlier(storage, SPACE, OBJECTIVES, HERE, seed=seed) for seed in range(8)]
    assert {*whole[0]} == {*shown}
    assert len({tuple(one) for one in whole}) > 4
    for one in whole:
        assert [*one.values()] == [shown[study] for study in one]
    monkeypatch.setattr(evidence, "MOST", 2)
    assert [found(storage, seed=seed) for seed in range(8)] == [
        [*one.values()][:2] for one in whole
    ]
    monkeypatch.setattr(evidence, "DRAWN", 1)
    assert [found(storage, seed=seed) for seed in range(8)] == [
        [*one.values()][:1] for one in whole
    ]


@pytest.mark.parametrize("count", [1, 9])
def test_however_many_there_are_the_database_is_asked_four_times_and_answers_as_much(
    storage: PatientStorage, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(evidence, "DRAWN", 3)
    for i in range(count):
        search(storage, f"user{i}")
    with statements(storage) as asked:
        assert len(found(storage)) == min(count, 3)
    assert len(asked) == 4
    assert "LIMIT" in asked[0]
    assert all("study_id IN" in one for one in asked[1:])
