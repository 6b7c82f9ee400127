"""Processes that run shards: each one shard after another, and not for ever.

Tune's controller keeps what it ran as long as its process lives, and a process that has only just
been started has spent what a hundred trials cost. So a process runs shards until it has had
`TRIALS_OF_PROCESS` trials. Where a shard starts while the last one drains, two take turns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from cluster.reserved import free
from cluster.shard import ShardPlan, run_shard
from cluster.streams import Event

TRIALS_OF_PROCESS = 2000


class Controller:
    """One process, for one shard at a time."""

    def run(self, plan: ShardPlan, askers: Sequence[Any]) -> Iterator[list[Event]]:
        """See `cluster.shard.run_shard`."""
        yield from run_shard(plan, askers)


def turned(askers: Sequence[Any], shards: int) -> tuple[Any, ...]:
    """The askers in the order that the next shard turns to them, after so many shards.

    A shard begins with one that works out what earlier users advise, and waits for it: shards
    beside each other must not all wait for the same one.
    """
    first = shards % max(1, len(askers))
    return (*askers[first:], *askers[:first])


@dataclass
class _Process:
    """A controller's handle, and the trials it has had."""

    handle: Any
    trials: int = 0


class Controllers:
    """Starts shards, each in a process that is free, or in a new one."""

    def __init__(self, askers: Sequence[Any], kind: type[Controller] = Controller) -> None:
        """No process yet.

        Args:
            askers: handles of `Asker` actors.
            kind: what runs in each process.
        """
        self._askers = askers
        self._new = ray.remote(kind).options(num_cpus=0)
        self._free: list[_Process] = []
        self._busy: dict[str, _Process] = {}
        self._started = 0  # shards

    def start(self, shard: ShardPlan) -> Any:
        """The stream of a shard's events; it must be told of its end (`ended`)."""
        process = self._free.pop() if self._free else _Process(self._new.remote())
        self._busy[shard.name] = process
        process.trials += shard.trials
        askers = turned(self._askers, self._started)
        self._started += 1
        return process.handle.run.options(num_returns="streaming").remote(shard, askers)

    def ended(self, name: str, well: bool) -> None:
        """A shard's stream is over; where it ended badly, or has had its trials, a process goes."""
        process = self._busy.pop(name)
        if not well:
            ray.kill(process.handle)
            free(name)
        elif process.trials < TRIALS_OF_PROCESS:
            self._free.append(process)
