"""A stand-in for training: trials of made-up users that take milliseconds, behind a real packer.

A task takes a few steps of the pack, each with a checkpoint, and ends with the objectives of
`problem.py`. Nothing is trained and nothing published: what a search costs beside its training is
what remains.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.problem import MadeUpProblem
from cluster.bench import Events
from cluster.trial import Event
from search.space import BASE_CONFIG, MemoryConfig

STEPS = 2
RELATED = 0.5
ITEMS = 16


@dataclass
class _Task:
    """One at work; `left` counts steps."""

    digest: str
    configuration: MemoryConfig
    is_winner: bool
    left: int = STEPS


class StandIn:
    """Implements `cluster.bench.Bench`."""

    def __init__(self, users: Mapping[str, int], layer_count: int, step_seconds: float) -> None:
        """A bench of made-up users.

        Args:
            users: each one's number, by digest.
            layer_count: of their problems.
            step_seconds: how long one step of the pack takes.
        """
        self._users, self._layers, self._step_seconds = users, layer_count, step_seconds
        self._problems: dict[str, MadeUpProblem] = {}
        self._tasks: dict[str, _Task] = {}

    def add(self, name: str, digest: str, configuration: MemoryConfig, seed: int) -> None:
        """Takes a trial in."""
        self._tasks[name] = _Task(digest, configuration, is_winner=False)

    def add_winner(
        self, name: str, digest: str, configuration: MemoryConfig, seed: int, reason: str | None
    ) -> None:
        """Takes a winner in."""
        self._tasks[name] = _Task(digest, configuration, is_winner=True)

    def train(self) -> Events:
        """One step of every task that has not ended."""
        time.sleep(self._step_seconds)
        events: Events = []
        for name, task in self._tasks.items():
            if task.left:
                task.left -= 1
                loss = self._values(task)[0]
                at = {"stage": "tuning", "epoch": STEPS - task.left, "steps": STEPS - task.left}
                events.append((name, {**at, "loss_nats": loss, "done": False}))
        return events

    def ready(self) -> list[str]:
        """Tasks whose steps are done."""
        return [name for name, task in self._tasks.items() if not task.left]

    def score(self, names: Sequence[str]) -> Events:
        """The ends of these tasks."""
        return [(name, self._end(self._tasks.pop(name))) for name in names]

    def stop(self, name: str) -> None:
        """Drops a task, if it is here."""
        self._tasks.pop(name, None)

    def give_up(self) -> list[str]:
        """Drops every task."""
        names, self._tasks = list(self._tasks), {}
        return names

    def busy(self) -> bool:
        """Whether there is any task."""
        return bool(self._tasks)

    def is_alive(self) -> bool:
        """Whether its device works: it has none that could fail."""
        return True

    def _values(self, task: _Task) -> tuple[float, ...]:
        if task.digest not in self._problems:
            number = self._users[task.digest]
            self._problems[task.digest] = MadeUpProblem(self._layers, number, RELATED)
        problem = self._problems[task.digest]
        is_base = task.configuration == BASE_CONFIG
        return problem.base if is_base else problem.observe(task.configuration)

    def _end(self, task: _Task) -> Event:
        loss, rouge_l = self._values(task)
        if task.is_winner:
            kind = "lora" if task.configuration.layers else "base"
            return {"loss_nats": loss, "kind": kind, "counts": {}, "done": True}
        return {
            "loss_nats": loss,
            "rouge_l": rouge_l,
            "rouge_l_error": 0.006,
            "item_count": ITEMS,
            "steps": STEPS,
            "train_seconds": STEPS * self._step_seconds,
            "counts": {},
            "done": True,
        }
