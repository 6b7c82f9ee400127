"""Opening storages, and trials as rows."""

import sqlite3
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.study import StudyDirection

from search.samplers import Proposal
from search.space import BASE_CONFIG, MemoryConfig, SearchSpace
from search.storage import from_stored, open_storage, scrub, sqlite_url, template

LAYERS = {12: (0, 11), 53: (0, 31, 52), 54: (52, 53), 120: (0, 53, 105, 106, 119)}


@pytest.mark.parametrize("layer_count", LAYERS)
def test_a_configuration_is_few_parameters_and_comes_back(
    storage: RDBStorage, layer_count: int
) -> None:
    space = SearchSpace(layer_count, max_count=layer_count)
    study = storage.create_new_study([StudyDirection.MINIMIZE], "digest")
    every = MemoryConfig(tuple(range(layer_count)), 96, 1e-2)
    for config in (BASE_CONFIG, every, MemoryConfig(LAYERS[layer_count], 8, 5.62e-4)):
        waiting = template(space, Proposal(config, "sobol"), 2**62, 1234)
        ((trial_id, _),) = storage.ask(study, [waiting])
        stored = storage.get_trial(trial_id)
        trial = from_stored(stored)
        assert (trial.config, trial.state, trial.seed) == (config, "pending", 2**62)
        assert (trial.source, trial.parameters) == ("sobol", 1234)
        integers = -(-layer_count // 53)
        assert len(stored.params) == integers + (2 if config.layers else 0)
    assert stored.user_attrs["active_layers"] == ", ".join(map(str, LAYERS[layer_count]))
    assert stored.params["layers"] == sum(1 << x for x in LAYERS[layer_count] if x < 53)


@pytest.mark.parametrize("name", ["a b", "50%", "{x}", "q?r", "#é"])
def test_folders_of_any_name_are_opened(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    url = sqlite_url(folder / "studies.db")
    open_storage(url).create_new_study([StudyDirection.MINIMIZE], "digest")
    assert [study.study_name for study in open_storage(url).get_all_studies()] == ["digest"]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_readers_read_while_a_writer_writes(tmp_path: Path) -> None:
    path = tmp_path / "studies.db"
    open_storage(sqlite_url(path))
    with sqlite3.connect(path) as writer:
        assert writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        writer.execute("BEGIN IMMEDIATE")
        assert optuna.get_all_study_names(sqlite_url(path)) == []


def test_a_new_database_that_another_process_makes_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "studies.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr("search.storage.time.sleep", lambda _: other.rollback())
        open_storage(sqlite_url(path))
        assert not other.in_transaction
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_what_was_deleted_is_scrubbed(tmp_path: Path) -> None:
    file = tmp_path / "studies.db"
    storage = open_storage(sqlite_url(file))
    for i in range(40):
        storage.create_new_study([StudyDirection.MINIMIZE], f"somebody-{i:04}")
    gone = storage.get_study_id_from_name("somebody-0007")
    storage.delete_study(gone)
    scrub(storage)
    content = b"".join(f.read_bytes() for f in tmp_path.iterdir())
    assert b"somebody-0007" not in content
    assert b"somebody-0008" in content
    assert len(storage.get_all_studies()) == 39


@pytest.mark.parametrize("damage", ["text", "cut", "holes"])
def test_a_damaged_database_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "studies.db"
    opened = open_storage(sqlite_url(path))
    for name in range(50):
        opened.create_new_study([StudyDirection.MINIMIZE], str(name))
    opened.engine.dispose()
    content = path.read_bytes()
    path.write_bytes(
        {
            "text": b"these are no pages of a database" * 200,
            "cut": content[: len(content) // 2],
            "holes": content[:8192] + bytes(8192) + content[16384:],
        }[damage]
    )
    with pytest.raises(ValueError, match=r"can't open the study database .*studies\.db: .*copy"):
        open_storage(sqlite_url(path))


def test_a_missing_folder_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere/studies\.db: unable to open"):
        open_storage(sqlite_url(tmp_path / "nowhere" / "studies.db"))


@pytest.mark.parametrize("url", ["studies.db", "mysql://host/x", "sqlite://", ""])
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="expected sqlite:///FILE or postgresql://"):
        open_storage(url)


def test_a_server_that_is_not_there_is_refused_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="can't open the study database") as caught:
        open_storage(f"postgresql://me:secret@/milpa?host={tmp_path}")
    assert "secret" not in str(caught.value)
