from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.experiment import Experiment
from cluster.users import Choice, choose
from models.history import Histories, user_digest

KEY = b"k" * 32
IN_SESSIONS = [f"s{i}" for i in range(5)]
AT_ONCE = [f"t{i}" for i in range(5)]  # all in one session: split between items


@pytest.fixture(scope="module")
def histories(tmp_path_factory: pytest.TempPathFactory) -> Histories:
    folder = tmp_path_factory.mktemp("users")
    lines = [
        {"user_id": user, "time": i, "session": session, "query": "a?", "response": "b."}
        for user, length in [*((u, 40) for u in (*IN_SESSIONS, *AT_ONCE)), ("few", 12)]
        for i in range(length)
        for session in [f"{user} {i // 4}" if user.startswith("s") else user]
    ]
    file = folder / "data.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines))
    return Histories.read(file, folder / "arrow")


def chosen(histories: Histories, **settings: Any) -> Choice:
    return choose(histories, Experiment("data", "base", **settings), KEY)


def ids(choice: Choice) -> list[str]:
    return [user.user_id for user in choice.searched]


def test_users_split_between_sessions_come_first(histories: Histories) -> None:
    choice = chosen(histories, users=3)
    assert set(ids(choice)) < set(IN_SESSIONS)
    assert all(user.by_session for user in choice.searched)


def test_others_fill_up_and_are_marked(histories: Histories) -> None:
    choice = chosen(histories, users=7)
    assert set(IN_SESSIONS) < set(ids(choice))
    marked = [user.user_id for user in choice.searched if not user.by_session]
    assert len(marked) == 2
    assert set(marked) < set(AT_ONCE)


def test_users_who_are_skipped_are_those_of_an_earlier_draw(histories: Histories) -> None:
    known, experiment = ids(chosen(histories, users=3)), Experiment("data", "base", users=3)
    aside = choose(histories, experiment, KEY, skip=3)
    assert len(ids(aside)) == 3
    assert not set(ids(aside)) & set(known)
    assert sum(user.by_session for user in aside.searched) == 2  # all that are left
    assert not set(ids(aside)) & {user.user_id for user in aside.left_out}


def test_all_with_enough_items_are_searched_when_no_number_is_given(histories: Histories) -> None:
    assert ids(chosen(histories)) == sorted([*IN_SESSIONS, *AT_ONCE])


def test_the_draw_depends_on_the_seed_alone(histories: Histories) -> None:
    first = chosen(histories, users=2)
    assert first == chosen(histories, users=2)
    draws = {tuple(ids(chosen(histories, users=2, seed=seed))) for seed in range(8)}
    assert len(draws) > 1


def test_digests_hang_on_the_key_and_seeds_do_not(histories: Histories) -> None:
    ours = chosen(histories, users=2)
    others = choose(histories, Experiment("data", "base", users=2), b"x" * 32)
    assert [u.seed for u in ours.searched] == [u.seed for u in others.searched]
    assert [u.digest for u in ours.searched] != [u.digest for u in others.searched]
    assert ours.searched[0].digest == user_digest(KEY, ours.searched[0].user_id)


def test_users_with_too_few_items_are_left_out_with_the_reason(histories: Histories) -> None:
    (left_out,) = chosen(histories).left_out
    assert (left_out.user_id, left_out.pairs) == ("few", 12)
    assert "fewer than 30" in left_out.reason
    (short,) = chosen(histories, min_items=5).left_out  # enough by the flag, yet not to split
    assert (short.user_id, "too few" in short.reason) == ("few", True)


def test_no_usable_user_is_refused_with_what_there_is(histories: Histories) -> None:
    with pytest.raises(ValueError, match=r"at least 50 items .* the longest history has 40"):
        chosen(histories, min_items=50)


def test_why_nobody_is_usable_is_told_apart(tmp_path: Path) -> None:
    def refusal(name: str, count: int) -> str:
        lines = [{"user_id": "u", "time": i, name: "a?", "response": "b."} for i in range(count)]
        file = tmp_path / f"{name}.jsonl"
        file.write_text("\n".join(map(json.dumps, lines)))
        with pytest.raises(ValueError, match="expected") as refused:
            chosen(Histories.read(file, tmp_path / name), min_items=5)
        return str(refused.value)

    assert "rename that field 'query'" in refusal("prompt", 40)
    assert "(14 items with a query, " in refusal("query", 12)


def test_the_choice_is_kept_and_a_user_can_be_taken_out(
    histories: Histories, tmp_path: Path
) -> None:
    choice = chosen(histories, users=3)
    choice.save(tmp_path)
    assert Choice.load(tmp_path) == choice
    gone = ids(choice)[0]
    assert ids(choice.without(gone)) == ids(choice)[1:]
    assert not choice.without("few").left_out


def test_a_damaged_list_is_named(tmp_path: Path) -> None:
    (tmp_path / "users.json").write_text("{}")
    with pytest.raises(ValueError, match=r"users\.json"):
        Choice.load(tmp_path)
