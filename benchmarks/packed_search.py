"""The trials of a search as Milpa runs them: studies, askers, Tune, light trials, and a packer.

The whole way of a search but its winners, which no baseline has: the run's folder and its data,
an embedded Ray, the study storage, the sampler `random` (every trial is asked, told and stored, but
no surrogate is fitted), a shard of Tune, trial actors, and the packer with its workbench. The
workbench is timed from inside; nothing else is touched.

    python -m benchmarks.packed_search --data D --base B --run RUN --out R.json --ready F
"""

from __future__ import annotations

import argparse
import json
import secrets
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import ray

from benchmarks.workload import PlannedTrial
from cluster.asker import start_askers
from cluster.bench import Events
from cluster.budget import Rules
from cluster.connection import connected
from cluster.controllers import Controllers
from cluster.experiment import Experiment
from cluster.folder import RunFolder
from cluster.packer import start_packer
from cluster.preparation import Prepared, held, prepared
from cluster.shard import ShardPlan
from cluster.studies import SearchPlan
from cluster.workbench import BenchSettings, Workbench
from models.precision import packer_bytes
from search.samplers import SamplerSettings
from search.space import MemoryConfig, SearchSpace
from search.storage import open_storage
from search.study import Study


class TimedWorkbench(Workbench):
    """A workbench that knows what it spent its process' CPU-seconds on."""

    def __init__(self, settings: BenchSettings) -> None:
        self.cpu_seconds = {"start": time.process_time()}
        self._busy_seconds, self._first, self._last = 0.0, 0.0, 0.0
        with self._phase("load"):
            super().__init__(settings)
        self._busy_seconds = 0.0

    def add(self, name: str, digest: str, configuration: MemoryConfig, seed: int) -> None:
        """Takes a trial in."""
        self._first = self._first or time.monotonic()
        with self._phase("train"):
            super().add(name, digest, configuration, seed)

    def train(self) -> Events:
        """One step of the pack."""
        with self._phase("train"):
            return super().train()

    def score(self, names: Sequence[str]) -> Events:
        """The ends of these tasks."""
        with self._phase("score"):
            return super().score(names)

    def spent(self) -> dict[str, Any]:
        """CPU-seconds by phase, and the share of the time since the first trial that was work."""
        busy = self._busy_seconds / (self._last - self._first)
        return {"cpu_seconds": self.cpu_seconds, "busy": busy}

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        cpu, wall = time.process_time(), time.monotonic()
        yield
        spent = time.process_time() - cpu
        self.cpu_seconds[name] = self.cpu_seconds.get(name, 0.0) + spent
        self._last = time.monotonic()
        self._busy_seconds += self._last - wall


def experiment_of(
    data: str, base: str, users: int, trials: int, user_said: Any, dtype: Any
) -> Experiment:
    """The defaults, but nothing learned first and no surrogate."""
    return Experiment(
        data,
        base,
        users=users,
        trials=trials,
        user_said=user_said,
        sampler="random",
        population="off",
        dtype=dtype,
    )


def search(run: Prepared, ready: Path) -> dict[str, Any]:
    """Runs every user's trials, and gives them with what the packer spent.

    Raises:
        RuntimeError: the shard broke, or a trial failed.
    """
    name = f"bench-{secrets.token_hex(4)}"
    e, folder = run.experiment, run.folder
    room = packer_bytes(e.base, e.dtype)
    with connected(None, e.slots, name, folder.remember_temporary, room) as ground:
        packers = []
        for i, place in enumerate(ground.places):
            settings = BenchSettings(folder.path, e.base, e, place.device, place.threads)
            build = partial(TimedWorkbench, settings)
            packers.append(start_packer(i, build, folder.path, place.options))
        descriptions = ray.get([packer.call.remote("describe") for packer in packers])
        plan = shard_plan(run, descriptions[0], len(packers), ground.slots)
        askers = start_askers(1, plan.search.sampler)
        ready.touch()
        for events in map(ray.get, Controllers(askers).start(plan)):
            for event in events:
                if event.get("failed") or event.get("error"):
                    raise RuntimeError(f"the search broke: {event}")
        spent = ray.get([packer.call.remote("spent") for packer in packers])
    phases = {name for one in spent for name in one["cpu_seconds"]}
    seconds = {name: sum(one["cpu_seconds"].get(name, 0.0) for one in spent) for name in phases}
    return {
        "trials": told(run),
        "cpu_seconds": seconds,
        "busy": statistics.fmean(one["busy"] for one in spent),
    }


def shard_plan(run: Prepared, description: dict[str, Any], packers: int, slots: int) -> ShardPlan:
    """All users in one shard."""
    e = run.experiment
    space, _ = SearchSpace.for_base(description["layer_count"], description["smallest_dimension"])
    sampler = SamplerSettings(e.sampler, e.initial_points, e.design)
    rules = Rules(e.trials, e.initial_points)
    plan = SearchPlan(run.storage, space, description["per_rank"], sampler, rules)
    seeds = {user.digest: user.seed for user in run.choice.searched}
    return ShardPlan("all", seeds, plan, run.folder.path, packers, slots)


def told(run: Prepared) -> list[dict[str, Any]]:
    """Every trial as its study has it; the base's own are left out."""
    storage = open_storage(run.storage)
    found = []
    for number, user in enumerate(run.choice.searched):
        for trial in Study(storage, user.digest).trials[1:]:
            if trial.values is None:
                raise RuntimeError(f"{trial.config.key} of user {number} failed: {trial.reason}")
            (loss, rouge_l), config = trial.values, trial.config
            planned = PlannedTrial(
                number, config.layers, config.rank, config.learning_rate, trial.seed
            )
            found.append(
                {
                    "trial": asdict(planned),
                    "loss_nats": loss,
                    "rouge_l": rouge_l,
                    "steps": trial.measured["steps"],
                }
            )
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--base", required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--ready", type=Path, required=True, help="made when trials begin")
    parser.add_argument("--users", type=int, default=4)
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--user-said", default="response")
    given = parser.parse_args(arguments)
    experiment = experiment_of(
        given.data, given.base, given.users, given.trials, given.user_said, given.dtype
    )
    folder = RunFolder(given.run.absolute())
    with held(folder, resume=False):
        run = prepared(experiment, folder, False, None, False)
        found = search(run, given.ready)
    given.out.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
