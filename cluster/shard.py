"""One shard: Tune over the studies of some users.

Tune's controller keeps every trial it ever ran, so users go through it in shards. A shard streams
what happens; it starts from where the studies stand, so one that died is simply run again, once
what it had reserved is freed (`reserved.py`).
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler

from cluster import outcomes
from cluster.connection import SLOT
from cluster.entries import Entries
from cluster.failures import reason_of
from cluster.folder import RunFolder
from cluster.reserved import ShardGroups
from cluster.searcher import StudySearcher
from cluster.stopping import EarlyStopping
from cluster.streams import Event
from cluster.studies import Asked, SearchPlan, Studies
from cluster.trial import Trial
from search.patience import DatabaseAway

TRIALS_PER_SLOT = 20
SLOTS_OF_CONTROLLER = 128  # one carries 14 trials a second: enough where a trial takes 9 s
GATHERED_SECONDS = 1.0  # events are handed on together: each hand-over costs more than an event
_URGENT = ("draining", "over")  # these start what comes next
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

    @property
    def trials(self) -> int:
        """About as many as it runs, its users' bases included."""
        return len(self.seeds) * (1 + self.search.rules.expected(len(self.seeds)))


def shards_of(digests: Sequence[str], trials: int, slots: int, beside: int = 1) -> list[list[str]]:
    """Users in shards of at least `TRIALS_PER_SLOT` trials for each slot, the last one too.

    Args:
        digests: users.
        trials: of each of them.
        slots: of each shard.
        beside: how many shards run beside each other. Where there are more they are a multiple of
            that, so that no last one runs alone on its few slots.
    """
    count = max(1, len(digests) // _size(trials, slots))
    count -= count % beside if count > beside else 0
    return [list(digests[i::count]) for i in range(count)]


def shards_beside(users: int, trials: int, slots: int) -> int:
    """How many shards run beside each other: as many as controllers that so many slots keep busy.

    No more than there are shards for, so that all slots are some shard's from the beginning.
    """
    most = max(1, slots // SLOTS_OF_CONTROLLER)
    enough = (n for n in range(most, 1, -1) if users // _size(trials, slots // n) >= n)
    return next(enough, 1)


def _size(trials: int, slots: int) -> int:
    """Users of a shard, the fewest."""
    return max(1, -(-TRIALS_PER_SLOT * slots // (trials + 1)))


def run_shard(plan: ShardPlan, askers: Sequence[Any]) -> Iterator[list[Event]]:
    """Runs a shard to its end; yields its events as they gather, the last one with `done`."""
    lock = RunFolder(plan.run).write_lock()
    events: SimpleQueue[Event] = SimpleQueue()
    thread = threading.Thread(target=_fit, args=(plan, askers, events.put), daemon=True)
    thread.start()
    gathered: list[Event] = [{}]
    while not gathered[-1].get("done"):
        gathered = _gathered(events)
        if gathered[-1].get("done"):
            lock.close()
        yield gathered


def _gathered(events: SimpleQueue[Event]) -> list[Event]:
    """The next event and those that follow soon, none of them after one that is waited for."""
    gathered = [events.get()]
    end = time.monotonic() + GATHERED_SECONDS
    while gathered[-1]["event"] not in _URGENT:
        try:
            gathered.append(events.get(timeout=max(0.0, end - time.monotonic())))
        except Empty:
            break
    return gathered


def _fit(plan: ShardPlan, askers: Sequence[Any], notify: Any) -> None:
    """Tune's controller. Its own failure is an event too: the driver must not wait for ever."""

    def counted(event: Event) -> None:
        if event["event"] == "told":
            outcomes.count(event)
        notify(event)

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
            to_config=lambda asked: config_of(asked, plan),
            notify=counted,
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


def config_of(asked: Asked, plan: ShardPlan) -> dict[str, Any]:
    """What Tune hands to a trial and writes into its files: digests, no user ids.

    A checkpoint takes the controller, the trial's process and Ray some milliseconds: it is reported
    only to a scheduler that may act on it.
    """
    return {
        "user": asked.digest,
        "key": asked.configuration.key,
        "configuration": asked.configuration.to_json(),
        "seed": asked.seed,
        "packers": plan.packers,
        "checkpoints": plan.stop_early,
    }


def tuner(plan: ShardPlan, searcher: StudySearcher, scheduler: FIFOScheduler) -> Any:
    """Tune, set so that trial actors are light, few and used again."""
    trainable = tune.with_resources(Trial, ShardGroups(plan.name, [{"CPU": 0, SLOT: 1}]))
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            # NOTE: a trial that waits while all slots are taken reserves one, in vain: it goes to
            # an actor that has ended another. The queue of what comes next is the searcher's.
            search_alg=Entries(searcher, trainable, plan.slots),
            scheduler=scheduler,
            num_samples=-1,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            storage_path=str(RunFolder(plan.run).tune),
            name=f"{plan.name}-{os.getpid()}",
            verbose=0,
            checkpoint_config=_CHECKPOINTS,
        ),
    )
