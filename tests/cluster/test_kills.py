"""Kills at random moments, of every kind of process: nothing lost, none repeated."""

from __future__ import annotations

import random
import time
from collections import Counter
from functools import partial
from pathlib import Path

import psutil
import pytest

from cluster.results import load
from tests.cluster import tiny_run
from tests.cluster.tiny_run import USERS, Driver

KILLS = 12
TRIALS = 40
IS_ONE = {
    "packer": tiny_run.is_packer,
    "trial": tiny_run.is_trial,
    "controller": tiny_run.is_controller,
}


def victims(driver: Driver, kind: str) -> list[psutil.Process]:
    """Processes of a kind; none while there are none."""
    if kind == "driver":
        return [psutil.Process(driver.process.pid)]
    return [process for process in driver.workers() if IS_ONE[kind](process)]


@pytest.mark.long
@pytest.mark.timeout(5400)
@pytest.mark.parametrize("seed", [0])
def test_kills_lose_no_finished_trial_and_repeat_none(tmp_path: Path, seed: int) -> None:
    data, base = tiny_run.write_data(tmp_path), tiny_run.write_base(tmp_path)
    run, draw = tmp_path / "run", random.Random(seed)
    words = tiny_run.command(data, base, run, trials=TRIALS, sampler="gp")
    kinds = [kind for kind in ("driver", *IS_ONE) for _ in range(KILLS // 4)]
    draw.shuffle(kinds)
    known: dict[tuple[str, int], dict[str, object]] = {}
    begun: dict[str, int] = {}
    driver = Driver(words, tmp_path / "log")
    for kind in kinds:
        goal = len(known) + draw.randrange(1, 4)
        driver.until(partial(has_told, run, goal), 600)
        time.sleep(draw.random() * 2)
        driver.until(partial(victims, driver, kind), 600)
        victim = draw.choice(victims(driver, kind))
        known = dict(tiny_run.completed(run))
        begun = {**begins(run, known), **begun}
        victim.kill()
        if kind == "driver":
            driver.process.wait()
            known = {**known, **settled(run)}
            driver = Driver([*words, "--resume"], tmp_path / "log")
    driver.finish(3000)
    check(run, known)
    assert begins(run, known).items() >= begun.items()


def has_told(run: Path, count: int) -> bool:
    return len(tiny_run.completed(run)) >= count


def begins(run: Path, known: dict[tuple[str, int], dict[str, object]]) -> dict[str, int]:
    """How often the tasks of told trials began: after they are told, never again."""
    counts = Counter(tiny_run.names_in_log(run, "begins"))
    return {name: counts[name] for name in map(tiny_run.name_of, known.values())}


def settled(run: Path) -> dict[tuple[str, int], dict[str, object]]:
    """What is stored once the killed driver's processes have ended too."""
    before = None
    while before != (now := tiny_run.completed(run)):
        before = now
        time.sleep(3)
    return dict(now)


def check(run: Path, known: dict[tuple[str, int], dict[str, object]]) -> None:
    after = tiny_run.completed(run)
    assert {key: after[key] for key in known} == known
    trials = tiny_run.trials_of(run)
    assert Counter(t["study_name"] for t in trials) == Counter(
        {t["study_name"]: TRIALS + 1 for t in trials}
    )
    assert len({(t["study_name"], t["configuration"]) for t in trials}) == len(trials)
    assert {trial["state"] for trial in trials} == {"COMPLETE"}
    assert {user.user_id for user in load(run).users} == set(USERS)
