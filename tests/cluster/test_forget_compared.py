"""A user is forgotten in a comparison's folder: nothing of them is left, everybody else stays."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cluster.entrant import entrants
from cluster.folder import RunFolder
from cluster.forget import forget
from cluster.judgements import FOLDER, Judgements
from cluster.standing import Standing
from cluster.tally import standing_of
from cluster.terms import Terms
from cluster.unit import BASE, Unit, Units
from cluster.users import Choice
from cluster.verdicts import answers_of
from models.history import Histories, user_digest
from models.registry import Registry
from tests.cluster import tiny_contest
from tests.cluster.tiny_contest import OTHERS, USERS

GONE, *LEFT = USERS
METHODS = ("none", "milp", "rag")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Terms, Path, Standing]:
    """A comparison that has ended and was judged, with a table and a log."""
    place = tmp_path_factory.mktemp("comparison")
    terms = tiny_contest.terms(place, METHODS, seeds=1, trials=1)
    arena = tiny_contest.begun(place, terms)
    tiny_contest.tried(arena)
    standing = tiny_contest.tested(arena)
    arena.close()
    kept = Judgements(arena.folder.path, arena.folder.key())
    for user in arena.users:
        kept.keep(user.digest, {"question": "which is better?"}, "A")
    digest = user_digest(arena.folder.key(), GONE)
    (arena.folder.path / "compare.json").write_text(json.dumps({"users": [digest]}))
    (arena.folder.path / "station-0.log").write_text(f"before\n{digest} failed\nafter\n")
    return terms, arena.folder.path, standing


@pytest.fixture
def run(done: tuple[Terms, Path, Standing], tmp_path: Path) -> Path:
    """A copy of its folder."""
    return Path(shutil.copytree(done[1], tmp_path / "out"))


def without(values: dict[str, float], digest: str) -> dict[str, float]:
    return {user: value for user, value in values.items() if user != digest}


def test_nothing_names_or_counts_the_user_any_more(run: Path) -> None:
    digest = user_digest(RunFolder(run).key(), GONE)
    before = tiny_contest.texts_of(run)
    assert sum(digest in text for text in before.values()) > len(METHODS)
    said = forget(run, GONE)
    assert any("registries: 3 states" in line for line in said)
    assert any("outcomes" in line for line in said)
    assert any("answers of" in line for line in said)
    assert any("a judge said" in line for line in said)
    for name, text in tiny_contest.texts_of(run).items():
        for trace in (GONE, json.dumps(GONE)[1:-1], digest):
            assert trace not in text, name
            assert trace not in name
    assert (run / "station-0.log").read_text() == "before\nafter\n"
    assert not (run / "compare.json").exists()
    assert not (run / "studies.db").exists()
    with pytest.raises(ValueError, match="does not hold"):
        forget(run, GONE)


def test_several_leave_no_trace_at_once(run: Path) -> None:
    gone, left = USERS[:2], USERS[2:]
    digests = [user_digest(RunFolder(run).key(), user) for user in gone]
    forget(run, *gone)
    for name, text in tiny_contest.texts_of(run).items():
        assert not any(trace in text or trace in name for trace in (*gone, *digests)), name
    assert sorted(user.user_id for user in Choice.load(run).searched) == sorted(left)
    for method in METHODS:
        assert len(answers_of(run, method)) == len(left)


def test_everybody_else_stays_and_the_table_is_that_of_them(
    done: tuple[Terms, Path, Standing], run: Path
) -> None:
    terms, _, before = done
    digest = user_digest(RunFolder(run).key(), GONE)
    forget(run, GONE)
    after = standing_of(terms, run, entrants(terms), "none", {})
    assert [row.label for row in after.rows] == list(METHODS)
    for row, old in zip(after.rows, before.rows, strict=True):
        assert row.values == {name: without(dict(v), digest) for name, v in old.values.items()}
    assert sorted(user.user_id for user in Choice.load(run).searched) == sorted(LEFT)
    assert set(LEFT) | set(OTHERS) == set(Histories.open(run / "data").user_ids)
    for method in METHODS:
        assert set(Registry(run / "registries" / method).users()) == set(LEFT)
        assert len(answers_of(run, method)) == len(LEFT)


def test_what_a_judge_said_of_others_stays(run: Path) -> None:
    key = RunFolder(run).key()
    kept = {file.name: file.read_text() for file in (run / FOLDER).iterdir()}
    assert set(kept) == {user_digest(key, user) for user in USERS}
    forget(run, GONE)
    del kept[user_digest(key, GONE)]
    assert {file.name: file.read_text() for file in (run / FOLDER).iterdir()} == kept


def test_what_answers_are_read_against_is_taken_over_those_who_are_left(run: Path) -> None:
    unit = Unit("untrained", BASE)
    before = Units(run).read(unit)["anchors"]
    forget(run, GONE)
    after = Units(run).read(unit)["anchors"]
    assert before.keys() == after.keys()
    assert after != before
    forget(run, LEFT[0])
    assert "another user's" not in Units(run).read(unit)["anchors"]  # there is no other
    forget(run, LEFT[1])
    assert Units(run).read(unit)["anchors"] == {}


def test_somebody_who_was_learned_from_is_removed_and_what_was_learned_is_named(run: Path) -> None:
    (run / "shared").mkdir()
    (run / "shared" / "learned").write_text("of many")
    said = forget(run, OTHERS[0])
    assert "removed from the data" in said
    assert any("shared parts, which may have learned from this user" in line for line in said)
    assert OTHERS[0] not in Histories.open(run / "data").user_ids
    assert (run / "shared" / "learned").is_file()


def test_a_comparison_that_is_worked_on_is_left_alone(run: Path) -> None:
    with RunFolder(run).lock():
        before = tiny_contest.texts_of(run)
        with pytest.raises(ValueError, match="another command works here"):
            forget(run, GONE)
    assert tiny_contest.texts_of(run) == before


def test_nobody_known_by_that_name_changes_nothing(run: Path) -> None:
    before = tiny_contest.texts_of(run)
    with pytest.raises(ValueError, match="does not hold"):
        forget(run, "nobody")
    after = tiny_contest.texts_of(run)
    assert {name: after[name] for name in before} == before
    assert (run / "compare.json").is_file()
