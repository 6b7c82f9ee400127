"""What a method shares: from whom it is learned, kept once on disk, named by many states."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.history import History
from models.personalizer import Shared, UserState
from models.population import PopulationSettings, sample
from models.published import BaseIdentity, NoMemory
from models.registry import Registry
from models.sharing import FEWEST, READ_SHARE, get, people, put, require
from models.storage import DamagedState
from tests.states import flip
from tests.tiny import tiny_base, tiny_interactions

SHARED = Shared("e2p", {"learning_rate": 1e-3}, {"projection": torch.ones(3, 4)})


def histories(count: int, items: int = 20) -> list[History]:
    names = [f"user{i}" for i in range(count)]
    return [History(name, tuple(tiny_interactions(name, items))) for name in names]


def test_people_are_read_before_they_are_answered_and_never_in_closed_sessions() -> None:
    known = histories(6)
    closed = {"user0-9", "user1-0"}
    found = people(known, closed, 4, 3, seed=1)
    assert len(found) == len({person.user_id for person in found}) == 4
    for person in found:
        assert len(person.pairs) == 3
        assert max(i.time for i in person.history) < min(i.time for i in person.pairs)
        assert not closed & {i.session for i in (*person.history, *person.pairs)}
    assert found == people(known, closed, 4, 3, seed=1)
    assert {p.user_id for p in people(known, closed, 9, 3, seed=1)} == {h.user_id for h in known}


def test_a_population_of_what_people_read_was_shown_nothing_that_they_answer() -> None:
    known, closed = histories(6), {"user0-9"}
    answered = {pair for person in people(known, closed, 9, 99, seed=1) for pair in person.pairs}
    assert answered
    settings = PopulationSettings(share=READ_SHARE)
    assert not answered & set(sample(known, closed, settings))
    assert answered <= set(sample(known, closed, PopulationSettings()))


def test_who_has_too_little_is_nobody_to_learn_from() -> None:
    short = histories(3, items=FEWEST)
    assert people(short, set(), 9, 3, seed=0) == []
    with pytest.raises(ValueError, match=r"at least 2 other users .* from whom pplug .* got 0"):
        require([], 2, "pplug")


def test_a_shared_part_is_kept_once_and_comes_back_with_each_state(tmp_path: Path) -> None:
    registry, base = Registry(tmp_path), tiny_base()
    for user in ("ann", "bob"):
        vector = {"vector": torch.full((4,), float(len(user)))}
        state = UserState("e2p", user, {}, vector, {}, SHARED)
        registry.publish(state, BaseIdentity.of(base), {})
    assert len(list((tmp_path / "shared").iterdir())) == 1
    fresh = Registry(tmp_path)
    ann, bob = fresh.load("ann", base), fresh.load("bob", base)
    assert ann is not None
    assert bob is not None
    assert ann.shared is bob.shared
    assert ann.shared is not None
    assert (ann.shared.method, ann.shared.configuration) == (SHARED.method, SHARED.configuration)
    assert torch.equal(ann.shared.tensors["projection"], SHARED.tensors["projection"])
    with pytest.raises((ValueError, NoMemory)):
        fresh.export("ann", tmp_path / "adapter")


def test_a_damaged_or_missing_shared_part_is_never_used(tmp_path: Path) -> None:
    digest = put(tmp_path / "shared", SHARED)
    assert torch.equal(get(tmp_path / "shared", digest).tensors["projection"], torch.ones(3, 4))
    flip(tmp_path / "shared" / digest / "tensors.safetensors", -1)
    with pytest.raises(DamagedState):
        get(tmp_path / "shared", digest)
    for name in ("0" * 64, "../../x"):
        with pytest.raises(DamagedState):
            get(tmp_path / "shared", name)
