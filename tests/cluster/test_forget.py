"""Forgetting leaves nothing behind that a killed process left, and claims nothing it can't do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.folder import RunFolder
from cluster.forget import forget
from cluster.traces import held
from models import archive
from models.history import Histories, user_digest
from models.personalizer import UserState
from models.registry import BaseIdentity, Registry
from search.census import study_names
from search.space import SearchSpace
from search.storage import open_storage
from search.study import Study
from tests.cluster.tiny_run import USERS, write_data

GONE, LEFT = USERS
WORDS = "I like a bread much"


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run that has read its data, and whose processes were killed while they wrote."""
    folder = RunFolder(tmp_path / "run")
    folder.begin(resume=False)
    Histories.read(write_data(tmp_path), folder.data)
    for place in (folder.winners, folder.path / "units", folder.path / "answers", folder.tune):
        place.mkdir()
    copy = folder.path / ".quizzes-data-k2j4h_5x.writing"
    (copy / "data").mkdir(parents=True)
    temporary = tmp_path / "milpa-temporary"
    temporary.mkdir()
    folder.remember_temporary(temporary)
    for file in (
        folder.path / ".results.json.ab_d3f9x",
        folder.path / ".report.html.0b_d3f9x",
        folder.winners / ".0123456789abcdef.json.ab_d3f9x",
        folder.path / "units" / ".0123.json.ab_d3f9x",
        folder.path / "answers" / ".0123.json.ab_d3f9x",
        folder.tune / "result.json",
        temporary / "worker.log",
        copy / "data" / "interactions.jsonl",
    ):
        file.write_text(WORDS)
    return folder


def holding(place: Path, words: str) -> list[Path]:
    return [f for f in place.rglob("*") if f.is_file() and words.encode() in f.read_bytes()]


def test_what_killed_processes_left_goes_too(folder: RunFolder) -> None:
    (folder.path / ".gitignore").write_text("*")
    assert len(holding(folder.path.parent, WORDS)) > 8
    assert forget(folder.path, GONE) == ["removed from the data"]
    assert holding(folder.path, WORDS) == []
    assert not (folder.path.parent / "milpa-temporary").exists()
    assert (folder.path / ".gitignore").is_file()
    assert Histories.open(folder.data).user_ids == (LEFT,)


def test_a_copy_that_a_run_was_killed_with_goes_though_it_names_nobody(folder: RunFolder) -> None:
    for file in folder.data.iterdir():
        file.unlink()
    folder.data.rmdir()
    with pytest.raises(ValueError, match="does not hold"):
        forget(folder.path, GONE)
    assert holding(folder.path, WORDS) == []


def test_several_are_forgotten_at_once(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []
    write = archive.write

    def noting(*given: Any) -> None:
        written.append(given[3])
        write(*given)

    monkeypatch.setattr(archive, "write", noting)
    assert forget(folder.path, *USERS) == ["removed from the data"]
    assert written == [folder.data]
    assert Histories.open(folder.data).user_ids == ()
    assert holding(folder.path, WORDS) == []


@pytest.mark.parametrize("given", [(GONE, "nobody", "no one"), ("nobody", "no one", *USERS)])
def test_nobody_is_forgotten_where_one_is_unknown(
    folder: RunFolder, given: tuple[str, ...]
) -> None:
    with pytest.raises(ValueError, match="got 'nobody', 'no one', whom it does not hold; nobody"):
        forget(folder.path, *given)
    assert set(Histories.open(folder.data).user_ids) == set(USERS)


def test_whoever_is_left_in_one_place_is_held(folder: RunFolder) -> None:
    """A removal that was killed may have come as far as any of these."""
    key = folder.key()
    users = {user_digest(key, user): user for user in ("a", "b", "c", "d", "e")}
    a, b, c, d, _ = users
    identity = BaseIdentity("base", "0" * 64, "plain/1")
    Registry(folder.registry).publish(UserState("milp", "a", {}, {}), identity, {}, "why")
    Registry(folder.registry).withdraw("a")
    (folder.winners / f"{b}.json").write_text("{}")
    Study.open(open_storage(folder.storage()), c, SearchSpace(4, (4,), (1e-3,)))
    (folder.path / "packer-0.log").write_text(f"12:00 milpa/{d}/L0-r4 begins\n")
    assert held(folder, users) == {a, b, c, d}
    forget(folder.path, "a", "b", "c", "d")
    assert held(folder, users) == set()
    assert (folder.path / "packer-0.log").read_text() == ""


@pytest.mark.parametrize("name", ["what?now 100%25", "run"])
def test_studies_are_forgotten_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    folder = RunFolder(tmp_path / name)
    folder.begin(resume=False)
    storage = open_storage(folder.storage())
    Study.open(storage, user_digest(folder.key(), GONE), SearchSpace(4, (4,), (1e-3,)))
    assert forget(folder.path, GONE) == ["removed from the studies"]
    assert study_names(open_storage(folder.storage())) == []
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("inner", ["", "comparison"])
def test_where_users_hold_each_others_words_nobody_can_be_forgotten_alone(
    tmp_path: Path, inner: str
) -> None:
    folder = RunFolder(tmp_path / "leaks" / inner)
    folder.begin(resume=False)
    Histories.read(write_data(tmp_path), folder.data)
    (tmp_path / "leaks" / "owners.json").write_text(
        json.dumps(dict(zip(USERS, USERS[::-1], strict=True)))
    )
    with pytest.raises(ValueError, match=r"under others' names.*remove"):
        forget(folder.path, GONE)
    assert set(Histories.open(folder.data).user_ids) == set(USERS)
