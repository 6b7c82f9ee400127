"""One shard: Tune over the studies of some users, in a process of its own.

Tune's controller keeps every trial it ever ran, so users go through it in shards, and its memory
goes with its process. A shard is a Ray task that streams what happens; it starts from where the
studies stand, so one that died is simply run again.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler

from cluster.connection import SLOT
from cluster.failures import reason_of
from cluster.folder import RunFolder
from cluster.searcher import StudySearcher
from cluster.stopping import EarlyStopping
from cluster.studies import Asked, SearchPlan, Studies
from cluster.trial import Trial
from search.patience import DatabaseAway

TRIALS_PER_SLOT = 20
_CHECKPOINTS = tune.CheckpointConfig(checkpoint_at_end=False)


@dataclass(frozen=True)
class ShardPlan:
    """What one shard needs: its users with their seeds, and what they run on."""

    name: str
    seeds: Mapping[str, int]
    search: SearchPlan
    run: Path
    packers: int
    slots: int
    stop_early: bool = False
    repeat_winner: int = 0


def shards_of(digests: Sequence[str], trials: int, slots: int) -> list[list[str]]:
    """Users in shards of at least `TRIALS_PER_SLOT` trials for each slot, the last one too."""
    size = max(1, -(-TRIALS_PER_SLOT * slots // (trials + 1)))
    count = max(1, len(digests) // size)
    return [list(digests[i::count]) for i in range(count)]


def _run_shard(plan: ShardPlan, askers: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """Runs a shard to its end; yields its events, the last one with `done`."""
    lock = RunFolder(plan.run).write_lock()
    events: SimpleQueue[dict[str, Any]] = SimpleQueue()
    thread = threading.Thread(target=_fit, args=(plan, askers, events.put), daemon=True)
    thread.start()
    while not (event := events.get()).get("done"):
        yield event
    lock.close()
    yield event


run_shard: Any = ray.remote(  # `max_calls`: Ray would run the next shard in the same process
    num_cpus=0, max_retries=0, max_calls=1, num_returns="streaming"
)(_run_shard)


def _fit(plan: ShardPlan, askers: Sequence[Any], notify: Any) -> None:
    """Tune's controller. Its own failure is an event too: the driver must not wait for ever."""
    try:
        studies = Studies(
            plan.search, plan.seeds, askers, lambda text: notify({"event": "note", "text": text})
        )
        if studies.advised:
            notify({"event": "advised", "configurations": studies.advised})
        searcher = StudySearcher(
            tuple(plan.seeds),
            studies,
            rules=plan.search.rules,
            ahead=3 * plan.slots,
            to_config=lambda asked: config_of(asked, plan.packers),
            notify=notify,
        )
        early = EarlyStopping(studies.trials, searcher.stop)
        tuner(plan, searcher, early if plan.stop_early else FIFOScheduler()).fit()
    finally:
        notify({"event": "over", **_failure(sys.exc_info()[1]), "done": True})


def _failure(error: BaseException | None) -> dict[str, Any]:
    """What is said of it; `final` where it would not help to begin again."""
    if error is None:
        return {}
    if isinstance(error, DatabaseAway):
        return {"failed": str(error), "final": True}
    return {"failed": reason_of(error)}


def config_of(asked: Asked, packers: int) -> dict[str, Any]:
    """What Tune hands to a trial and writes into its files: digests, no user ids."""
    return {
        "user": asked.digest,
        "key": asked.configuration.key,
        "configuration": asked.configuration.to_json(),
        "seed": asked.seed,
        "packers": packers,
    }


def tuner(plan: ShardPlan, searcher: StudySearcher, scheduler: FIFOScheduler) -> Any:
    """Tune, set so that trial actors are light, few and used again."""
    resources = tune.PlacementGroupFactory([{"CPU": 0, SLOT: 1}])
    return tune.Tuner(
        tune.with_resources(Trial, resources),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=-1,
            max_concurrent_trials=2 * plan.slots,
            reuse_actors=True,
            trial_name_creator=lambda trial: trial.trial_id,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            storage_path=str(RunFolder(plan.run).tune),
            name=f"{plan.name}-{os.getpid()}",
            verbose=0,
            checkpoint_config=_CHECKPOINTS,
        ),
    )
