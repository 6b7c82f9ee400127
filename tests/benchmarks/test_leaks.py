"""The leak check: histories that change hands, what is held against what, all of it for real."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import leaks, permuted
from benchmarks.leaks import Held, beats, checked, table
from cluster.entrant import entrants
from cluster.standing import Difference
from cluster.terms import Terms
from models.history import Histories, split
from tests.cluster import tiny_contest
from tests.cluster.tiny_run import write_base

USERS = ("ann", "hal", "ben", "guy", "Zoë \u4f60", "flo/x")
OTHERS = tuple(f"other {n}" for n in range(4))


def write_data(folder: Path) -> Path:
    """Users, others who were in their last conversations, and profiles."""
    file = tiny_contest.write_data(folder, USERS, OTHERS)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        if line["user_id"] == OTHERS[0] and line["time"] < 4:
            line["session"] = "0-9"  # the last of the first user's
        if line["user_id"] == USERS[1] and line["time"] < 4:
            line["session"] = "2-9"  # the last of the third user's
    file.unlink()
    place = folder / "data"
    place.mkdir()
    words = "".join(json.dumps(line) + "\n" for line in lines)
    (place / "interactions.jsonl").write_text(words)
    profiles = [{"user_id": user, "profile": f"about {user}"} for user in (*USERS, *OTHERS)]
    (place / "profiles.jsonl").write_text("".join(json.dumps(p) + "\n" for p in profiles))
    return place


def words_of(items: object) -> list[tuple[str | None, str]]:
    return [(item.query, item.response) for item in items]  # type: ignore[attr-defined]


def test_training_parts_go_to_whoever_is_nearest_in_length_and_never_to_their_owner() -> None:
    sizes = {"a": 10, "b": 50, "c": 11, "d": 52, "e": 49}
    assert permuted.partners(sizes) == {"a": "c", "c": "a", "e": "d", "b": "e", "d": "b"}
    assert permuted.partners({"a": 1, "b": 1, "c": 1}) == {"a": "c", "b": "a", "c": "b"}
    with pytest.raises(ValueError, match="at least 2 users to permute, got 1"):
        permuted.partners({"a": 1})


def test_only_training_parts_change_hands_and_nothing_of_later_conversations(
    tmp_path: Path,
) -> None:
    before = Histories.read(write_data(tmp_path), tmp_path / "before")
    given = permuted.write(before, USERS, tmp_path / "permuted")
    assert sorted(given) == sorted(given.values()) == sorted(USERS)
    assert all(user != other for user, other in given.items())
    after = Histories.read(tmp_path / "permuted", tmp_path / "after")
    own = {user: split(before.load(user)) for user in USERS}
    for user, other in given.items():
        found = split(after.load(user))
        assert found.by_session
        assert words_of(found.validation) == words_of(own[user].validation)
        assert words_of(found.test) == words_of(own[user].test)
        closed = 4 if other == USERS[1] else 0
        assert words_of(found.train) == words_of(own[other].train)[closed:]
        assert after.load(user).profile == f"about {other}"
    for user in OTHERS:
        closed = 4 if user == OTHERS[0] else 0
        assert (
            words_of(after.load(user).interactions)
            == (words_of(before.load(user).interactions)[closed:])
        )
        assert not split(after.load(user)).by_session


def test_a_long_users_later_parts_are_cut_to_what_a_short_partner_leaves(tmp_path: Path) -> None:
    lines = [
        {
            "user_id": user,
            "time": i,
            "session": f"{user} {i // 4}",
            "query": "q",
            "response": f"{i}",
        }
        for user, count in (("long", 200), ("short", 24))
        for i in range(count)
    ]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    before = Histories.read(tmp_path / "data.jsonl", tmp_path / "before")
    permuted.write(before, ("long", "short"), tmp_path / "permuted")
    found = split(Histories.read(tmp_path / "permuted", tmp_path / "after").load("long"))
    own = {user: split(before.load(user)) for user in ("long", "short")}
    assert found.by_session
    assert words_of(found.train) == words_of(own["short"].train)
    count = len(found.validation)
    assert count + len(found.test) == len(found.train)
    assert words_of(found.validation) == words_of(own["long"].validation[:count])
    assert words_of(found.test) == words_of(own["long"].test[: len(found.test)])


def test_a_leak_is_what_beats_control_and_strangers() -> None:
    def difference(mean: float, low: float | None, high: float | None) -> Difference:
        return Difference(mean, low, high, 0, 0, 0)

    less, even = difference(-0.2, -0.3, -0.1), difference(-0.1, -0.3, 0.1)
    assert [beats(each) for each in (less, even)] == [True, False]
    assert beats(difference(-1e-7, -2e-7, -1e-8)) is False  # rounding
    assert beats(difference(-0.2, None, None)) is None
    assert [Held("m", 4, 0, c, s).leaks for c in (less, even) for s in (less, even)] == [
        True, False, False, False,
    ]  # fmt: skip
    terms = Terms("d", "b", ("none", "m"))
    text = table([Held("m", 4, 1, less, even)], terms, own=False)
    row = "| m | 1 of 4 | -0.200 [-0.300, -0.100] | yes | -0.100 [-0.300, +0.100] | no |"
    assert row in text
    assert "strangers' histories" in text


def given(place: Path, *others: str) -> list[str]:
    words = ["--data", str(place / "data"), "--base", str(place / "base"), "--items", "1"]
    words += ["--users", str(len(USERS)), "--seeds", "1", "--trials", "1", "--population", "off"]
    words += ["--injection-epochs", "1", "--tuning-epochs", "2", "--methods", "milp,rag"]
    return [*words, "--out", str(place / "out"), *others]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("leaks")
    write_data(folder)
    write_base(folder)
    return folder


def test_with_strangers_histories_no_method_leaks_and_the_same_command_goes_on(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leaks.main(given(place))
    printed = capsys.readouterr().out
    out = place / "out"
    found = json.loads((out / "leaks.json").read_text())["methods"]
    assert [each["label"] for each in found] == ["none", "milp", "rag"]
    assert not any(each["leaks"] for each in found)
    none, milp, _ = found
    for against in ("control", "strangers"):
        assert none[against]["mean"] == none[against]["low"] == none[against]["high"] == 0
    # It learned how everybody talks, which this base has never heard: that is no leak.
    assert milp["control"]["high"] < 0
    assert abs(milp["strangers"]["mean"]) < abs(milp["control"]["mean"]) / 5
    assert (out / "leaks.md").read_text() in printed
    for name in ("leaks.json", "leaks.md"):
        assert not any(user in (out / name).read_text() for user in USERS)
        assert (out / name).stat().st_mode & 0o077 == 0
    before = {file: file.stat().st_mtime_ns for file in out.glob("co*/units/*.json")}
    before |= {file: file.stat().st_mtime_ns for file in out.glob("controls/*.json")}
    leaks.main(given(place))
    assert {file: file.stat().st_mtime_ns for file in before} == before
    with pytest.raises(ValueError, match="--strangers: the folder has 4, got 2"):
        leaks.main(given(place, "--strangers", "2"))


def test_with_own_histories_what_learns_is_seen(place: Path, tmp_path: Path) -> None:
    """The check of the check: every user has a letter that no stranger's history holds."""
    data, base = str(place / "data"), str(place / "base")
    terms = Terms(data, base, ("none", "milp"), users=len(USERS), seeds=1, trials=1, items=1,
                  population="off", injection_epochs=1, tuning_epochs=2)  # fmt: skip
    arena = tiny_contest.begun(tmp_path, terms)
    tiny_contest.tried(arena)
    standing = tiny_contest.tested(arena)
    arena.close()
    none, milp = checked(terms, standing, tmp_path / "out", tmp_path / "controls")
    assert [row.label for row in entrants(terms)] == [none.label, milp.label]
    assert none.leaks is False
    assert milp.leaks is True
