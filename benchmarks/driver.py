"""What a search costs its driver: thousands of trials through the real Tune, searcher and studies.

Training is a stand-in of milliseconds (`stand_in.py`); shards, askers, packer, trial actors, the
database and the schedule are those of `milpa search`. Beside it, in the same command, trials of a
trainable that does nothing, with Tune alone: what a driver costs whatever it drives.

    python -m benchmarks.driver --users 500 --trials 20 --out DIR [--storage postgresql://...]

With `--part` it goes on with what is in the folder, and measures nothing beside it: so a search can
be killed and gone on with, as `driver_kills.py` does.
"""

from __future__ import annotations

import argparse
import json
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import ray
from rich.console import Console

from benchmarks.driver_figures import WHOLE, figures
from benchmarks.driver_watch import Watch
from benchmarks.stand_in import StandIn
from cluster import schedule, shard
from cluster.asker import start_askers
from cluster.budget import Rules
from cluster.connection import SLOT, connected
from cluster.controllers import Controller, Controllers
from cluster.experiment import seed_of
from cluster.folder import RunFolder
from cluster.packer import start_packer
from cluster.progress import Progress
from cluster.searcher import StudySearcher
from cluster.shard import ShardPlan
from cluster.streams import Event
from cluster.studies import SearchPlan
from cluster.trial import Trial
from search.samplers import SAMPLERS, SamplerSettings
from search.space import SearchSpace
from search.storage import open_storage, sqlite_url
from search.study import Study

LAYERS, PER_RANK = 16, 2000


class TimedSearcher(StudySearcher):
    """Knows how long each `suggest` took."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.seconds: list[float] = []
        searchers.append(self)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial's configuration."""
        began = time.perf_counter()
        try:
            return super().suggest(trial_id)
        finally:
            self.seconds.append(time.perf_counter() - began)


searchers: list[TimedSearcher] = []


class TimedController(Controller):
    """Runs shards as they are, but for the clock around `suggest`."""

    def run(self, plan: ShardPlan, askers: Sequence[Any]) -> Iterator[list[Event]]:
        """One shard."""
        searchers.clear()
        vars(shard)["StudySearcher"] = TimedSearcher
        yield from super().run(plan, askers)
        file = plan.run / f"suggest-{plan.name}.json"
        file.write_text(json.dumps([s for one in searchers for s in one.seconds]), encoding="utf-8")


class WatchedSchedule(schedule.Schedule):
    """Knows what the driver held at the end of each shard."""

    def __init__(self, *arguments: Any) -> None:
        self.held_bytes: list[int] = []
        super().__init__(*arguments)

    def _shard_event(self, shard: ShardPlan, event: Mapping[str, Any]) -> None:
        super()._shard_event(shard, event)
        if event.get("done"):
            self.held_bytes.append(psutil.Process().memory_info().rss)


class Counting(Progress):
    """Counts what was told, and shows nothing."""

    def __init__(self, trials: int) -> None:
        super().__init__(Console(quiet=True), trials, by_digest=True)
        self.count = 0

    def told(self, event: Any) -> None:
        """A trial has ended."""
        super().told(event)
        self.count += not event["is_anchor"]


def main(arguments: Sequence[str] | None = None) -> None:
    given = parser().parse_args(arguments)
    if given.no_op:
        trials = min(given.no_op_trials, given.users * given.trials)
        print(json.dumps(no_op(trials, given.slots, given.out)))
        return
    given.out.mkdir(parents=True, exist_ok=given.part)
    found = searched(given)
    if given.part:
        return
    words = [*(arguments or sys.argv[1:]), "--no-op"]
    command = [sys.executable, "-m", "benchmarks.driver", *words]
    alone = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found["no-op Tune, CPU ms a trial"] = json.loads(alone.splitlines()[-1])
    above = found[WHOLE] - found["no-op Tune, CPU ms a trial"]
    found["CPU ms a trial above the no-op Tune run"] = round(above, 1)
    (given.out / "driver.json").write_text(json.dumps(found, indent=2), encoding="utf-8")
    print("\n".join(f"| {name} | {value} |" for name, value in found.items()))


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--users", type=int, default=500)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--askers", type=int, default=1)
    parser.add_argument("--sampler", choices=SAMPLERS, default="random")
    parser.add_argument("--step-seconds", type=float, default=0.002)
    parser.add_argument("--storage", help="an address; else a file in the output folder")
    parser.add_argument("--transfer", action="store_true", help="learn from earlier users")
    parser.add_argument("--part", action="store_true", help="go on with what is there")
    parser.add_argument("--no-op-trials", type=int, default=2000, help="at most, of Tune alone")
    parser.add_argument("--no-op", action="store_true", help="Tune alone")
    return parser


def searched(given: argparse.Namespace) -> dict[str, Any]:
    """Runs the search, and what it took.

    Raises:
        RuntimeError: a trial is missing, or there twice.
    """
    folder, digests = RunFolder(given.out.absolute() / "run"), digests_of(given)
    folder.path.mkdir(mode=0o700, exist_ok=given.part)
    with folder.lock():
        folder.remove_temporary()
        open_storage(storage_of(given))
        progress, rules = Counting(given.trials), Rules(given.trials)
        search = SearchPlan(
            *(storage_of(given), SearchSpace(LAYERS), (PER_RANK,) * LAYERS),
            *(settings_of(given), rules, given.transfer),
        )
        seeds = {digest: seed_of(0, digest) for digest in digests}
        plan = ShardPlan("all", seeds, search, folder.path, 1, given.slots)
        began = time.monotonic()
        watch, work = _watched(plan, given, progress)
        seconds = time.monotonic() - began
        folder.remove_temporary()
    check(storage_of(given), digests, given.trials)
    times = [t for f in folder.path.glob("suggest-*.json") for t in json.loads(f.read_text())]
    (given.out / "samples.json").write_text(json.dumps([asdict(s) for s in watch.samples]))
    (given.out / "held.json").write_text(json.dumps(work.held_bytes))
    trials = given.users * given.trials
    return figures(watch.samples, work.held_bytes, times, trials, seconds)


def _watched(
    plan: ShardPlan, given: argparse.Namespace, progress: Counting
) -> tuple[Watch, WatchedSchedule]:
    """Runs the search on a Ray of its own."""
    name, note = f"bench-{secrets.token_hex(4)}", RunFolder(plan.run).remember_temporary
    with connected(None, given.slots, name, note, float("inf")) as ground:
        users = {digest: number for number, digest in enumerate(plan.seeds)}
        build = partial(StandIn, users, LAYERS, given.step_seconds)
        packer = start_packer(0, build, plan.run, ground.whole.options)
        ray.get(packer.waiting.remote(""))
        askers = start_askers(given.askers, plan.search.sampler)
        work = WatchedSchedule(plan, Controllers(askers, TimedController), progress)
        with Watch(lambda: progress.count) as watch:
            work.run()
    return watch, work


def storage_of(given: argparse.Namespace) -> str:
    """Where the studies are."""
    return given.storage or sqlite_url(given.out.absolute() / "run" / "studies.db")


def settings_of(given: argparse.Namespace) -> SamplerSettings:
    """Who proposes."""
    return SamplerSettings(given.sampler, min(12, given.trials // 2))


def digests_of(given: argparse.Namespace) -> list[str]:
    """The users, drawn when first asked for."""
    file: Path = given.out / "users.json"
    if not file.is_file():
        file.write_text(json.dumps([secrets.token_hex(8) for _ in range(given.users)]))
    digests: list[str] = json.loads(file.read_text())
    return digests


def check(storage: str, digests: Sequence[str], trials: int) -> None:
    """Nothing is lost and nothing there twice.

    Raises:
        RuntimeError: a trial is missing, or there twice.
    """
    opened = open_storage(storage)
    for digest in digests:
        found = Study(opened, digest).trials
        if len(found) != trials + 1 or any(trial.values is None for trial in found):
            raise RuntimeError(f"expected {trials} completed trials of a user, got {len(found)}")
        if len({trial.config for trial in found}) != len(found):
            raise RuntimeError("expected every configuration of a user once")


def no_op(trials: int, slots: int, out: Path) -> float:
    """CPU milliseconds a trial of Tune's controller over a trainable that does nothing."""

    class NoOp(Trial):
        def step(self) -> dict[str, Any]:
            return {"loss_nats": 1.0, "rouge_l": 0.5, "done": True}

    with connected(None, slots, f"bench-{secrets.token_hex(4)}", lambda _: None, float("inf")):
        resources = ray.tune.PlacementGroupFactory([{"CPU": 0, SLOT: 1}])
        tuner = ray.tune.Tuner(
            ray.tune.with_resources(NoOp, resources),
            param_space={"place": ray.tune.uniform(0, 1)},
            tune_config=ray.tune.TuneConfig(
                num_samples=trials, max_concurrent_trials=2 * slots, reuse_actors=True
            ),
            run_config=ray.tune.RunConfig(
                storage_path=str(out.absolute() / "no-op"), name="no-op", verbose=0
            ),
        )
        began = time.process_time()
        tuner.fit()
        return round(1e3 * (time.process_time() - began) / trials, 1)


if __name__ == "__main__":
    main()
