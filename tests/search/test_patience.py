"""Studies while their database goes away and comes back: they wait, and do nothing twice."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage

from search import patience, storage
from search.patience import DatabaseAway
from search.samplers import Proposal
from search.storage import open_storage, reopen_storage, sqlite_url
from search.study import Study
from tests.search.begun import CONFIGS, NAME, ask, begun, opened
from tests.search.planted import OBJECTIVES, SPACE
from tests.search.server import Server, running

AWAY = "the study database does not answer"
BACK = "the study database answers again"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long between two tries."""
    monkeypatch.setattr(patience, "PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(storage, "BUSY_SECONDS", 0.05)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running() as one:
        yield one


@pytest.fixture
def study(server: Server) -> Iterator[Study]:
    """A study on PostgreSQL whose anchor has come back."""
    found = begun(open_storage(server.url))
    yield found
    found.delete()


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [message for message in caplog.messages if "the study database" in message]


@contextmanager
def away(server: Server, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The server is stopped; another thread starts it again once somebody is said to wait."""
    caplog.clear()
    server.stop()
    thread = threading.Thread(target=lambda: (until_said(caplog), server.start()))
    thread.start()
    try:
        yield
    finally:
        thread.join()
    messages = said(caplog)
    assert [AWAY in messages[0], BACK in messages[-1], len(messages)] == [True, True, 2]


def until_said(caplog: pytest.LogCaptureFixture) -> None:
    end = time.monotonic() + 60
    while not said(caplog) and time.monotonic() < end:
        time.sleep(0.02)


def test_a_server_that_is_started_again_is_waited_for_at_every_step(
    server: Server, study: Study, caplog: pytest.LogCaptureFixture
) -> None:
    """Stopped before an ask, between asking and telling, between two tellings, before reading."""
    with away(server, caplog):
        first = ask(study, CONFIGS[0])
    second = ask(study, CONFIGS[1])
    with away(server, caplog):
        study.tell(first, (3.0, 0.2), {"seconds": 1.0})
    with away(server, caplog):
        study.fail(second, "not a number")
    with away(server, caplog):
        assert study.notes() == {}
    again = opened(open_storage(server.url))
    assert again.trials == study.trials
    assert [trial.state for trial in again.trials] == ["completed", "completed", "failed"]


def test_a_run_opens_its_database_once_that_is_back(
    server: Server, study: Study, caplog: pytest.LogCaptureFixture
) -> None:
    with away(server, caplog):
        found = Study(reopen_storage(server.url), NAME)
    assert found.trials == study.trials


def test_a_connection_that_the_server_closed_costs_no_wait(
    server: Server, study: Study, caplog: pytest.LogCaptureFixture
) -> None:
    server.stop()
    server.start()
    ask(study, CONFIGS[0])
    assert said(caplog) == []


@contextmanager
def answer_lost(at: RDBStorage, place: int) -> Iterator[None]:
    """The commit of this place, counted from 0, happens; its connection ends before it answers."""
    places = iter(range(100))

    def commit(connection: sqlalchemy.Connection) -> None:
        if next(places) == place:
            connection.connection.commit()
            connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")

    sqlalchemy.event.listen(at.engine, "commit", commit)
    try:
        yield
    finally:
        sqlalchemy.event.remove(at.engine, "commit", commit)
    assert next(places) > place + 1  # it was begun again


def test_what_was_asked_without_an_answer_is_there_once(server: Server, study: Study) -> None:
    with answer_lost(study._storage, 0):
        number = ask(study, CONFIGS[0])
    again = opened(open_storage(server.url))
    assert [trial.config for trial in again.pending()] == [CONFIGS[0]]
    assert again.trials == study.trials
    assert (number, ask(study, CONFIGS[1])) == (1, 2)


def test_of_several_that_were_asked_without_an_answer_each_is_there_once(
    server: Server, study: Study
) -> None:
    with answer_lost(study._storage, 0):
        asked = study.ask_all([(Proposal(config, "sobol"), 11, 100) for config in CONFIGS[:3]])
    assert [trial.config for trial in asked] == CONFIGS[:3]
    assert [trial.number for trial in asked] == [1, 2, 3]
    assert opened(open_storage(server.url)).pending() == asked


ENDS: dict[str, Callable[[Study, int], object]] = {
    "completed": lambda study, number: study.tell(number, (3.0, 0.2), {"seconds": 1.0}),
    "failed": lambda study, number: study.fail(number, "not a number"),
    "stopped": lambda study, number: study.stop(number, "dominated", {"steps": 8}),
}


@pytest.mark.parametrize("end", ENDS)
def test_what_was_told_without_an_answer_is_told_once(
    server: Server, study: Study, caplog: pytest.LogCaptureFixture, end: str
) -> None:
    number = ask(study, CONFIGS[0])
    with answer_lost(study._storage, 0):
        ENDS[end](study, number)
    again = opened(open_storage(server.url))
    assert again.trials == study.trials
    assert [trial.state for trial in again.trials] == ["completed", end]
    assert "the first stands" not in caplog.text


@pytest.mark.parametrize("place", range(6))
def test_a_study_made_without_an_answer_is_there_once(server: Server, place: int) -> None:
    at = open_storage(server.url)
    with answer_lost(at, place):
        made = Study.open(at, NAME, SPACE, OBJECTIVES, "base")
    made.ask_anchor(seed=1)
    assert Study(at, NAME).trials == made.trials
    (stored,) = at.get_all_studies()
    made.delete()
    assert {*stored.user_attrs} == {"milpa", "base"}


def test_after_too_long_it_ends_says_so_and_can_be_gone_on_with(
    server: Server,
    study: Study,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    number = ask(study, CONFIGS[0])
    monkeypatch.setattr(patience, "LIMIT_SECONDS", 0.2)
    server.stop()
    try:
        with pytest.raises(DatabaseAway, match=r"did not answer for .* --resume"):
            study.tell(number, (3.0, 0.2))
        with pytest.raises(DatabaseAway):  # at once, and silently
            study.tell(number, (3.0, 0.2))
        with pytest.raises(DatabaseAway):
            study._storage.patience.check()
    finally:
        server.start()
    assert len(said(caplog)) == 1
    assert [trial.number for trial in opened(open_storage(server.url)).pending()] == [number]
    study.tell(number, (3.0, 0.2))
    study._storage.patience.check()
    assert opened(open_storage(server.url)).trials == study.trials


def test_nothing_that_is_said_holds_an_address_or_a_password(
    server: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = server.url.rpartition("=")[2]
    address = f"postgresql://postgres:hush@/postgres?host={host}&sslpassword=hush"
    found = opened(open_storage(address))
    monkeypatch.setattr(patience, "LIMIT_SECONDS", 0.2)
    server.stop()
    try:
        with pytest.raises(DatabaseAway) as ended:
            found.ask_anchor(seed=1)
        with pytest.raises(ValueError, match="can't open the study database") as refused:
            open_storage(address)
    finally:
        server.start()
    found.delete()
    assert said(caplog)
    for text in (*said(caplog), str(ended.value)):
        assert "hush" not in text
        assert host not in text
    assert "hush" not in str(refused.value)


@contextmanager
def locked(file: Path, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Somebody else writes into the file until somebody is said to wait."""
    caplog.clear()
    with closing(sqlite3.connect(file, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        thread = threading.Thread(target=lambda: (until_said(caplog), other.rollback()))
        thread.start()
        try:
            yield
        finally:
            thread.join()
    first, last = said(caplog)
    assert f"{AWAY} (SQLITE_BUSY)" in first
    assert BACK in last


def test_a_file_that_somebody_else_has_locked_is_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "studies.db"
    study = begun(open_storage(sqlite_url(file)))
    with locked(file, caplog):
        first = ask(study, CONFIGS[0])
    with locked(file, caplog):
        study.tell(first, (3.0, 0.2), {"seconds": 1.0})
    again = opened(reopen_storage(sqlite_url(file)))
    assert again.trials == study.trials
    assert [trial.state for trial in again.trials] == ["completed", "completed"]


def test_what_does_not_pass_is_not_waited_for(tmp_path: Path) -> None:
    study = begun(open_storage(sqlite_url(tmp_path / "studies.db")))
    with study._storage.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE trial_values RENAME TO gone")
    with pytest.raises(StorageInternalError):
        study.tell(ask(study, CONFIGS[0]), (3.0, 0.2))
