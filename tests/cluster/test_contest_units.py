"""Units of a comparison without Ray, under methods that are made up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from cluster import trainings
from cluster.burden import extra_tokens
from cluster.entrant import Entrant
from cluster.standing_text import markdown
from cluster.station import done
from cluster.unit import Unit, told
from models.history import Histories, Interaction, split
from models.personalizer import (
    Framed,
    UserState,
)
from models.registry import Registry
from tests.cluster import tiny_contest
from tests.cluster.made_methods import WORDS, Hint, Sharing, better, first_with_a_loss, install
from tests.cluster.tiny_contest import CODE, USERS
from tests.tiny import save_tiny_base, tiny_base


@pytest.fixture(autouse=True)
def methods(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)


def test_extra_tokens_are_those_counted_by_hand() -> None:
    base, limit = tiny_base(), 8
    state = UserState("hint", "ann", {}, {"soft": torch.zeros(2, 32)})
    items = [Interaction("ann", float(i), "what about bread?" * (i + 1), "yes") for i in range(3)]
    hint = Hint()
    added = len(base.prompt.prompt(f"{WORDS} what about bread?"))
    added -= len(base.prompt.prompt("what about bread?"))
    assert added > 4
    found = extra_tokens(base, lambda s, q: hint.frame(base, s, q), state, items[:1], limit)
    assert found == added + 2
    nothing = extra_tokens(base, lambda s, q: Framed(q), None, items, limit)
    assert nothing == 0
    # A prompt that fills the context already can't grow: what is added takes older words' place.
    long = [Interaction("ann", 0.0, "what about bread? " * 60, "yes")]
    assert extra_tokens(base, lambda s, q: hint.frame(base, s, q), state, long, limit) == 0


def test_a_method_that_reads_is_tuned_on_its_space_and_costs_what_it_adds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    better(monkeypatch)
    arena = tiny_contest.begun(tmp_path, tiny_contest.terms(tmp_path, ("none", "hint"), trials=8))
    tiny_contest.tried(arena)
    trials = told(arena.units, "hint")
    given = [{str(own["configuration"]) for own in each["users"].values()} for each in trials]
    assert given == [{"{'soft_tokens': 2}"}, {"{'soft_tokens': 0}"}]  # all that the space holds
    row = tiny_contest.tested(arena).row("hint")
    assert row is not None
    assert row.on_base == 0
    assert row.cost.stored_parameters == 2 * 32
    assert row.cost.trained_parameters == 0  # nothing was trained
    words = len(arena.base.prompt.prompt(f"{WORDS} what"))
    words -= len(arena.base.prompt.prompt("what"))  # as every query begins
    assert row.cost.extra_tokens == words + 2
    assert row.cost.first_token is not None
    assert row.cost.first_token > 0


def test_test_words_reach_nothing_before_they_are_read(tmp_path: Path) -> None:
    terms = tiny_contest.terms(tmp_path, ("none", "hint", "sharing"), trials=2, seeds=1)
    arena = tiny_contest.begun(tmp_path, terms)
    tiny_contest.tried(arena)
    test = [split(arena_history(arena.folder.data, user)).test for user in USERS]
    assert all(CODE in item.response for items in test for item in items[-4:])
    asked = {(item.user_id, item.time) for items in test for item in items}
    seen = [i for task in Hint.read for i in (*task.train, *task.validation)]
    assert seen
    assert not any((item.user_id, item.time) in asked or CODE in item.response for item in seen)
    for name, text in tiny_contest.texts_of(arena.folder.path).items():
        assert CODE not in text or name.startswith("data/"), name
    assert not {unit["unit"]["kind"] for unit in arena.units.every()} & {"final", "untrained"}


def test_what_is_shared_is_learned_from_others_once_and_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    better(monkeypatch)
    terms = tiny_contest.terms(tmp_path, ("none", "sharing"), trials=2, seeds=2)
    arena = tiny_contest.begun(tmp_path, terms)
    tiny_contest.tried(arena)
    standing = tiny_contest.tested(arena)
    # Two configurations on the seed of the trials; the chosen one on the other seed.
    assert [told for _, told, _ in Sharing.learned] == [
        "{'soft_tokens': 2}",
        "{'soft_tokens': 0}",
        "{'soft_tokens': 2}",
    ]
    assert len({seed for _, _, seed in Sharing.learned}) == 3
    people = {person.user_id for found, _, _ in Sharing.learned for person in found}
    assert people
    assert not people & set(USERS)
    row = standing.row("sharing")
    assert row is not None
    assert (row.cost.shared_times, row.cost.shared_parameters) == (3, 15)
    digests = {each["digest"] for each in arena.units.every() if each["unit"]["kind"] == "shared"}
    sizes = [
        sum(file.stat().st_size for file in (arena.folder.path / "shared" / digest).iterdir())
        for digest in digests
    ]
    assert len(sizes) == 2  # the same on either seed, here
    assert min(sizes) <= (row.cost.shared_bytes or 0) <= max(sizes)


def test_others_are_read_in_open_sessions_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arena = tiny_contest.begun(tmp_path, tiny_contest.terms(tmp_path, ("none", "sharing")))
    closed = {"3-0", "3-1", "4-4"}
    monkeypatch.setattr(trainings, "closed_sessions", lambda splits: closed)
    done(arena, Unit("bare"))
    done(arena, Unit("trial", "sharing"))
    people = Sharing.learned[0][0]
    sessions = {i.session for person in people for i in (*person.history, *person.pairs)}
    assert sessions
    assert not sessions & closed


@pytest.mark.parametrize("family", ["llama", "roberta"])
def test_a_prompt_beyond_a_bases_positions_is_named_and_the_others_go_on(
    tmp_path: Path, family: str
) -> None:
    tiny_contest.write_data(tmp_path)
    save_tiny_base(tmp_path / "base", family)
    terms = tiny_contest.terms(tmp_path, ("none", "wide", "hint"), trials=2, seeds=1)
    arena = tiny_contest.begun(tmp_path, terms)
    assert arena.base.context == 128
    tiny_contest.tried(arena)
    standing = tiny_contest.tested(arena)
    assert list(standing.left_out) == ["wide"]
    assert "a context of at least 130 tokens" in standing.left_out["wide"]
    assert [row.label for row in standing.rows] == ["none", "hint"]


def test_a_population_too_small_to_learn_from_is_told_with_the_number_needed(
    tmp_path: Path,
) -> None:
    terms = tiny_contest.terms(tmp_path, ("none", "needy", "hint"), trials=1, seeds=1)
    arena = tiny_contest.begun(tmp_path, terms)
    tiny_contest.tried(arena)
    standing = tiny_contest.tested(arena)
    assert dict(standing.left_out) == {"needy": "expected at least 99 other users, got 2"}
    assert [row.label for row in standing.rows] == ["none", "hint"]


def test_a_user_who_fails_counts_as_the_base_and_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    better(monkeypatch)
    terms = tiny_contest.terms(tmp_path, ("none", "choosy"), trials=1, seeds=2)
    arena = tiny_contest.begun(tmp_path, terms)
    tiny_contest.tried(arena)
    standing = tiny_contest.tested(arena)
    row, none = standing.row("choosy"), standing.row("none")
    assert row is not None
    assert none is not None
    assert (row.failed_trials, row.on_base, row.failed) == (1, 1, 0)
    digest = next(user.digest for user in arena.users if user.user_id == USERS[0])
    assert row.values["loss"][digest] == none.values["loss"][digest]
    others = set(none.values["loss"]) - {digest}
    assert all(row.values["loss"][user] != none.values["loss"][user] for user in others)


def test_a_training_that_is_no_gain_after_all_counts_as_the_base_and_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.tuning.best_of", first_with_a_loss)
    terms = tiny_contest.terms(tmp_path, ("none", "hint"), trials=1, seeds=2)
    arena = tiny_contest.begun(tmp_path, terms)
    tiny_contest.tried(arena)
    bare = arena.units.read(Unit("bare"))["users"]
    trial = told(arena.units, "hint")[0]["users"]
    worse = {d for d, own in trial.items() if own["loss_nats"] >= bare[d]["loss_nats"]}
    assert worse  # the words of a stranger to it don't help a random base
    standing = tiny_contest.tested(arena)
    row, none = standing.row("hint"), standing.row("none")
    assert row is not None
    assert none is not None
    assert (row.no_gain, row.on_base, row.failed) == (2 * len(worse), 0, 0)
    assert all(row.values["loss"][user] == none.values["loss"][user] for user in worse)


def test_what_a_prompts_budget_leaves_out_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    better(monkeypatch)
    terms = tiny_contest.terms(tmp_path, ("none", "tplp"), trials=1, seeds=2)
    arena = tiny_contest.begun(tmp_path, terms)
    tiny_contest.tried(arena)
    standing = tiny_contest.tested(arena)
    row, none = standing.row("tplp"), standing.row("none")
    assert row is not None
    assert none is not None
    registry = Registry(arena.folder.path / "registries" / "tplp")
    left_out = 0
    for user in USERS:
        state = registry.load(user, arena.base)
        assert state is not None
        train = split(arena_history(arena.folder.data, user)).train
        left_out += len(train) - len(json.loads(state.text["items"]))
    assert row.lost["items_left_out"] == left_out > len(USERS)
    assert row.lost["tokens_left_out"] > left_out
    assert not none.lost
    page = markdown(standing)
    assert "| method | items left out | tokens left out |" in page
    assert f"| tplp | {left_out} | {row.lost['tokens_left_out']:,} |" in page


def test_a_row_is_a_folder_of_its_own() -> None:
    assert Entrant("milp, 24 trials", "milp", 24).slug == "milp-24-trials"


def arena_history(data: Path, user: str):  # type: ignore[no-untyped-def]
    return Histories.open(data).load(user)
