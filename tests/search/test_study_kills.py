"""A search of one study, killed and begun again, and several at once in one database."""

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from optuna.storages import RDBStorage

from search.census import study_names
from search.design import DEFAULT
from search.samplers import Observation
from search.storage import open_storage, sqlite_url
from search.study import Study
from tests.search.planted import BASE, OBJECTIVES, SPACE, planted


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
    assert {trial.source for trial in killed.trials} == {"anchor", DEFAULT, "sobol", sampler}
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
    (trial,) = study.ask_all([(Proposal(config, "sobol"), 1, 0)])
    study.tell(trial.number, (3.0, 0.2), {"seconds": 1})
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
