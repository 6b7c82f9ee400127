"""What is published is found again and survives kills; what is damaged is never loaded."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import random
import signal
import stat
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import peft
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from models import peft_format
from models.base import Base
from models.milp import Milp
from models.personalizer import UserState
from models.published import BaseIdentity
from models.registry import (
    DamagedState,
    NoMemory,
    Registry,
    UnknownUser,
    WrongBase,
)
from tests.models.test_peft_format import TOKENS, lora, write
from tests.tiny import tiny_base, tiny_model

CONFIGURATION = {"layers": [0, 2], "rank": 3, "learning_rate": 5e-4}
OBJECTIVES = {"loss_nats": 2.5, "rouge_l": 0.25}


@pytest.fixture(scope="module")
def base() -> Base:
    return tiny_base()


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


def a_state(user_id: str = "ann", seed: int = 1, family: str = "llama") -> UserState:
    return UserState("milp", user_id, CONFIGURATION, lora(family, (0, 2), 3, seed))


def nothing(user_id: str = "ann") -> UserState:
    return UserState("milp", user_id, {"layers": []}, {})


def publish(registry: Registry, state: UserState, base: Base, reason: str | None = None) -> str:
    return registry.publish(state, BaseIdentity.of(base), OBJECTIVES, reason)


def assert_same(got: UserState | None, expected: UserState) -> None:
    assert got is not None
    assert got.method == expected.method
    assert got.user_id == expected.user_id
    assert got.configuration == expected.configuration
    assert got.text == expected.text
    assert set(got.tensors) == set(expected.tensors)
    for name, tensor in expected.tensors.items():
        assert_close(got.tensors[name], tensor, rtol=0, atol=0)


def bank_logits(base: Base, state: UserState | None) -> Tensor:
    with torch.no_grad(), Milp().attached(base, [state] * len(TOKENS)):
        return base.logits(base.hidden(TOKENS))


# Publishing and loading


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
    assert len(registry.history("ann")) == 1


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
    assert [p.digest for p in registry.history("ann")] == [first, second]
    publish(registry, a_state(), base)
    assert [p.digest for p in registry.history("ann")] == [second, first]
    assert_same(registry.load("ann", base), a_state())


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_peft_computes_what_the_bank_computes(tmp_path: Path, family: str) -> None:
    base, registry = tiny_base(family), Registry(tmp_path / "r")
    publish(registry, a_state(family=family), base)
    ours = bank_logits(base, registry.load("ann", base))
    wrapped = peft.PeftModel.from_pretrained(tiny_model(family), registry.current("ann").folder)
    with torch.no_grad():
        theirs = wrapped.eval()(TOKENS).logits
    assert_close(ours, theirs, rtol=0, atol=2e-5)
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


# Users


def test_an_unknown_user_is_said_to_be_unknown(registry: Registry, base: Base) -> None:
    publish(registry, a_state("bob"), base)
    for ask in (registry.current, registry.history, registry.withdraw):
        with pytest.raises(UnknownUser, match="expected a user with a published state, got 'ann'"):
            ask("ann")
    with pytest.raises(KeyError):
        registry.load("ann", base)
    assert "ann" not in registry
    assert Registry(registry.folder / "none").users() == []


def test_messages_shorten_long_user_ids(registry: Registry) -> None:
    with pytest.raises(UnknownUser) as caught:
        registry.current("x" * 1000)
    assert len(str(caught.value)) < 400


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
    assert [p.digest for p in registry.history("ann")] == [first]


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


# Damage


def flip(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json", "state.json"])
def test_any_flipped_byte_is_noticed(registry: Registry, base: Base, name: str) -> None:
    publish(registry, a_state(), base)
    file = registry.current("ann").folder / name
    whole = file.read_bytes()
    for place in random.Random(0).sample(range(len(whole)), 25):
        flip(file, place)
        with pytest.raises(DamagedState, match="publish this user's state again"):
            registry.load("ann", base)
        file.write_bytes(whole)
    assert_same(registry.load("ann", base), a_state())


def test_cut_longer_missing_and_linked_files_are_noticed(
    registry: Registry, base: Base, tmp_path: Path
) -> None:
    publish(registry, a_state(), base)
    file = registry.current("ann").folder / "adapter_model.safetensors"
    whole = file.read_bytes()
    for content in (whole[:-1], whole + b"\0", b""):
        file.write_bytes(content)
        with pytest.raises(DamagedState):
            registry.load("ann", base)
    file.unlink()
    with pytest.raises(DamagedState, match="expected a plain file, got: No such file"):
        registry.load("ann", base)
    (tmp_path / "elsewhere").write_bytes(whole)
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DamagedState):
        registry.load("ann", base)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(DamagedState):
        registry.load("ann", base)
    file.unlink()
    file.mkdir()
    with pytest.raises(DamagedState):
        registry.load("ann", base)


def test_publishing_again_repairs(registry: Registry, base: Base) -> None:
    digest = publish(registry, a_state(), base)
    flip(registry.current("ann").folder / "adapter_model.safetensors", 900)
    assert publish(registry, a_state(), base) == digest
    assert_same(registry.load("ann", base), a_state())
    pointer = next((registry.folder / "users").rglob("*.json"))
    pointer.write_text("{")
    publish(registry, a_state(), base)
    assert_same(registry.load("ann", base), a_state())


def test_a_damaged_current_state_can_be_withdrawn(registry: Registry, base: Base) -> None:
    publish(registry, a_state(), base)
    publish(registry, a_state(seed=2), base)
    flip(registry.current("ann").folder / "state.json", 5)
    registry.withdraw("ann")
    assert_same(registry.load("ann", base), a_state())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"null",
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"user_id": "ann", "current": "../../../x", "earlier": [], "withdrawn": []}',
        b'{"user_id": "ann", "current": 5, "earlier": [], "withdrawn": []}',
        b'{"user_id": "ann", "current": null, "earlier": ["x"], "withdrawn": []}',
        b'{"user_id": 7, "current": null, "earlier": [], "withdrawn": []}',
        b'{"user_id": "ann", "current": null}',
        b" " * (2 << 20),
    ],
)
def test_a_damaged_pointer_hides_nobody_else(
    registry: Registry, base: Base, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    publish(registry, a_state(), base)
    pointer = next((registry.folder / "users").rglob("*.json"))
    publish(registry, a_state("bob"), base)
    pointer.write_bytes(content)
    with pytest.raises(DamagedState):
        registry.load("ann", base)
    assert registry.users() == ["bob"]
    assert pointer.name in caplog.text
    assert "ann" not in caplog.text
    assert registry.forget("ann") == 1


def test_a_pointer_to_somebody_elses_state_is_refused(registry: Registry, base: Base) -> None:
    publish(registry, a_state("ann"), base)
    publish(registry, a_state("bob"), base)
    ann, bob = registry.current("ann"), registry.current("bob")
    bob.folder.rename(ann.folder.parent / bob.digest)
    for pointer in (registry.folder / "users").rglob("*.json"):
        value = json.loads(pointer.read_text())
        pointer.write_text(json.dumps({**value, "current": bob.digest}))
    with pytest.raises(DamagedState, match="another's"):
        registry.load("ann", base)


def test_another_base_is_refused(registry: Registry, base: Base) -> None:
    publish(registry, a_state(), base)
    publish(registry, nothing("bob"), base)
    other = tiny_base(seed=1)
    assert other.fingerprint != base.fingerprint
    for user_id in ("ann", "bob"):
        with pytest.raises(WrongBase, match=f"{base.fingerprint[:12]}.*got 'tiny-llama'"):
            registry.load(user_id, other)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("model.layers.9.mlp.up_proj", (32, 48), "expected feed-forward matrices of the base"),
        ("model.layers.0.self_attn.q_proj", (32, 32), "expected feed-forward matrices of the base"),
        ("model.layers.0.mlp.up_proj", (31, 48), "expected 32 features"),
        ("model.layers.0.mlp.up_proj", (32, 47), "expected 48 features"),
    ],
)
def test_a_tensor_without_its_place_is_an_error(
    registry: Registry, base: Base, name: str, shape: tuple[int, int], message: str
) -> None:
    a_RI, b_OR = torch.ones(2, shape[0]), torch.ones(shape[1], 2)
    tensors = {f"{name}.lora_A.weight": a_RI, f"{name}.lora_B.weight": b_OR}
    publish(registry, UserState("milp", "ann", {}, tensors), base)
    with pytest.raises(DamagedState, match=message):
        registry.load("ann", base)


def test_errors_survive_pickling() -> None:
    for error in (UnknownUser("a"), WrongBase("b"), DamagedState("c"), NoMemory("d")):
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error)
        assert str(again) == str(error) in "abcd"


# Export


def test_an_export_is_a_plain_adapter_without_the_user(
    registry: Registry, base: Base, tmp_path: Path
) -> None:
    publish(registry, a_state("ann@home"), base)
    registry.export("ann@home", tmp_path / "new" / "adapter")
    files = sorted((tmp_path / "new" / "adapter").iterdir())
    assert [f.name for f in files] == ["adapter_config.json", "adapter_model.safetensors"]
    assert not any(b"ann@home" in f.read_bytes() for f in files)
    wrapped = peft.PeftModel.from_pretrained(tiny_model(), tmp_path / "new" / "adapter")
    with torch.no_grad():
        theirs = wrapped.eval()(TOKENS).logits
    assert_close(theirs, bank_logits(base, a_state("ann@home")), rtol=0, atol=2e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("with_memory", [True, False])
def test_onto_the_original_base_the_population_is_added(
    tmp_path: Path, family: str, with_memory: bool
) -> None:
    fan = family == "gpt2"
    shared = lora(family, (0, 1, 2, 3), 5, 9)
    population = write(tmp_path / "population", shared, fan)
    model = tiny_model(family)
    for name in {n.rsplit(".lora_", 1)[0] for n in shared}:
        delta = shared[f"{name}.lora_B.weight"] @ shared[f"{name}.lora_A.weight"]
        model.get_submodule(name).weight.data += delta.T if fan else delta
    merged = Base.wrap("merged", model, tiny_base(family).tokenizer)
    registry = Registry(tmp_path / "registry")
    state = a_state(family=family) if with_memory else nothing()
    publish(registry, state, merged)
    registry.export("ann", tmp_path / "out", "original", population)
    wrapped = peft.PeftModel.from_pretrained(tiny_model(family), tmp_path / "out")
    with torch.no_grad():
        got = wrapped.eval()(TOKENS).logits
    expected = bank_logits(merged, state)
    assert_close(got, expected, rtol=0, atol=1e-4)
    assert (expected - tiny_base(family).logits(tiny_base(family).hidden(TOKENS))).abs().max() > 0.1
    written = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert written["r"] == written["lora_alpha"] == (8 if with_memory else 5)
    assert written["base_model_name_or_path"] == "tiny"


def test_nothing_to_export_is_said_with_its_reason(
    registry: Registry, base: Base, tmp_path: Path
) -> None:
    publish(registry, nothing(), base, "only 12 items")
    for onto in ("searched", "original"):
        with pytest.raises(NoMemory, match="answered by the base: only 12 items"):
            registry.export("ann", tmp_path / "out", onto)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_exports_overwrite_nothing(registry: Registry, base: Base, tmp_path: Path) -> None:
    publish(registry, a_state(), base)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="new or empty folder"):
        registry.export("ann", tmp_path / "full")
    (tmp_path / "empty").mkdir()
    registry.export("ann", tmp_path / "empty")
    assert len(os.listdir(tmp_path / "empty")) == 2
    assert sorted(os.listdir(tmp_path)) == ["empty", "full", "registry"]


def test_only_a_lora_can_be_exported(registry: Registry, base: Base, tmp_path: Path) -> None:
    publish(registry, UserState("milp+rag", "ann", {}, a_state().tensors, {"facts": "x"}), base)
    with pytest.raises(
        ValueError, match=r"a LoRA alone, got one of method milp\+rag with text.json"
    ):
        registry.export("ann", tmp_path / "out")


def test_a_damaged_state_is_not_exported(registry: Registry, base: Base, tmp_path: Path) -> None:
    publish(registry, a_state(), base)
    flip(registry.current("ann").folder / "adapter_model.safetensors", 900)
    with pytest.raises(DamagedState):
        registry.export("ann", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# Several writers, and kills


def test_threads_publish_the_same_users_at_once(registry: Registry, base: Base) -> None:
    errors: list[Exception] = []

    def work(worker: int) -> None:
        try:
            for i in range(6):
                publish(registry, a_state(f"user{i % 3}", 10 * worker + i), base)
                registry.load(f"user{i % 3}", base)
        except (ValueError, OSError, KeyError) as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    # No update of a pointer was lost: every state of every thread is in some history.
    assert sum(len(registry.history(f"user{i}")) for i in range(3)) == 24


PUBLISHER = """
import sys, torch
from models.personalizer import UserState
from models.registry import BaseIdentity, Registry
registry = Registry(sys.argv[1])
step = 0
while True:
    a_RI, b_OR = torch.full((4, 20000), float(step)), torch.ones(8, 4)
    tensors = {"m.lora_A.weight": a_RI, "m.lora_B.weight": b_OR}
    state = UserState("milp", f"user{step % 3}", {}, tensors)
    registry.publish(state, BaseIdentity("b", "f", "p"), {})
    print(step, flush=True)
    step += 1
"""


@pytest.fixture
def publishing(registry: Registry) -> Iterator[subprocess.Popen[str]]:
    """A process that publishes in a loop and prints what is done."""
    process = subprocess.Popen(
        [sys.executable, "-c", PUBLISHER, str(registry.folder)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    yield process
    process.kill()
    process.wait()


def test_a_kill_at_any_moment_loses_nothing_published(
    registry: Registry, publishing: subprocess.Popen[str], base: Base
) -> None:
    assert publishing.stdout is not None
    draw = random.Random(os.getpid())  # a different moment in every run
    for line in publishing.stdout:
        if int(line) >= 10:
            break
    time.sleep(draw.random() * 0.2)
    publishing.send_signal(signal.SIGKILL)
    done = [int(line) for line in publishing.stdout]
    last = done[-1] if done else 10
    assert registry.users() == ["user0", "user1", "user2"]
    for user in range(3):
        states = registry.history(f"user{user}")  # every one is checked
        expected = last - (last - user) % 3  # the last one that was reported
        adapters = [peft_format.read_adapter(published.folder)[0] for published in states]
        loaded = {int(adapter["m.lora_A.weight"][0, 0]) for adapter in adapters}
        assert {s for s in range(expected + 1) if s % 3 == user} <= loaded
    # The next writer takes the killed one's lock and sweeps what it left.
    for user in range(3):
        publish(registry, a_state(f"user{user}"), base)
        assert_same(registry.load(f"user{user}", base), a_state(f"user{user}"))
    assert not list(registry.folder.rglob(".*"))


def told(words: str) -> UserState:
    """A state without tensors: torch is not for forked processes."""
    return UserState("tplp", "ann", {}, {}, {"history": words})


def killed_before(durable_step: int, registry: Registry, base: Base) -> bool:
    """Publishes in a process that dies before its n-th flush or rename; whether it died."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside threads, from Python 3.12
        child = os.fork()
    if child == 0:
        steps = itertools.count()

        def fatal(real: Callable[..., None]) -> Callable[..., None]:
            def step(*arguments: object) -> None:
                if next(steps) == durable_step:
                    os.kill(os.getpid(), signal.SIGKILL)
                real(*arguments)

            return step

        os.fsync, os.rename, os.replace = map(fatal, (os.fsync, os.rename, os.replace))
        publish(registry, told("new"), base)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_a_kill_before_each_flush_and_rename(tmp_path: Path, base: Base) -> None:
    seen = []
    for step in itertools.count():
        registry = Registry(tmp_path / str(step))
        old = publish(registry, told("old"), base)
        if not killed_before(step, registry, base):
            break
        state = registry.load("ann", base)
        assert state is not None
        seen.append(state.text["history"])
        leftovers = len(list(registry.folder.rglob("*")))
        publish(registry, told("old"), base)
        assert not list(registry.folder.rglob(".*"))
        assert registry.current("ann").digest == old
        assert len(list(registry.folder.rglob("*"))) <= leftovers
        assert registry.forget("ann") >= 1
        assert not list((registry.folder / "states").rglob("*.*"))
    # Two files, their folder, its rename, its parent; the pointer, its rename, its parent.
    assert seen[0] == "old"
    assert seen == sorted(seen, reverse=True)  # from some step on the new one, never neither
    assert seen[-1] == "new"
    assert len(seen) == 8


def test_a_failed_write_leaves_nothing_behind(
    registry: Registry, base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(registry, a_state(), base)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            publish(registry, a_state(seed=2), base)
    assert not list(registry.folder.rglob(".*"))
    assert_same(registry.load("ann", base), a_state())


def test_listing_many_users_opens_no_state(registry: Registry, base: Base) -> None:
    for i in range(30):
        publish(registry, nothing(f"user{i}"), base)
    for file in (registry.folder / "states").rglob("*.json"):
        file.write_bytes(b"unreadable")
    assert len(registry.users()) == 30
