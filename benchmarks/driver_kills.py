"""A search of thousands of trials, killed at random moments: what is lost, and what comes out else.

The search is that of `driver.py`. At each moment, drawn by the number of trials told, one process
is killed: the driver, a controller, an asker, the packer or a trial's. Who drives is begun again;
all else the search itself begins again. At the end every user must have every trial once, what was
told before a kill must stand, and each proposal, made again from what its trial says was known,
must come out the same.

    python -m benchmarks.driver_kills --users 500 --trials 20 --kills 10 --out DIR
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import sqlalchemy

from benchmarks import driver
from benchmarks.driver_watch import CONTROLLER, title_of
from benchmarks.reproposed import differences
from cluster.experiment import seed_of
from search.patience import PatientStorage
from search.samplers import make_sampler
from search.storage import open_storage
from search.study import Study

POLL_SECONDS = 0.2
KINDS: dict[str, tuple[str, ...]] = {  # what their processes call themselves
    "controller": (CONTROLLER,),
    "asker": ("ray::Asker",),
    "packer": ("ray::Packer", "ray::packer-", "ray::milpa/"),
    "trial": ("ray::Trial", "ray::ResourceTrainable"),
}
_TOLD = """
    SELECT t.trial_id, v.objective, v.value FROM trials t JOIN trial_values v
    ON v.trial_id = t.trial_id WHERE t.state = 'COMPLETE'
"""

Told = dict[tuple[int, int], float]  # values by the trial's id and the objective's place


class Search:
    """The search in a process of its own, begun as often as it must be."""

    def __init__(self, words: Sequence[str], log: Path) -> None:
        self._command = [sys.executable, "-m", "benchmarks.driver", *words, "--part"]
        self._log = log
        self.begin()

    def begin(self) -> None:
        """Starts it, or goes on with it."""
        with self._log.open("a") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.process.poll() is not None

    def victims(self, kind: str) -> list[psutil.Process]:
        """Processes of a kind."""
        root = psutil.Process(self.process.pid)
        if kind == "driver":
            return [root]
        below = root.children(recursive=True)
        return [one for one in below if title_of(one).startswith(KINDS[kind])]

    def kill(self, kind: str, draw: random.Random) -> bool:
        """Kills one process of a kind; False where there is none just now."""
        found = self.victims(kind)
        if not found:
            return False
        draw.choice(found).kill()
        if kind == "driver":
            self.process.wait()
            self.begin()
        return True


def main(arguments: Sequence[str] | None = None) -> None:
    parser = driver.parser()
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True)
    (given.out / "run").mkdir(mode=0o700)
    digests = driver.digests_of(given)
    storage = open_storage(driver.storage_of(given))
    search = Search(_words(given), given.out / "driver.log")
    kinds, known = _killed(search, storage, given)
    if search.process.wait():
        raise RuntimeError(f"the search broke: {(given.out / 'driver.log').read_text()[-2000:]}")
    driver.check(driver.storage_of(given), digests, given.trials)
    after = told(storage)
    changed = [at for at, value in known.items() if after.get(at) != value]
    found: dict[str, Any] = {
        "trials": given.users * given.trials,
        "kills": dict(Counter(kinds)),
        "values told before a kill, and others or none after": len(changed),
        "proposals that do not come out the same": _recomputed(storage, digests, given),
    }
    (given.out / "kills.json").write_text(json.dumps(found, indent=2), encoding="utf-8")
    print("\n".join(f"| {name} | {value} |" for name, value in found.items()))


def _words(given: Any) -> list[str]:
    names = ("out", "users", "trials", "slots", "askers", "sampler", "step_seconds", "storage")
    pairs = {name.replace("_", "-"): getattr(given, name) for name in names}
    flags = [str(w) for name, v in pairs.items() if v is not None for w in (f"--{name}", v)]
    return flags + ["--transfer"] * given.transfer


def _killed(search: Search, storage: PatientStorage, given: Any) -> tuple[list[str], Told]:
    """The kinds of process that were killed, and all that was told before any of the kills."""
    draw, known, kinds = random.Random(given.seed), Told(), list[str]()
    total = given.users * (given.trials + 1)
    for goal in sorted(draw.randrange(total) for _ in range(given.kills)):
        until(lambda goal=goal: search.is_over or len(told(storage)) // 2 >= goal)  # type: ignore[misc]
        time.sleep(draw.random())
        kind = draw.choice(["driver", *KINDS])
        now = told(storage)
        until(lambda kind=kind: search.is_over or search.kill(kind, draw))  # type: ignore[misc]
        if search.is_over:
            break
        kinds.append(kind)
        known |= now
    return kinds, known


def told(storage: PatientStorage) -> Told:
    """Everything that has been told."""
    with storage.engine.begin() as connection:
        rows = connection.execute(sqlalchemy.text(_TOLD)).all()
    return {(trial, place): value for trial, place, value in rows}


def until(reached: Callable[[], object]) -> None:
    """Waits for something to be true."""
    while not reached():
        time.sleep(POLL_SECONDS)


def _recomputed(storage: PatientStorage, digests: Sequence[str], given: Any) -> int:
    settings = driver.settings_of(given)
    sampler = make_sampler(settings)
    return sum(
        len(differences(Study(storage, digest), sampler, settings.initial, seed_of(0, digest)))
        for digest in digests
    )


if __name__ == "__main__":
    main()
