"""Trials and packers in processes of their own: some silent, some without a device.

What a packer drives here breaks when it is told to, and works again in a new process
(`frail.py`).
"""

from __future__ import annotations

import io
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import RayActorError
from rich.console import Console

from cluster import trial
from cluster.budget import Rules
from cluster.connection import connected
from cluster.controllers import Controllers
from cluster.packer import start_packer
from cluster.progress import Progress
from cluster.schedule import Schedule
from cluster.shard import ShardPlan
from cluster.studies import SearchPlan
from cluster.trial import NOBODY, Event, Trial, choose, pair
from search.samplers import SamplerSettings
from search.space import SearchSpace
from search.storage import sqlite_url
from tests.cluster.frail import CONFIG, WORDS, Frail

PACKERS = 3
BOTH, (THIRD,) = pair("task", PACKERS), set(range(PACKERS)) - set(pair("task", PACKERS))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Three packers; the folder of their logs."""
    logs = tmp_path_factory.mktemp("logs")
    with connected(None, PACKERS, "trial", lambda _: None, 1e6):
        handles = [start_packer(i, Frail, logs, {}) for i in range(PACKERS)]
        ray.get([one.call.remote("pid") for one in handles])
        yield logs


def called(packer: int, method: str, *arguments: str) -> Any:
    """What a method of a packer's bench gives, once there is one."""
    handle = ray.get_actor(trial.PACKER_NAME.format(packer))
    while True:
        try:
            return ray.get(handle.call.remote(method, *arguments))
        except RayActorError:  # it is being started again
            time.sleep(0.2)


@contextmanager
def silent(packers: Sequence[int]) -> Iterator[Callable[[], None]]:
    """These packers answer nothing meanwhile, as if their machines were gone; or until then."""
    processes = [called(i, "pid") for i in packers]

    def go_on() -> None:
        for process in processes:
            os.kill(process, signal.SIGCONT)

    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield go_on
    finally:
        go_on()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who doesn't answer soon is passed over. On a busy machine that may be anybody."""
    monkeypatch.setattr(trial, "ANSWER_SECONDS", 2.0)


@pytest.mark.usefixtures("place")
def test_where_all_answer_it_is_one_of_two_drawn() -> None:
    number, handle = choose("task", PACKERS)
    assert number in BOTH
    assert ray.get(handle.call.remote("pid")) == called(number, "pid")


@pytest.mark.parametrize("one", BOTH)
@pytest.mark.usefixtures("place", "impatient")
def test_a_packer_that_does_not_answer_is_passed_over(one: int) -> None:
    with silent([one]):
        assert choose("task", PACKERS)[0] != one


@pytest.mark.usefixtures("place", "impatient")
def test_where_neither_of_two_answers_another_is_taken() -> None:
    with silent(BOTH):
        assert choose("task", PACKERS)[0] == THIRD


@pytest.mark.usefixtures("place", "impatient")
def test_where_none_answers_it_is_said_and_waited_for() -> None:
    said: list[str] = []
    with silent(range(PACKERS)) as go_on:

        def say(text: str) -> None:
            said.append(text)
            go_on()

        assert choose("task", PACKERS, say)[0] in range(PACKERS)
    assert said[0] == NOBODY
    assert said[-1] == "a packer can work again"


@pytest.mark.usefixtures("place", "impatient")
def test_a_driver_that_hears_nothing_for_long_says_so_if_no_packer_answers(tmp_path: Path) -> None:
    space = SearchSpace(4, (4, 8), (1e-3, 1e-2))
    search = SearchPlan(
        sqlite_url(tmp_path / "studies.db"),
        space,
        (10,) * 4,
        SamplerSettings("random", 2),
        Rules(3),
    )
    shown = io.StringIO()
    plan = ShardPlan("all", {"aaaa": 1}, search, tmp_path, PACKERS, 2)
    schedule = Schedule(plan, Controllers(()), Progress(Console(file=shown), 3))
    said = []
    for quiet in ((), range(PACKERS)):
        schedule._heard_at = -math.inf
        with silent(quiet):
            assert schedule._watched([]) == []
        said.append(shown.getvalue())
    assert said[0] == ""
    assert NOBODY in said[1]


def tried(user: str, attempts: int) -> list[Event]:
    """The last event of each attempt at a trial of a user's, until one is not lost."""
    ends: list[Event] = []
    for i in range(attempts):
        task = Trial({
            "user": user, "key": f"{CONFIG.key}-{i}", "configuration": CONFIG.to_json(),
            "seed": i, "packers": PACKERS, "checkpoints": True,
        })  # fmt: skip
        while not (event := task.step())["done"]:
            pass
        ends.append(event)
        if not event.get("lost"):
            break
    return ends


@pytest.mark.parametrize("where", ["add", "train", "score"])
def test_a_packer_whose_device_died_ends_and_its_trial_is_not_told_failed(
    place: Path, where: str
) -> None:
    before = [called(i, "pid") for i in range(PACKERS)]
    for i in range(PACKERS):
        called(i, "fail_at", where)
    *lost, end = tried(where, PACKERS + 1)  # a packer keeps the ends of earlier trials
    assert lost
    assert all(one == {"lost": True, "done": True} for one in lost)
    assert "error" not in end
    assert end["rouge_l"] == 0.5
    assert called(end["packer"], "pid") not in before
    logs = "".join(file.read_text() for file in place.glob("packer-*.log"))
    assert "the device answers no more" in logs
    assert WORDS not in logs
    for i in range(PACKERS):
        called(i, "fail_at", "")
