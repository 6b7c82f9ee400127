"""States come from the registry as it is now, and the least recently used ones go first."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from models.base import Base
from models.personalizer import UserState
from models.registry import BaseIdentity, Registry, UnknownUser, WrongBase
from serve.memories import Memories, UnusableError
from tests.serve.people import NOBODY, PLACES, publish, state_of, states
from tests.tiny import tiny_base


@pytest.fixture
def registry(tmp_path: Path, base: Base) -> Registry:
    return publish(tmp_path / "registry", base)


def bytes_of(base: Base, *user_ids: str) -> int:
    known = states(base)
    return sum(
        tensor.numel() * tensor.element_size()
        for user_id in user_ids
        for tensor in known[user_id].tensors.values()
    )


def test_each_user_gets_their_own_state_and_digest(registry: Registry, base: Base) -> None:
    memories = Memories(registry, base, 1 << 30)
    for user_id in PLACES:
        served = memories.get(user_id)
        assert served.state is not None
        assert served.state.user_id == user_id
        assert served.digest == registry.current(user_id).digest
        assert memories.get(user_id).state is served.state
    assert sorted(memories.kept()) == sorted(PLACES)
    assert memories.size_bytes == bytes_of(base, *PLACES)


def test_a_user_of_kind_base_has_no_memory(registry: Registry, base: Base) -> None:
    served = Memories(registry, base, 1 << 30).get(NOBODY)
    assert (served.state, served.digest) == (None, None)


def test_the_least_recently_used_goes_first(registry: Registry, base: Base) -> None:
    memories = Memories(registry, base, bytes_of(base, *PLACES) - 1)
    ada, bob, third = PLACES
    kept = memories.get(ada).state
    memories.get(bob)
    memories.get(ada)
    memories.get(third)
    assert memories.kept() == [ada, third]
    assert memories.size_bytes == bytes_of(base, ada, third)
    assert memories.get(ada).state is kept


def test_a_state_larger_than_the_room_is_served_and_not_kept(
    registry: Registry, base: Base
) -> None:
    memories = Memories(registry, base, 10)
    assert memories.get("ada").state is not None
    assert (memories.kept(), memories.size_bytes) == ([], 0)


def test_what_is_published_or_taken_back_counts_at_once(registry: Registry, base: Base) -> None:
    memories = Memories(registry, base, 1 << 30)
    before = memories.get("ada")
    newer = state_of(base, "ada", PLACES["ada"], 77)
    digest = registry.publish(newer, BaseIdentity.of(base), {"loss": 0.5})
    after = memories.get("ada")
    assert after.digest == digest != before.digest
    assert memories.size_bytes == bytes_of(base, "ada")
    registry.withdraw("ada")
    assert memories.get("ada").digest == before.digest
    registry.withdraw("ada")
    with pytest.raises(UnknownUser):
        memories.get("ada")
    assert "ada" not in memories.users()


def test_who_is_forgotten_does_not_stay_in_memory(registry: Registry, base: Base) -> None:
    memories = Memories(registry, base, 1 << 30)
    memories.get("ada")
    registry.forget("ada")
    with pytest.raises(UnknownUser):
        memories.get("ada")
    assert memories.kept() == []
    assert memories.size_bytes == 0


def test_an_unknown_user_is_unknown(registry: Registry, base: Base) -> None:
    with pytest.raises(UnknownUser):
        Memories(registry, base, 1 << 30).get("../ada")


def test_a_damaged_state_is_refused_not_answered_by_the_base(
    registry: Registry, base: Base
) -> None:
    file = registry.current("ada").folder / "adapter_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    memories = Memories(registry, base, 1 << 30)
    with pytest.raises(UnusableError, match="damaged"):
        memories.get("ada")
    assert memories.get("bob").state is not None


def test_states_of_another_base_are_refused(registry: Registry, base: Base) -> None:
    other = tiny_base(seed=1)
    memories = Memories(registry, other, 1 << 30)
    for user_id in ("ada", NOBODY):
        with pytest.raises(UnusableError, match="another base"):
            memories.get(user_id)
    with pytest.raises(WrongBase, match="tiny-llama") as raised:
        memories.check()
    assert not any(user_id in str(raised.value) for user_id in registry.users())  # it is logged
    registry.publish(state_of(other, "zoe", PLACES["ada"], 5), BaseIdentity.of(other), {})
    memories.check()
    assert memories.get("zoe").state is not None


def test_one_damaged_user_does_not_keep_the_others_from_being_served(
    registry: Registry, base: Base
) -> None:
    for user_id in registry.users()[:-1]:
        (registry.current(user_id).folder / "state.json").write_text("{}")
    memories = Memories(registry, base, 1 << 30)
    memories.check()
    assert memories.get(memories.users()[-1]) is not None
    (registry.current(registry.users()[-1]).folder / "state.json").write_text("{}")
    memories.check()


def test_an_empty_registry_is_no_mistake(tmp_path: Path, base: Base) -> None:
    memories = Memories(Registry(tmp_path / "empty"), base, 1 << 30)
    memories.check()
    assert memories.users() == []


def test_many_threads_at_once_load_a_state_once(registry: Registry, base: Base) -> None:
    memories = Memories(registry, base, 1 << 30)
    got: list[object] = []
    threads = [
        threading.Thread(target=lambda: got.append(memories.get("ada").state)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 8
    assert len(set(map(id, got))) == 1


def test_text_counts_as_tensors_do(tmp_path: Path, base: Base) -> None:
    registry = Registry(tmp_path)
    for user_id in ("ada", "bob", "cat"):
        text = {"items": json.dumps([user_id * 50, "ü" * 50])}
        registry.publish(UserState("rag", user_id, {}, {}, text), BaseIdentity.of(base), {})
    memories = Memories(registry, base, 1000)
    for user_id in ("ada", "bob", "cat"):
        assert memories.get(user_id).state is not None
    assert memories.kept() == ["bob", "cat"]
    assert memories.size_bytes == 2 * len(json.dumps(["ada" * 50, "ü" * 50]).encode())
