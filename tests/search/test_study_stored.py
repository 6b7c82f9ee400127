"""A study in its storage: what is refused at opening, and what other programs read there."""

import json
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna
import optuna_dashboard
import pytest
import sqlalchemy
from optuna.storages import RDBStorage

from search.census import study_names
from search.header import VERSION
from search.pareto import LOSS, PARAMETERS, ROUGE_L
from search.space import SearchSpace
from search.storage import open_storage, sqlite_url
from search.study import Study
from tests.search.begun import CONFIGS, NAME, ask, begun, opened, told
from tests.search.planted import OBJECTIVES, SPACE


@pytest.mark.parametrize(
    ("space", "objectives", "difference"),
    [
        (
            SearchSpace(12, SPACE.ranks, SPACE.learning_rates),
            OBJECTIVES,
            "layer_count was 8, now 12",
        ),
        (
            SearchSpace(8, (8, 16), SPACE.learning_rates),
            OBJECTIVES,
            r"ranks was \[8, 16, 64\], now",
        ),
        (SPACE, (LOSS, ROUGE_L, PARAMETERS), "objectives was .*, now .*parameters"),
    ],
)
def test_another_space_or_other_objectives_are_refused_by_name(
    storage: RDBStorage, space: SearchSpace, objectives: tuple[object, ...], difference: str
) -> None:
    begun(storage)
    before = rows(storage)
    with pytest.raises(ValueError, match=f"the study {NAME} was made otherwise: {difference}"):
        Study.open(storage, NAME, space, objectives)  # type: ignore[arg-type]
    assert rows(storage) == before


def test_another_version_is_refused(storage: RDBStorage) -> None:
    study_id = storage.get_study_id_from_name(begun(storage).name)
    header = storage.get_study_user_attrs(study_id)["milpa"]
    storage.set_study_user_attr(study_id, "milpa", {**header, "version": 99})
    before = rows(storage)
    with pytest.raises(ValueError, match=f"version was 99, now {VERSION}"):
        opened(storage)
    with pytest.raises(ValueError, match=f"expected version {VERSION}, got 99"):
        Study(storage, NAME)
    assert rows(storage) == before


def rows(storage: RDBStorage) -> dict[str, list[str]]:
    """All that there is in the database."""
    tables = sqlalchemy.MetaData()
    tables.reflect(storage.engine)
    with storage.engine.connect() as connection:
        return {
            name: sorted(map(str, connection.execute(table.select())))
            for name, table in tables.tables.items()
        }


def test_damaged_rows_are_refused_by_name(tmp_path: Path) -> None:
    storage = open_storage(sqlite_url(tmp_path / "studies.db"))
    ask(begun(storage), CONFIGS[0])
    with storage.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE trial_user_attributes SET value_json = '{' ")
    with pytest.raises(ValueError, match=f"can't read the study {NAME}: JSONDecodeError"):
        opened(open_storage(sqlite_url(tmp_path / "studies.db")))


def test_a_maker_killed_before_the_header_is_finished(storage: RDBStorage) -> None:
    study_id = storage.get_study_id_from_name(opened(storage).name)
    with storage.engine.begin() as connection:
        connection.exec_driver_sql(f"DELETE FROM study_user_attributes WHERE study_id = {study_id}")
    assert begun(storage).anchor is not None


def test_a_study_is_read_without_knowing_its_space(storage: RDBStorage) -> None:
    begun(storage)
    found = Study(storage, NAME)
    assert (found.space, found.objectives) == (SPACE, OBJECTIVES)
    with pytest.raises(KeyError):
        Study(storage, "nobody")


def test_delete_takes_one_study_and_all_its_rows(storage: RDBStorage) -> None:
    kept, gone = Study.open(storage, "kept", SPACE, OBJECTIVES), begun(storage)
    kept.ask_anchor(seed=1)
    told(gone, CONFIGS[0], (3.0, 0.2))
    gone.delete()
    assert study_names(storage) == ["kept"]
    assert gone.trials == []
    tables = ("trials", "trial_params", "trial_values", "trial_user_attributes")
    with storage.engine.connect() as connection:
        counts = [
            connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar() for table in tables
        ]
    assert counts == [1, 1, 0, 2]  # the kept anchor's


def test_optuna_reads_objectives_front_and_times(storage: RDBStorage, storage_url: str) -> None:
    study = begun(storage)
    best = told(study, CONFIGS[0], (3.0, 0.2))
    told(study, CONFIGS[1], (3.5, 0.1))
    seen = optuna.load_study(study_name=NAME, storage=storage_url)
    assert seen.metric_names == ["loss", "rouge_l"]
    assert [direction.name for direction in seen.directions] == ["MINIMIZE", "MAXIMIZE"]
    assert [trial.number for trial in seen.best_trials] == [best]
    assert seen.trials[best].duration is not None
    frame = seen.trials_dataframe(multi_index=True)
    assert frame["values"]["rouge_l"].tolist() == [0.10, 0.2, 0.1]
    figure = optuna.visualization.plot_pareto_front(seen)
    assert figure.layout.xaxis.title.text == "loss"


def test_the_dashboard_shows_objectives_trials_and_front(storage: RDBStorage) -> None:
    study = begun(storage)
    best = told(study, CONFIGS[0], (3.0, 0.2))
    ask(study, CONFIGS[1])
    shown = asked_of_dashboard(storage, f"/api/studies/{study._id}")
    assert (shown["name"], shown["objective_names"]) == (NAME, ["loss", "rouge_l"])
    assert [t["state"] for t in shown["trials"]] == ["Complete", "Complete", "Waiting"]
    assert [t["number"] for t in shown["best_trials"]] == [best]
    parameters = {p["name"]: p["param_external_value"] for p in shown["trials"][best]["params"]}
    assert parameters == {"layers": "1", "rank": "16", "learning_rate": "0.001"}


def asked_of_dashboard(storage: RDBStorage, path: str) -> Any:
    """What optuna-dashboard's own page would fetch."""
    environment: dict[str, Any] = {"PATH_INFO": path}
    setup_testing_defaults(environment)
    body = optuna_dashboard.wsgi(storage)(environment, lambda *_: None)
    return json.loads(b"".join(body))


def test_names_say_nothing_of_the_user(
    storage: RDBStorage, caplog: pytest.LogCaptureFixture
) -> None:
    """All that is stored: the header, and for each trial what this file checks."""
    study = begun(storage)
    told(study, CONFIGS[0], (3.0, 0.2))
    (stored,) = storage.get_all_studies()
    assert stored.study_name == NAME
    assert {*stored.user_attrs} == {"milpa"}
    Study.open(storage, "other", SPACE, OBJECTIVES, base="fingerprint").settle_portfolio(CONFIGS)
    other = storage.get_all_studies()[1].user_attrs
    assert {*other} == {"milpa", "base", "portfolio"}
    assert (other["base"], other["portfolio"][0]) == ("fingerprint", CONFIGS[0].to_json())
    assert json.dumps(stored.user_attrs["milpa"]["space"]) == json.dumps(SPACE.to_json())
    keys = [{*trial.user_attrs} for trial in storage.get_all_trials(stored._study_id)]
    assert keys == [{"active_layers", "asked", "measured"}] * 2
