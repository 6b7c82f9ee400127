"""What is published is found again, by user, and forgotten with its user."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import peft
import pytest
import torch
from torch.testing import assert_close

from models.base import Base
from models.personalizer import UserState
from models.published import BaseIdentity
from models.registry import DamagedState, Registry, UnknownUser
from tests.states import (
    CONFIGURATION,
    OBJECTIVES,
    TOKENS,
    a_state,
    assert_same,
    bank_logits,
    lora,
    nothing,
    publish,
    published,
)
from tests.tiny import tiny_base, tiny_model


def test_a_published_state_is_loaded_unchanged(registry: Registry, base: Base) -> None:
    digest = publish(registry, a_state(), base)
    assert_same(registry.load("ann", base), a_state())
    found = registry.current("ann")
    assert found.digest == digest == found.folder.name
    assert found.kind == "milp"
    assert found.configuration == CONFIGURATION
    assert found.objectives == OBJECTIVES
    assert found.base == BaseIdentity("tiny-llama", base.fingerprint, "plain/1", False)
    assert found.versions["torch"] == torch.__version__


def test_publishing_the_same_again_changes_nothing(registry: Registry, base: Base) -> None:
    first = publish(registry, a_state(), base)
    before = {f: (f.stat().st_ino, f.stat().st_mtime_ns) for f in registry.folder.rglob("*.*")}
    assert publish(registry, a_state(), base) == first
    assert {
        f: (f.stat().st_ino, f.stat().st_mtime_ns) for f in registry.folder.rglob("*.*")
    } == before
    assert len(published(registry, "ann")) == 1


def test_digests_tell_contents_and_users_apart(registry: Registry, base: Base) -> None:
    digests = {
        publish(registry, a_state(), base),
        publish(registry, a_state(seed=2), base),
        publish(registry, a_state("bob"), base),
        registry.publish(a_state(), BaseIdentity.of(base), {"loss_nats": 2.4}),
    }
    assert len(digests) == 4


def test_an_earlier_state_published_again_is_the_current_one(
    registry: Registry, base: Base
) -> None:
    first, second = publish(registry, a_state(), base), publish(registry, a_state(seed=2), base)
    assert [p.digest for p in published(registry, "ann")] == [first, second]
    publish(registry, a_state(), base)
    assert [p.digest for p in published(registry, "ann")] == [second, first]
    assert_same(registry.load("ann", base), a_state())


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_peft_computes_what_the_bank_computes(tmp_path: Path, family: str) -> None:
    base, registry = tiny_base(family), Registry(tmp_path / "r")
    publish(registry, a_state(family=family), base)
    ours = bank_logits(base, registry.load("ann", base))
    wrapped = peft.PeftModel.from_pretrained(tiny_model(family), registry.current("ann").folder)
    with torch.no_grad():
        theirs = wrapped.eval()(TOKENS).logits
        merged = wrapped.merge_and_unload()(TOKENS).logits
    assert_close(ours, theirs, rtol=0, atol=2e-5)
    assert_close(ours, merged, rtol=0, atol=1e-4)
    written = json.loads((registry.current("ann").folder / "adapter_config.json").read_text())
    assert written["fan_in_fan_out"] is (family == "gpt2")
    assert (ours - bank_logits(base, None)).abs().max() > 1e-2


def test_a_user_answered_by_the_base_has_no_adapter(registry: Registry, base: Base) -> None:
    publish(registry, nothing(), base, "12 items with a query, fewer than 30")
    found = registry.current("ann")
    assert found.kind == "base"
    assert found.reason == "12 items with a query, fewer than 30"
    assert os.listdir(found.folder) == ["state.json"]
    assert registry.load("ann", base) is None
    publish(registry, nothing("bob"), base)
    assert registry.current("bob").reason == "no configuration was better than the base"


def test_other_methods_tensors_and_text_are_kept_too(registry: Registry, base: Base) -> None:
    tensors = {**lora("llama", (1,), 2, 5), "prefix": torch.randn(4, 32).bfloat16()}
    state = UserState("milp+rag", "ann", {}, tensors, {"facts": "has a döǵ\n😀"})
    publish(registry, state, base)
    assert_same(registry.load("ann", base), state)
    words = UserState("tplp", "bob", {}, {}, {"history": "word " * 500_000})
    publish(registry, words, base)
    assert_same(registry.load("bob", base), words)


STRANGE = [
    "../../etc/passwd",
    "a/b",
    "a--b",
    ".",
    "..",
    "",
    "x" * 1000,
    "Zoë 🦊",
    "a\0b\n",
    "\ud800",
]


def test_user_ids_are_data_never_paths(registry: Registry, base: Base, tmp_path: Path) -> None:
    for seed, user_id in enumerate(STRANGE):
        publish(registry, a_state(user_id, seed), base)
    assert set(registry.users()) == set(STRANGE)
    for seed, user_id in enumerate(STRANGE):
        assert user_id in registry
        assert_same(registry.load(user_id, base), a_state(user_id, seed))
    assert os.listdir(tmp_path) == ["registry"]
    assert set(os.listdir(registry.folder)) == {"locks", "states", "users"}
    for path in registry.folder.rglob("*"):
        assert not any(user_id in path.name for user_id in STRANGE if len(user_id) > 2)
    assert all(registry.forget(user_id) == 1 for user_id in STRANGE)
    assert registry.users() == []


def test_equal_looking_user_ids_are_two_users(registry: Registry, base: Base) -> None:
    publish(registry, a_state("é"), base)
    publish(registry, a_state("e\u0301", 2), base)
    assert_same(registry.load("é", base), a_state("é"))
    assert_same(registry.load("e\u0301", base), a_state("e\u0301", 2))


def test_only_the_owner_may_read(registry: Registry, base: Base, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        publish(registry, a_state(), base)
        registry.export("ann", tmp_path / "out" / "adapter")
    finally:
        os.umask(before)
    for path in [registry.folder, *registry.folder.rglob("*"), *(tmp_path / "out").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


@pytest.mark.parametrize(
    ("state", "objectives", "message"),
    [
        (a_state(), {"loss_nats": float("nan")}, "JSON can hold"),
        (UserState("milp", "ann", {"x": {1}}, {}), OBJECTIVES, "JSON can hold"),
        (UserState("milp", "ann", {"x": "y" * 2**20}, {}), OBJECTIVES, "at most 1048576 bytes"),
        (UserState("milp", "ann", {}, {"p": torch.tensor([torch.inf])}), OBJECTIVES, "finite"),
    ],
)
def test_what_could_not_be_read_again_is_not_published(
    registry: Registry, base: Base, state: UserState, objectives: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        registry.publish(state, BaseIdentity.of(base), objectives)
    assert "ann" not in registry


def test_an_unknown_user_is_said_to_be_unknown(registry: Registry, base: Base) -> None:
    publish(registry, a_state("bob"), base)
    for ask in (registry.current, registry.withdraw):
        with pytest.raises(UnknownUser, match="expected a user with a published state") as caught:
            ask("ann")
        assert "'ann'" not in str(caught.value)  # it may end in a log
    with pytest.raises(KeyError):
        registry.load("ann", base)
    assert "ann" not in registry
    assert Registry(registry.folder / "none").users() == []


def test_withdrawing_makes_the_previous_state_current(registry: Registry, base: Base) -> None:
    first = publish(registry, a_state(), base)
    publish(registry, a_state(seed=2), base)
    now = registry.withdraw("ann")
    assert now is not None
    assert now.digest == first == registry.current("ann").digest
    assert_same(registry.load("ann", base), a_state())
    assert registry.withdraw("ann") is None
    assert registry.users() == []
    with pytest.raises(UnknownUser):
        registry.load("ann", base)
    with pytest.raises(UnknownUser):
        registry.withdraw("ann")
    assert publish(registry, a_state(), base) == first
    assert [p.digest for p in published(registry, "ann")] == [first]


def test_forgetting_leaves_nothing_of_a_user(registry: Registry, base: Base) -> None:
    publish(registry, a_state(), base)
    publish(registry, a_state(seed=2), base)
    registry.withdraw("ann")
    publish(registry, a_state(seed=3), base)
    publish(registry, a_state("bob"), base)
    assert registry.forget("ann") == 3
    assert registry.users() == ["bob"]
    kept = [path for path in registry.folder.rglob("*") if path.is_file() and path.stat().st_size]
    assert {path.parent for path in kept if path.suffix == ".safetensors"} == {
        registry.current("bob").folder
    }
    assert not any(b"ann" in path.read_bytes() for path in kept if path.suffix == ".json")
    assert registry.forget("ann") == 0


def test_forgetting_finds_what_a_killed_publish_left(registry: Registry, base: Base) -> None:
    publish(registry, a_state(), base)
    folder = registry.current("ann").folder
    next((registry.folder / "users").rglob("*.json")).unlink()  # killed before the pointer
    (folder.parent / ".0123").mkdir()  # killed while writing
    (folder.parent / ".0123" / "adapter_model.safetensors").write_bytes(b"half of a memory")
    assert registry.forget("ann") == 1
    assert os.listdir(folder.parent) == []


def test_forgetting_finds_a_damaged_state_that_nothing_points_to(
    registry: Registry, base: Base
) -> None:
    publish(registry, a_state(), base)
    manifest = registry.current("ann").folder / "state.json"
    manifest.write_bytes(manifest.read_bytes() + b"\n")
    next((registry.folder / "users").rglob("*.json")).write_bytes(b"{")
    assert registry.forget("ann") == 1
    assert not manifest.exists()


def test_a_pointer_in_another_users_place_changes_nothing_of_its_own(
    registry: Registry, base: Base
) -> None:
    publish(registry, a_state(), base)
    ann = next((registry.folder / "users").rglob("*.json"))
    content = ann.read_bytes()
    publish(registry, a_state("bob"), base)
    bob = next(file for file in (registry.folder / "users").rglob("*.json") if file != ann)
    ann.write_bytes(bob.read_bytes())
    with pytest.raises(DamagedState, match="another's"):
        registry.withdraw("ann")
    assert registry.current("bob").user_id == "bob"
    assert registry.users() == ["bob"]
    ann.write_bytes(content)
    assert registry.users() == ["ann", "bob"]


def test_listing_many_users_opens_no_state(registry: Registry, base: Base) -> None:
    for i in range(30):
        publish(registry, nothing(f"user{i}"), base)
    for file in (registry.folder / "states").rglob("*.json"):
        file.write_bytes(b"unreadable")
    assert len(registry.users()) == 30
