from __future__ import annotations

import stat
from pathlib import Path

import pytest

from cluster import folder as folder_module
from cluster.experiment import Experiment
from cluster.folder import RunFolder
from cluster.results import load
from cluster.terms import Terms
from search.storage import open_storage

EXPERIMENT = Experiment("data", "base")


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.begin(resume=False)
    return folder


def test_a_run_is_its_owners_alone_and_has_a_key_that_stays(folder: RunFolder) -> None:
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder.path / "key").stat().st_mode) == 0o600
    assert len(folder.key()) == 32
    assert folder.key() == RunFolder(folder.path).key()


def test_a_folder_that_holds_something_is_refused_without_resume(folder: RunFolder) -> None:
    with pytest.raises(FileExistsError, match="--resume"):
        folder.begin(resume=False)
    folder.begin(resume=True)


def test_a_folder_of_something_else_is_not_one_to_go_on_with(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="holds something else; choose another folder"):
        RunFolder(tmp_path).begin(resume=False)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_file_in_a_runs_place_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(FileExistsError, match=r"--out: .*run is no folder"):
        RunFolder(tmp_path / "run").begin(resume=False)
    assert (tmp_path / "run").read_text() == "mine"


def test_going_on_needs_a_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="found none"):
        RunFolder(tmp_path).begin(resume=True)


def test_other_settings_are_refused_by_name(folder: RunFolder) -> None:
    folder.store(EXPERIMENT, {"data_digest": "abc"})
    folder.check_settings(EXPERIMENT)
    other = Experiment("data", "base", trials=9, seed=3)
    with pytest.raises(ValueError, match=r"--trials: .* 24, got 9\s+--seed: the run has 0"):
        folder.check_settings(other)


def test_what_a_run_resolved_to_is_stored_with_versions(folder: RunFolder) -> None:
    content = folder.store(EXPERIMENT, {"data_digest": "abc"})
    assert content == folder.stored()
    assert content["data_digest"] == "abc"
    assert content["versions"]["ray"]
    assert EXPERIMENT.differences(content) == []


@pytest.mark.parametrize("damage", ["", "zz" * 32, "ab" * 31, "é" * 64])
def test_a_damaged_key_is_named(folder: RunFolder, damage: str) -> None:
    (folder.path / "key").write_text(damage, encoding="utf-8")
    with pytest.raises(ValueError, match=r"run/key: expected 64 hexadecimal digits"):
        folder.key()


@pytest.mark.parametrize("damage", ["{", "[]"])
def test_a_damaged_settings_file_is_named(folder: RunFolder, damage: str) -> None:
    folder.settings.write_text(damage)
    with pytest.raises(ValueError, match=r"experiment\.json"):
        folder.check_settings(EXPERIMENT)


def test_a_second_driver_is_refused_until_the_first_ends(folder: RunFolder) -> None:
    with folder.lock(), pytest.raises(ValueError, match="another"):
        RunFolder(folder.path).lock()
    RunFolder(folder.path).lock().close()


def test_a_driver_waits_for_the_writers_of_an_earlier_run(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "WAIT_SECONDS", 0.3)
    first, second = folder.write_lock(), folder.write_lock()  # writers share it
    first.close()
    with pytest.raises(ValueError, match="still write"):
        folder.lock()
    second.close()
    folder.lock().close()


def test_a_killed_runs_temporary_folder_is_removed_and_no_other(
    folder: RunFolder, tmp_path: Path
) -> None:
    ours, others = tmp_path / "milpa-x", tmp_path / "mine"
    for place in (ours, others):
        place.mkdir()
        folder.remember_temporary(place)
        folder.tune.mkdir(exist_ok=True)
        folder.remove_temporary()
    assert not ours.exists()
    assert others.exists()
    assert not folder.tune.exists()


def test_the_studies_address_moves_with_the_folder_unless_it_is_elsewhere(
    folder: RunFolder, tmp_path: Path
) -> None:
    folder.store(EXPERIMENT, {"storage": "postgresql://somewhere"})
    assert folder.storage() == "postgresql://somewhere"
    (folder.path / "studies.db").touch()
    moved = RunFolder(folder.path.rename(tmp_path / "moved"))
    assert moved.storage() == f"sqlite:///{tmp_path / 'moved' / 'studies.db'}"


@pytest.mark.parametrize("name", ["what?now 100%25", "a#b{c}", "é?mode=ro"])
def test_a_folder_of_any_name_holds_its_own_studies(tmp_path: Path, name: str) -> None:
    folder = RunFolder(tmp_path / name)
    folder.begin(resume=False)
    open_storage(folder.storage())
    assert (folder.path / "studies.db").is_file()
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_memories_belong_to_the_merged_base_where_there_is_one(folder: RunFolder) -> None:
    folder.store(EXPERIMENT, {})
    assert folder.searched_base() == "base"
    folder.base.mkdir()
    assert folder.searched_base() == str(folder.base)


def test_a_comparison_has_no_searched_base_and_says_what_to_serve(folder: RunFolder) -> None:
    folder.store(Terms("data", "base", ("none", "rag")), {})
    assert folder.is_comparison
    with pytest.raises(ValueError, match=r"--registry .*/registries/METHOD --base base"):
        folder.searched_base()
    folder.base.mkdir()
    with pytest.raises(ValueError, match=rf"METHOD --base {folder.base}"):
        folder.searched_base()
    (folder.path / "units").mkdir()
    with pytest.raises(FileNotFoundError, match=r"comparison of methods, read its compare\.md"):
        load(folder.path)
