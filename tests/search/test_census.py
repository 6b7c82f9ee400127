"""Where many studies stand, read without opening one of them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search import census as reading
from search import header
from search.census import Stand, census, study_names
from search.patience import PatientStorage
from search.storage import open_storage, sqlite_url
from search.study import Study
from tests.search.begun import CONFIGS, ask, begun, statements, told
from tests.search.planted import BASE, OBJECTIVES, SPACE

ABOUT = header.of(SPACE, OBJECTIVES)


def taken(storage: PatientStorage, *names: str, about: Any = ABOUT) -> dict[str, list[Stand]]:
    return dict(census(storage, names, about))


def test_it_tells_what_an_opened_study_tells(storage: PatientStorage) -> None:
    study = begun(storage)
    told(study, CONFIGS[0], (3.0, 0.2))
    study.fail(ask(study, CONFIGS[1]), "out of memory")
    study.stop(ask(study, CONFIGS[2]), "unpromising", {"steps": 3})
    ask(study, CONFIGS[3])
    found = taken(storage, study.name, "nobody")
    assert found == {study.name: [Stand(t.number, t.state, t.values) for t in study.trials]}
    states = ["completed", "completed", "failed", "stopped", "pending"]
    assert [stand.state for stand in found[study.name]] == states
    assert found[study.name][0].values == BASE


def test_other_studies_than_the_named_are_not_read(storage: PatientStorage) -> None:
    Study.open(storage, "other", replace(SPACE, ranks=(4,)), OBJECTIVES)
    Study.open(storage, "mine", SPACE, OBJECTIVES)
    assert taken(storage, "mine") == {"mine": []}
    with pytest.raises(ValueError, match="the study other was made otherwise: ranks was"):
        taken(storage, "mine", "other")


def test_a_study_without_a_header_is_not_there_yet(storage: PatientStorage) -> None:
    study = begun(storage)
    with storage.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM study_user_attributes")
    assert taken(storage, study.name) == {}


def test_the_number_of_studies_does_not_decide_that_of_statements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(sqlite_url(tmp_path / "studies.db"))
    for number in range(12):
        Study.open(storage, f"user{number}", SPACE, OBJECTIVES).ask_anchor(number)
    names = study_names(storage)
    assert names == [f"user{number}" for number in range(12)]
    with statements(storage) as asked:
        assert list(taken(storage, *names)) == names
        study_names(storage)
    assert len(asked) == 4
    monkeypatch.setattr(reading, "STUDIES_READ", 5)
    with statements(storage) as asked:
        assert list(taken(storage, *names)) == names
    assert len(asked) == 3 * 3
