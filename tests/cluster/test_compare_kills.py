"""A comparison that is killed again and again comes to the table of one that nobody disturbed."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.unit import Units
from tests.cluster import tiny_contest
from tests.cluster.tiny_run import Driver, title_of, write_base

METHODS = "none,milp,prompt-tuning-shared"
# Who is killed once so many more units are done: amid trials, and amid what comes after them.
KILLS = (("driver", 2), ("station", 2), ("driver", 3), ("station", 2))
UNTIL_TOLD = 600.0
# What the machine and the moment decide.
MEASURED = {
    "commit",
    "commits",
    "cpu_seconds",
    "first_token",
    "pace",
    "seconds",
    "shared_seconds",
    "tokens_per_second",
    "train_seconds",
    "tuning_seconds",
}


def command(folder: Path, out: Path) -> list[str]:
    """The words of a tiny `milpa compare` whose users' digests are those of every such folder."""
    out.mkdir(mode=0o700)
    (out / "key").write_text("5" * 64)
    given = {
        "data": folder / "data.jsonl",
        "base": folder / "base",
        "out": out,
        "methods": METHODS,
        "users": len(tiny_contest.USERS),
        "seeds": 2,
        "trials": 2,
        "items": 2,
        "injection-epochs": 1,
        "tuning-epochs": 1,
        "slots": 2,
    }
    flags = [str(part) for name, value in given.items() for part in (f"--{name}", value)]
    return [sys.executable, "-m", "milpa", "compare", *flags]


def units_done(out: Path) -> int:
    return len(list((out / "units").glob("[0-9a-f]*.json")))


def has_done(out: Path, count: int) -> bool:
    return units_done(out) >= count


def stations(driver: Driver) -> list[psutil.Process]:
    """Stations at work."""
    return [one for one in driver.workers() if title_of(one).startswith("ray::Station.do")]


def kill(driver: Driver, who: str) -> None:
    if who == "driver":
        driver.kill()
        return
    driver.until(lambda: stations(driver), UNTIL_TOLD)
    victim = stations(driver)[0]
    victim.kill()  # SIGKILL
    victim.wait(60)


def unmeasured(content: Any) -> Any:
    """JSON without what differs from one run to the next whatever happens to it."""
    if isinstance(content, Mapping):
        return {name: unmeasured(own) for name, own in content.items() if name not in MEASURED}
    return [unmeasured(own) for own in content] if isinstance(content, list) else content


def outcome(out: Path) -> tuple[Any, Any]:
    """The table, and every unit."""
    table = json.loads((out / "compare.json").read_text())
    return unmeasured(table), unmeasured(Units(out).every())


@pytest.mark.long
@pytest.mark.timeout(5400)
def test_kills_of_driver_and_stations_change_nothing(tmp_path: Path) -> None:
    tiny_contest.write_data(tmp_path, others=[f"other {n}" for n in range(5)])
    write_base(tmp_path)
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    Driver(command(tmp_path, calm), tmp_path / "calm.log").finish(1800)
    words, log = command(tmp_path, killed), tmp_path / "killed.log"
    driver, kept = Driver(words, log), 0
    for who, more in KILLS:
        driver.until(partial(has_done, killed, kept + more), UNTIL_TOLD)
        kill(driver, who)
        kept = units_done(killed)
        assert kept < units_done(calm)
        if who == "driver":
            driver = Driver(words, log)
    driver.finish(1800)
    table, units = outcome(killed)
    assert [row["label"] for row in table["rows"]] == METHODS.split(",")
    assert not table["left_out"]
    assert any(row["values"] != table["rows"][0]["values"] for row in table["rows"][1:])
    assert (table, units) == outcome(calm)
