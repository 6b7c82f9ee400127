"""Studies: what is asked and told is there after any kill, once."""

import json
import logging
import math
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna
import optuna_dashboard
import pytest
from optuna.storages import RDBStorage

from search.pareto import LOSS, PARAMETERS, ROUGE_L, reference_point
from search.samplers import Observation, Proposal
from search.space import BASE_CONFIG, MemoryConfig, SearchSpace
from search.storage import open_storage, sqlite_url
from search.study import Study, study_names
from tests.search.planted import BASE, OBJECTIVES, SPACE, planted

NAME = "0123456789abcdef"
CONFIGS = [MemoryConfig((layer,), 16, 1e-3) for layer in range(8)]


def opened(storage: RDBStorage) -> Study:
    return Study.open(storage, NAME, SPACE, OBJECTIVES)


def begun(storage: RDBStorage, items: int = 20) -> Study:
    """A study whose anchor has come back."""
    study = opened(storage)
    study.tell(study.ask_anchor(seed=1).number, BASE, {"item_count": items})
    return study


def ask(study: Study, config: MemoryConfig, parameters: int = 100) -> int:
    return study.ask(Proposal(config, "sobol"), seed=11, parameters=parameters).number


def told(
    study: Study, config: MemoryConfig, values: tuple[float, float], parameters: int = 100
) -> int:
    number = ask(study, config, parameters)
    study.tell(number, values, {"rouge_l_error": 0.01})
    return number


def test_what_is_asked_and_told_is_there_when_opened_again(storage: RDBStorage) -> None:
    study = begun(storage)
    numbers = [ask(study, config) for config in CONFIGS[:4]]
    study.tell(numbers[2], (3.0, 0.2), {"losses": [3.5, 3.0], "seconds": 2.5})
    study.fail(numbers[0], "loss is nan")
    again = opened(storage)
    assert again.trials == study.trials
    assert [trial.number for trial in again.pending()] == [numbers[1], numbers[3]]
    assert again.completed() == [
        Observation(BASE_CONFIG, BASE),
        Observation(CONFIGS[0], None),
        Observation(CONFIGS[2], (3.0, 0.2)),
    ]
    trial = again.trials[numbers[2]]
    assert trial.measured == {"losses": [3.5, 3.0], "seconds": 2.5}
    assert (trial.seed, trial.source, trial.parameters) == (11, "sobol", 100)
    assert again.trials[numbers[0]].reason == "loss is nan"


def test_an_ask_is_stored_before_it_is_returned(storage: RDBStorage, storage_url: str) -> None:
    study = begun(storage)
    number = ask(study, CONFIGS[0])
    seen = optuna.load_study(study_name=NAME, storage=storage_url).trials[number]
    assert seen.state == optuna.trial.TrialState.WAITING
    assert seen.user_attrs["active_layers"] == "0"


def test_the_anchor_comes_first_and_once(storage: RDBStorage) -> None:
    study = opened(storage)
    with pytest.raises(ValueError, match="the anchor of study 0123456789abcdef to be asked first"):
        ask(study, CONFIGS[0])
    anchor = study.ask_anchor(seed=1)
    assert (anchor.number, anchor.config, anchor.source) == (0, BASE_CONFIG, "anchor")
    assert study.ask_anchor(seed=2) == anchor == opened(storage).anchor
    assert len(study.trials) == 1


def test_a_configuration_is_asked_once_and_only_from_the_space(storage: RDBStorage) -> None:
    study = begun(storage)
    study.fail(ask(study, CONFIGS[0]), "out of luck")
    ask(study, CONFIGS[1])
    for config in CONFIGS[:2]:
        with pytest.raises(ValueError, match="was asked before"):
            ask(study, config)
    for config in (BASE_CONFIG, MemoryConfig((9,), 8, 1e-3)):
        with pytest.raises(ValueError, match="expected a member of the space"):
            ask(study, config)
    assert len(opened(storage).trials) == 3


def test_telling_twice_changes_nothing(
    storage: RDBStorage, caplog: pytest.LogCaptureFixture
) -> None:
    study = begun(storage)
    first, second = ask(study, CONFIGS[0]), ask(study, CONFIGS[1])
    study.tell(first, (3.0, 0.2), {"seconds": 1.0})
    study.fail(second, "not a number")
    before = study.trials
    with caplog.at_level(logging.WARNING):
        study.tell(first, (3.0, 0.2), {"seconds": 1.0})
        study.fail(second, "not a number")
    assert caplog.text == ""
    with caplog.at_level(logging.WARNING):
        study.tell(first, (2.0, 0.9))
        study.fail(first, "too late")
        study.tell(second, (2.0, 0.9))
    assert caplog.text.count("the first stands") == 3
    assert study.trials == before == opened(storage).trials


def test_what_another_process_told_meanwhile_stands(storage: RDBStorage) -> None:
    study = begun(storage)
    number = ask(study, CONFIGS[0])
    opened(storage).tell(number, (3.0, 0.2))
    assert study.tell(number, (9.0, 0.0)).values == (3.0, 0.2)
    assert study.pending() == []


@pytest.mark.parametrize("values", [(math.nan, 0.2), (3.0, math.inf)])
def test_values_that_are_no_numbers_make_a_failure(
    storage: RDBStorage, values: tuple[float, float]
) -> None:
    study = begun(storage)
    trial = study.tell(ask(study, CONFIGS[0]), values)
    assert (trial.state, trial.values) == ("failed", None)
    assert trial.reason in ("loss is nan, rouge_l is 0.2", "loss is 3.0, rouge_l is inf")
    with pytest.raises(ValueError, match="a value for each of loss, rouge_l"):
        study.tell(ask(study, CONFIGS[1]), (1.0,))


def test_the_reference_point_is_set_once_and_never_moves(storage: RDBStorage) -> None:
    study = begun(storage)
    rows = [(3.0, 0.2), (3.5, 0.3)]
    for config, values in zip(CONFIGS, rows, strict=False):
        assert study.settle_reference(initial=2) is None
        told(study, config, values)
    found = study.settle_reference(initial=2)
    assert found == reference_point(OBJECTIVES, rows, BASE)
    told(study, CONFIGS[2], (9.0, 0.0))
    assert study.settle_reference(initial=2) == found == opened(storage).reference


def test_the_reference_point_waits_for_the_anchor_and_two_memories(storage: RDBStorage) -> None:
    study = opened(storage)
    study.ask_anchor(seed=1)
    numbers = [ask(study, config) for config in CONFIGS[:2]]
    study.tell(numbers[0], (3.0, 0.2))
    assert study.settle_reference(initial=2) is None
    study.tell(numbers[1], (3.1, 0.2))
    assert study.settle_reference(initial=2) is None
    study.tell(0, BASE)
    assert study.settle_reference(initial=3) is None
    assert study.settle_reference(initial=2) is not None


def test_front_and_winner(storage: RDBStorage) -> None:
    study = begun(storage)
    assert study.winner() == study.anchor  # nothing else has come back
    told(study, CONFIGS[0], (5.0, 0.05))  # worse than the base
    assert study.winner() == study.anchor
    big = told(study, CONFIGS[1], (3.0, 0.20), parameters=400)
    small = told(study, CONFIGS[2], (3.05, 0.205), parameters=100)
    assert [trial.number for trial in study.front()] == [big, small]
    assert study.winner().number == small
    sharp = told(study, CONFIGS[3], (3.09, 0.30), parameters=900)
    assert study.winner().number == sharp == opened(storage).winner().number


def test_with_few_items_the_lowest_loss_wins(storage: RDBStorage) -> None:
    study = begun(storage, items=7)
    low = told(study, CONFIGS[0], (3.0, 0.1))
    told(study, CONFIGS[1], (3.01, 0.9))
    assert study.winner().number == low


def test_no_winner_before_the_anchor_is_back(storage: RDBStorage) -> None:
    study = opened(storage)
    study.ask_anchor(seed=1)
    with pytest.raises(ValueError, match="expected the anchor"):
        study.winner()


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
    with pytest.raises(ValueError, match=f"the study {NAME} was made otherwise: {difference}"):
        Study.open(storage, NAME, space, objectives)  # type: ignore[arg-type]


def test_another_version_is_refused(storage: RDBStorage) -> None:
    study_id = storage.get_study_id_from_name(begun(storage).name)
    header = storage.get_study_user_attrs(study_id)["milpa"]
    storage.set_study_user_attr(study_id, "milpa", {**header, "version": 99})
    with pytest.raises(ValueError, match="version was 99, now 1"):
        opened(storage)
    with pytest.raises(ValueError, match="expected version 1, got 99"):
        Study(storage, NAME)


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
    assert counts == [1, 1, 0, 4]  # the kept anchor's


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
    assert json.dumps(stored.user_attrs["milpa"]["space"]) == json.dumps(SPACE.to_json())
    keys = [{*trial.user_attrs} for trial in storage.get_all_trials(stored._study_id)]
    assert keys == [{"active_layers", "parameters", "source", "seed", "measured"}] * 2


# Killing.


def start(url: str, trials: int, sampler: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.search.worker", url, str(trials), sampler]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def run_and_kill_after(url: str, trials: int, sampler: str, lines: int) -> list[str]:
    """What it said before it was killed, at the line of this number."""
    with start(url, trials, sampler) as worker:
        assert worker.stdout is not None
        said = [line for _, line in zip(range(lines), worker.stdout, strict=False)]
        worker.send_signal(signal.SIGKILL)
        rest = worker.stdout.readlines()
    return said + rest


def proposals(study: Study) -> list[tuple[str, str]]:
    return [(trial.config.key, trial.source) for trial in study.trials]


def killed_and_resumed(url: str, trials: int, sampler: str, stops: list[int]) -> Study:
    """A study killed after so many lines each time, then run to its end."""
    for stop in stops:
        said = [line.split() for line in run_and_kill_after(url, trials, sampler, stop)]
        study = Study.open(open_storage(url), "digest", SPACE, OBJECTIVES)
        by_number = {str(trial.number): trial for trial in study.trials}
        for what, number, key in said:
            assert by_number[number].config.key == key
            assert what == "asked" or by_number[number].state == "completed"
    with start(url, trials, sampler) as worker:
        worker.communicate()
    return Study.open(open_storage(url), "digest", SPACE, OBJECTIVES)


def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    """Nothing is lost, nothing repeated, and later proposals are the same."""
    urls = [sqlite_url(tmp_path / name) for name in ("whole.db", "killed.db")]
    with start(urls[0], 12, "random") as worker:
        worker.communicate()
    whole = Study.open(open_storage(urls[0]), "digest", SPACE, OBJECTIVES)
    killed = killed_and_resumed(urls[1], 12, "random", stops=[1, 2, 4])
    assert len(whole.trials) == 13
    assert proposals(killed) == proposals(whole)
    assert killed.completed() == whole.completed()
    assert killed.reference == whole.reference is not None
    assert killed.pending() == []


@pytest.mark.long
@pytest.mark.parametrize("sampler", ["gp", "map-saas"])
def test_killed_at_random_moments_a_search_is_the_same(
    storage: RDBStorage, storage_url: str, tmp_path: Path, sampler: str
) -> None:
    generator = random.Random(sampler)
    stops = [generator.randrange(1, 5) for _ in range(10)]
    killed = killed_and_resumed(storage_url, 16, sampler, stops)
    url = sqlite_url(tmp_path / "whole.db")
    with start(url, 16, sampler) as worker:
        worker.communicate()
    whole = Study.open(open_storage(url), "digest", SPACE, OBJECTIVES)
    assert proposals(killed) == proposals(whole)
    assert {trial.source for trial in killed.trials} == {"anchor", "sobol", sampler}
    assert killed.completed() == [
        Observation(t.config, planted(t.config) if t.number else BASE) for t in whole.trials
    ]


def test_processes_make_and_write_one_database_at_once(storage_url: str) -> None:
    """Each its own study, as several controllers do."""
    code = """
import sys
from search.storage import open_storage
from search.study import Study
from search.samplers import Proposal
from tests.search.planted import OBJECTIVES, SPACE
study = Study.open(open_storage(sys.argv[1]), sys.argv[2], SPACE, OBJECTIVES)
study.tell(study.ask_anchor(1).number, (4.0, 0.1))
for config in list(SPACE.enumerate())[:20]:
    study.tell(study.ask(Proposal(config, "sobol"), 1).number, (3.0, 0.2), {"seconds": 1})
"""
    command = [sys.executable, "-c", code, storage_url]
    workers = [subprocess.Popen([*command, f"user{i}"]) for i in range(2)]
    assert [worker.wait(120) for worker in workers] == [0, 0]
    storage = open_storage(storage_url)
    assert len(study_names(storage)) == 2
    for name in study_names(storage):
        study = Study(storage, name)
        trials = study.trials
        study.delete()
        assert [trial.number for trial in trials] == list(range(21))
        assert all(trial.state == "completed" for trial in trials)
