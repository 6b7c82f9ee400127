"""The search a competent user would write today: Ray Tune, one PEFT training a trial.

In its two honest forms. `fresh`: a function trainable, which Ray runs in a new process for every
trial; this is what Tune's and PEFT's own examples show. `reused`: a class trainable with
`reuse_actors=True`, whose processes keep the base loaded from trial to trial.

Everything a careful user would switch on is on: users' tokens are made once and handed to all
trials, nothing is checkpointed to disk, no logger writes files, waiting threads sleep, workers run
at normal priority, and as many trials run side by side as pays (`--together`).

Configurations come from a workload (`--grid`, for a comparison of equal trials), or from Optuna's
sampler on both objectives, one study a user, as one would search without Milpa.

    python -m benchmarks.baseline_tune_peft --workload W.json --form reused --out R.json --ready F
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune
from ray.tune.search.optuna import OptunaSearch

from benchmarks.peft_trial import Clock, Loaded, run_trial
from benchmarks.workload import PlannedTrial, Workload

FORMS = ("fresh", "reused")
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
}


def fresh_trial(config: Mapping[str, Any], workload: Workload, threads: int) -> None:
    """Tune's function trainable: loads the base, trains and scores one configuration."""
    clock = Clock({"start": time.process_time()})
    torch.set_num_threads(threads)
    with clock.phase("load"):
        loaded = Loaded.of(workload)
    tune.report(result_of(loaded, workload, config, clock))


class ReusedTrial(tune.Trainable):  # type: ignore[misc]  # Ray is untyped here
    """Tune's class trainable: one configuration after another on a base that stays loaded."""

    def setup(self, config: Mapping[str, Any], workload: Workload, threads: int) -> None:
        """Loads the base, once for each process."""
        self._clock = Clock({"start": time.process_time()})
        torch.set_num_threads(threads)
        self._workload = workload
        with self._clock.phase("load"):
            self._loaded = Loaded.of(workload)

    def reset_config(self, new_config: Mapping[str, Any]) -> bool:
        """Goes on to another configuration in the same process."""
        self.config = new_config
        return True

    def step(self) -> dict[str, Any]:
        """A whole trial."""
        clock, self._clock = self._clock, Clock()
        return {**result_of(self._loaded, self._workload, self.config, clock), "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Keeps nothing."""

    def load_checkpoint(self, checkpoint: object) -> None:
        """Has nothing to load."""


def result_of(
    loaded: Loaded, workload: Workload, config: Mapping[str, Any], clock: Clock
) -> dict[str, Any]:
    """What a trial reports: its objectives, and CPU-seconds by phase."""
    trial = planned(config)
    found = run_trial(loaded, workload, trial, clock)
    return {**found, "trial": asdict(trial), "cpu_seconds": clock.cpu_seconds}


def planned(config: Mapping[str, Any]) -> PlannedTrial:
    """The trial that a configuration of Tune's means."""
    if "trial" in config:
        return PlannedTrial(**config["trial"])
    layers = [name for name in config if name.startswith("layer_") and config[name]]
    numbers = sorted(int(name.removeprefix("layer_")) for name in layers)
    others = {name: config[name] for name in ("person", "rank", "learning_rate", "seed")}
    return PlannedTrial(layers=numbers or [0], **others)


def grid(workload: Workload) -> list[dict[str, Any]]:
    """The workload's own trials, all in one run of Tune."""
    return [{"trial": tune.grid_search([asdict(trial) for trial in workload.trials])}]


def spaces(workload: Workload, layers: int) -> list[dict[str, Any]]:
    """A search space for every user; Optuna draws from it."""
    places = {f"layer_{i}": tune.choice([False, True]) for i in range(layers)}
    knobs = {
        "rank": tune.choice([8, 16, 32, 64, 96]),
        "learning_rate": tune.loguniform(1e-4, 1e-2),
        "seed": 0,
    }
    return [{**places, **knobs, "person": i} for i in range(len(workload.people))]


def search(
    workload: Workload,
    form: str,
    together: int,
    space: Mapping[str, Any],
    samples: int | None,
    storage: Path,
) -> list[dict[str, Any]]:
    """Runs one Tune experiment to its end; every trial's result.

    Args:
        together: trials side by side; they share the cores evenly.
        samples: how many Optuna draws; None runs the space's grid.

    Raises:
        RuntimeError: a trial failed.
    """
    cores = len(os.sched_getaffinity(0))
    given = {"workload": workload, "threads": max(1, cores // together)}
    trainable = tune.with_parameters(fresh_trial if form == "fresh" else ReusedTrial, **given)
    sampler = OptunaSearch(metric=["loss_nats", "rouge_l"], mode=["min", "max"], seed=0)
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": cores / together}),
        param_space=dict(space),
        tune_config=tune.TuneConfig(
            search_alg=sampler if samples else None,
            num_samples=samples or 1,
            max_concurrent_trials=together,
            reuse_actors=form == "reused",
        ),
        run_config=tune.RunConfig(storage_path=str(storage), verbose=0),
    )
    results = tuner.fit()
    if results.errors:
        raise RuntimeError(f"{len(results.errors)} trials failed") from results.errors[0]
    return [dict(result.metrics) for result in results]


@contextmanager
def local_ray() -> Iterator[Path]:
    """A Ray of its own on this machine, and a folder for Tune's files."""
    folder = Path(tempfile.mkdtemp(prefix="tune-", dir="/tmp"))  # short: sockets lie in it
    os.environ.update(ENVIRONMENT)
    ray.init(
        address="local",
        num_cpus=len(os.sched_getaffinity(0)),
        object_store_memory=128 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _temp_dir=str(folder / "ray"),
    )
    try:
        yield folder / "tune"
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workload", type=Path, required=True)
    parser.add_argument("--form", choices=FORMS, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--ready", type=Path, required=True, help="made when trials begin")
    parser.add_argument("--together", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--optuna", type=int, metavar="TRIALS", help="of each user; else the grid")
    parser.add_argument("--layers", type=int, help="of the base, for Optuna's space")
    given = parser.parse_args(arguments)
    workload = Workload.load(given.workload)
    chosen = spaces(workload, given.layers) if given.optuna else grid(workload)
    with local_ray() as storage:
        given.ready.touch()
        found = [
            result
            for space in chosen
            for result in search(workload, given.form, given.together, space, given.optuna, storage)
        ]
    kept = ("trial", "loss_nats", "rouge_l", "steps", "cpu_seconds")
    trials = [{name: result[name] for name in kept} for result in found]
    given.out.write_text(json.dumps({"trials": trials}), encoding="utf-8")


if __name__ == "__main__":
    main()
