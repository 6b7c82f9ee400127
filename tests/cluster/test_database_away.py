"""A search on PostgreSQL whose server is stopped and started again: it waits, and loses nothing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from search.census import study_names
from search.storage import Trial, open_storage
from search.study import Study
from tests.cluster import tiny_run
from tests.cluster.tiny_run import TRIALS, USERS, Driver
from tests.search.server import running

AWAY = "the study database does not answer"
BACK = "the study database answers again"


def stored(url: str) -> dict[str, list[Trial]]:
    """Every user's trials."""
    storage = open_storage(url)
    found = {name: Study(storage, name).trials for name in study_names(storage)}
    storage.engine.dispose()
    return found


def told(url: str) -> int:
    return sum(trial.state == "completed" for trials in stored(url).values() for trial in trials)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_server_that_is_started_again_is_waited_for(tmp_path: Path) -> None:
    data, base, run = tiny_run.write_data(tmp_path), tiny_run.write_base(tmp_path), tmp_path / "run"
    with running() as server:
        driver = Driver(tiny_run.command(data, base, run, storage=server.url), tmp_path / "log")
        driver.until(lambda: told(server.url) >= 2, 300)
        server.stop()
        driver.until(lambda: AWAY in driver.log.read_text(), 100)
        server.start()
        said = driver.finish(400)
        after = stored(server.url)
    assert said.index(AWAY) < said.index(BACK)
    assert len(after) == len(USERS)
    for trials in after.values():
        assert [trial.state for trial in trials] == ["completed"] * (TRIALS + 1)
        assert len({trial.config for trial in trials}) == TRIALS + 1
    begun = Counter(tiny_run.names_in_log(run, "begins"))
    assert {*begun.values()} == {1}


@pytest.mark.long
@pytest.mark.timeout(900)
def test_killed_while_it_waits_a_search_can_be_gone_on_with(tmp_path: Path) -> None:
    data, base, run = tiny_run.write_data(tmp_path), tiny_run.write_base(tmp_path), tmp_path / "run"
    with running() as server:
        words = tiny_run.command(data, base, run, storage=server.url)
        driver = Driver(words, tmp_path / "log")
        driver.until(lambda: told(server.url) >= 2, 300)
        server.stop()
        driver.until(lambda: AWAY in driver.log.read_text(), 100)
        driver.kill()
        server.start()
        Driver([*words, "--resume"], tmp_path / "log").finish(400)
        after = stored(server.url)
    for trials in after.values():
        assert [trial.state for trial in trials] == ["completed"] * (TRIALS + 1)
