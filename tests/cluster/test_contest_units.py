"""Units of a comparison without Ray, under methods that are made up here."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import pytest
import torch

from cluster import trainings
from cluster.arena import ArenaSettings
from cluster.burden import extra_tokens
from cluster.entrant import Entrant
from cluster.standing_text import markdown
from cluster.station import Broken, Station, done
from cluster.tuning import best_of
from cluster.unit import Unit, told
from models import catalog
from models.base import Base
from models.fitting import ReadFitting
from models.history import Histories, Interaction, split
from models.options import Options, Space
from models.parts import Parts
from models.personalizer import (
    Configuration,
    Framed,
    Person,
    Shared,
    Task,
    UserState,
)
from models.prompt_tuning import PromptTuning
from models.registry import Registry
from tests.cluster import tiny_contest
from tests.cluster.tiny_contest import CODE, USERS
from tests.tiny import save_tiny_base, tiny_base

WORDS = "please answer as I would"


class Hint:
    """A method that reads: it puts the same words before every query, and two soft tokens."""

    name = "hint"
    space: Space = MappingProxyType({"soft_tokens": (2, 0)})
    read: ClassVar[list[Task]] = []
    prompts: ClassVar[list[str]] = []

    def learn(
        self, base: Base, people: Sequence[Person], configuration: Configuration, seed: int
    ) -> Shared | None:
        return None

    def start(self, base: Base) -> ReadFitting:
        return ReadFitting(self._state)

    def frame(self, base: Base, state: UserState | None, query: str) -> Framed:
        assert state is not None
        self.prompts.append(query)
        return Framed(f"{WORDS} {query}", len(state.tensors.get("soft", ())))

    def parts(
        self, base: Base, states: Sequence[UserState], prompts: Sequence[Sequence[int]] | None
    ) -> list[Parts]:
        return [Parts(soft=state.tensors.get("soft")) for state in states]

    def _state(self, task: Task) -> UserState:
        self.read.append(task)
        assert isinstance(task.configuration, Options)
        count = task.configuration.whole("soft_tokens")
        tensors = {"soft": torch.full((count, 32), 0.1)} if count else {}
        text = {"words": WORDS}
        shared = task.shared
        told = task.configuration.to_json()
        return UserState(self.name, task.user_id, told, tensors, text, shared)


class Sharing(Hint):
    """It learns something of others first."""

    name = "sharing"
    learned: ClassVar[list[tuple[Sequence[Person], str, int]]] = []

    def learn(
        self, base: Base, people: Sequence[Person], configuration: Configuration, seed: int
    ) -> Shared | None:
        told = str(dict(configuration.to_json()))
        self.learned.append((people, told, seed))
        tensor = torch.full((3, 5), float(len(people)))
        return Shared(self.name, configuration.to_json(), {"shared": tensor})


class Needy(Hint):
    """It can't learn from so few."""

    name = "needy"

    def learn(
        self, base: Base, people: Sequence[Person], configuration: Configuration, seed: int
    ) -> Shared | None:
        raise ValueError(f"expected at least 99 other users, got {len(people)}")


class Choosy(Hint):
    """It fails for one user."""

    name = "choosy"

    def _state(self, task: Task) -> UserState:
        if task.user_id == USERS[0]:
            raise ValueError(task.train[0].response)
        return super()._state(task)


class Wide(PromptTuning):
    """Its soft tokens are more than half of what the base reads."""

    name = "wide"
    space = MappingProxyType({"tokens": (65, 80), "learning_rate": (1e-2,)})


class Faulty(Hint):
    """It has a fault that quotes the user."""

    name = "faulty"

    def _state(self, task: Task) -> UserState:
        raise KeyError(task.train[0].response)


@pytest.fixture(autouse=True)
def methods(monkeypatch: pytest.MonkeyPatch) -> None:
    for method in (Hint, Sharing, Needy, Choosy, Wide, Faulty):
        monkeypatch.setitem(catalog.PERSONALIZERS, method.name, method)
    Hint.read.clear()
    Hint.prompts.clear()
    Sharing.learned.clear()


def better(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets every user's first trial that has a loss be the best, so that states are tested."""
    monkeypatch.setattr("cluster.tuning.best_of", _first_with_a_loss)
    monkeypatch.setattr("cluster.finals.settled", lambda arena, states: dict(states))


def _first_with_a_loss(bare, trials):  # type: ignore[no-untyped-def]
    users = {
        digest: {**own, "loss_nats": math.inf if own["loss_nats"] is not None else None}
        for digest, own in bare["users"].items()
    }
    return best_of({"users": users}, trials[:1])


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


@pytest.mark.parametrize("what", ["tensors", "outcome"])
def test_a_damaged_shared_part_breaks_the_unit_off_and_is_tried_again_once_mended(
    tmp_path: Path, what: str
) -> None:
    terms = tiny_contest.terms(tmp_path, ("none", "sharing"), trials=1, seeds=1)
    arena = tiny_contest.begun(tmp_path, terms)
    done(arena, Unit("bare"))
    trial = Unit("trial", "sharing")
    done(arena, trial)
    before = arena.units.read(trial)["users"]
    (arena.units.folder / f"{trial.name}.json").unlink()  # as if it had been killed just before
    unit = next(each["unit"] for each in arena.units.every() if each["unit"]["kind"] == "shared")
    outcome = arena.units.folder / f"{Unit(**unit).name}.json"
    (tensors,) = (arena.folder.path / "shared").glob("*/tensors.safetensors")
    file = tensors if what == "tensors" else outcome
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + b"?")
    settings = ArenaSettings(arena.folder.path, terms.base, terms, "cpu", 1)
    station = Station(settings, str(tmp_path / "station-0.log"))
    with pytest.raises(Broken, match=f"what sharing shares can't be read: .*{file.name}") as broken:
        station.do(trial)
    assert f"remove {outcome}, and it is learned again" in str(broken.value)
    assert trial not in arena.units
    file.write_bytes(whole)
    station.do(trial)
    assert arena.units.read(trial)["users"] == before
    assert len(Sharing.learned) == 1
    # Or what was said is done: it is learned again, and the damaged one is replaced.
    (arena.units.folder / f"{trial.name}.json").unlink()
    file.write_bytes(whole[:-1] + b"?")
    outcome.unlink()
    station.do(trial)
    assert arena.units.read(trial)["users"] == before
    assert len(Sharing.learned) == 2
    assert tensors.read_bytes() == (whole if file == tensors else tensors.read_bytes())


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
    monkeypatch.setattr("cluster.tuning.best_of", _first_with_a_loss)
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


def test_a_fault_ends_its_unit_without_a_word_of_the_user(tmp_path: Path) -> None:
    terms = tiny_contest.terms(tmp_path, ("none", "faulty"))
    arena = tiny_contest.begun(tmp_path, terms)
    done(arena, Unit("bare"))
    log = tmp_path / "station-0.log"
    station = Station(ArenaSettings(arena.folder.path, terms.base, terms, "cpu", 1), str(log))
    with pytest.raises(Broken, match=r"KeyError in test_contest_units\.py") as broken:
        station.do(Unit("trial", "faulty"))
    response = Faulty.read  # nothing was read
    assert response == []
    for text in (str(broken.value), log.read_text()):
        assert "I like" not in text
        assert not any(user in text for user in USERS)
    assert Unit("trial", "faulty") not in arena.units


def test_the_same_unit_in_another_process_is_the_same(tmp_path: Path) -> None:
    terms = tiny_contest.terms(tmp_path, ("none", "milp"), trials=2, seeds=1)
    arena = tiny_contest.begun(tmp_path, terms)
    done(arena, Unit("bare"))
    unit = Unit("trial", "milp")
    done(arena, unit)
    first = arena.units.read(unit)["users"]
    (arena.units.folder / f"{unit.name}.json").unlink()
    done(arena, unit)
    assert arena.units.read(unit)["users"] == first


def test_a_unit_that_was_killed_before_its_outcome_was_kept_is_done_again_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    better(monkeypatch)
    terms = tiny_contest.terms(tmp_path, ("none", "milp", "sharing"), trials=1, seeds=1)
    arena = tiny_contest.begun(tmp_path, terms)
    tiny_contest.tried(arena)
    for method in ("milp", "sharing"):
        unit, registry = Unit("final", method), Registry(tmp_path / "out" / "registries" / method)
        with monkeypatch.context() as patch:
            patch.setattr(type(arena.units), "write", _killed)
            with pytest.raises(KeyboardInterrupt):
                done(arena, unit)
        assert unit not in arena.units
        digests = [registry.current(user).digest for user in USERS]  # its states are there already
        done(arena, unit)
        assert [registry.current(user).digest for user in USERS] == digests
        outcome = arena.units.read(unit)
        for user in arena.users:
            folder = registry.current(user.user_id).folder
            size = sum(file.stat().st_size for file in folder.iterdir())
            assert outcome["stored_bytes"][user.digest] == size


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_damaged_outcome_is_named(tmp_path: Path) -> None:
    arena = tiny_contest.begun(tmp_path, tiny_contest.terms(tmp_path))
    done(arena, Unit("bare"))
    file = arena.units.folder / f"{Unit('bare').name}.json"
    other = json.dumps({"unit": {"kind": "bare", "number": 9}})
    for damaged in ("{", "[]", "{}", '{"unit": {"sort": "bare"}}', other):
        file.write_text(damaged)
        named = f"{file.name}: .* remove the file, and it is done again"
        with pytest.raises(ValueError, match=named):
            arena.units.read(Unit("bare"))
        with pytest.raises(ValueError, match=named):
            arena.units.every()


def test_a_row_is_a_folder_of_its_own() -> None:
    assert Entrant("milp, 24 trials", "milp", 24).slug == "milp-24-trials"


def arena_history(data: Path, user: str):  # type: ignore[no-untyped-def]
    return Histories.open(data).load(user)
