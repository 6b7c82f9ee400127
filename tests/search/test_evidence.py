"""Which studies of a storage a new user may learn from."""

from dataclasses import replace
from pathlib import Path

import pytest
from optuna.storages import RDBStorage

from search import evidence
from search.evidence import earlier
from search.pareto import LOSS, PARAMETERS
from search.samplers import FEWEST_TOLD, Proposal
from search.space import SearchSpace
from search.storage import open_storage, sqlite_url
from search.study import Study
from tests.search.planted import BASE, OBJECTIVES, SPACE, planted

HERE = "fingerprint"


@pytest.fixture
def storage(tmp_path: Path) -> RDBStorage:
    return open_storage(sqlite_url(tmp_path / "studies.db"))


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
        number = study.ask(Proposal(config, "sobol"), seed=0).number
        if number <= trials:
            study.tell(number, planted(config))
    return study


def test_only_studies_of_the_same_question_with_enough_told_are_read(storage: RDBStorage) -> None:
    kept = search(storage, "kept")
    search(storage, "too short", trials=FEWEST_TOLD - 1)
    search(storage, "another space", space=replace(SPACE, ranks=(8, 16)))
    search(storage, "another base", base="another")
    search(storage, "the new user's own")
    Study.open(storage, "other objectives", SPACE, (LOSS, PARAMETERS), HERE)
    storage.create_new_study([], "not ours")
    found = earlier(storage, SPACE, OBJECTIVES, HERE, besides=["the new user's own"])
    assert found == [kept.evidence()]
    assert len(found[0].usable) == FEWEST_TOLD
    assert earlier(storage, SPACE, OBJECTIVES, "none") == []


def test_the_last_ones_are_read_and_no_more_than_are_needed(
    storage: RDBStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "MOST", 2)
    studies = [search(storage, name) for name in ("first", "second", "third")]
    studies[2].settle_reference(2)
    found = earlier(storage, SPACE, OBJECTIVES, HERE)
    assert found == [studies[2].evidence(), studies[1].evidence()]
    assert found[0].reference == studies[2].reference != found[1].reference
