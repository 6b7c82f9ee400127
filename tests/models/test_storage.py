"""Several writers, kills at any moment, full disks: what was published stays whole."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from models import peft_format
from models.base import Base
from models.personalizer import UserState
from models.registry import Registry
from tests.states import a_state, assert_same, publish, published


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
    assert sum(len(published(registry, f"user{i}")) for i in range(3)) == 24


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
        states = published(registry, f"user{user}")  # every one is checked
        expected = last - (last - user) % 3  # the last one that was reported
        adapters = [peft_format.read_adapter(state.folder)[0] for state in states]
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

        def fatal(real: Any) -> Callable[..., None]:
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
