"""Trials through Milpa's own trainer, bank, decoder and scores, so many memories at a time.

What a packer does, without Ray: a waiting trial takes the place of one whose training ended, and
ended ones are scored together once there are `gather` of them, or nothing trains any more.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks.device import Stopwatch
from cluster.subjects import Subject
from models.base import Base
from models.milp import Milp, lora_of
from models.personalizer import Finished, Task, attach
from models.scoring import evaluation_items, score
from search.space import MemoryConfig


@dataclass
class Trials:
    """What trials came to, and the most that was held at once.

    `together` are the configurations of each step's memories; `padded_tokens` the largest batch
    with gradients; `peak_bytes` a GPU's, all that lies on it.
    """

    slots: int
    watch: Stopwatch
    losses: list[float] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    together: list[tuple[MemoryConfig, ...]] = field(default_factory=list)
    padded_tokens: int = 0
    peak_bytes: int | None = None

    @property
    def seconds(self) -> float:
        """Of all phases."""
        return sum(self.watch.seconds.values())

    @property
    def occupancy(self) -> float:
        """Share of the places that held a memory, mean over steps."""
        return statistics.fmean(len(memories) for memories in self.together) / self.slots


def packed(
    base: Base, users: Mapping[str, Subject], tasks: Sequence[Task], slots: int, gather: int
) -> Trials:
    """Runs all trials.

    Raises:
        RuntimeError: one failed.
    """
    pack = _Pack(base, users, tasks, slots)
    with peak_of(base, pack.trials):
        while pack.trains():
            pack.train()
            if len(pack.ended) >= gather or not pack.trains():
                pack.score()
    return pack.trials


@contextmanager
def peak_of(base: Base, trials: Trials) -> Iterator[None]:
    """Takes down the largest batch with gradients and a GPU's peak."""

    def look(_module: object, _inputs: object, named: Mapping[str, Any]) -> None:
        if torch.is_grad_enabled():
            trials.padded_tokens = max(trials.padded_tokens, named["input_ids"].numel())

    is_gpu = base.device.type == "cuda"
    if is_gpu:
        torch.cuda.reset_peak_memory_stats(base.device)
    handle = base.model.base_model.register_forward_pre_hook(look, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
    if is_gpu:
        trials.peak_bytes = torch.cuda.max_memory_allocated(base.device)


class _Pack:
    """Trials in training, and those that wait before and after it."""

    def __init__(
        self, base: Base, users: Mapping[str, Subject], tasks: Sequence[Task], slots: int
    ) -> None:
        self.trials = Trials(slots, Stopwatch(base.device))
        self.ended: list[Finished] = []
        self._base, self._users = base, users
        self._method = Milp()
        self._fitting = self._method.start(base)
        self._waiting = deque(tasks)
        self._tasks: dict[str, Task] = {}

    def trains(self) -> bool:
        """Whether anything trains or waits to."""
        return bool(self._waiting or self._fitting.running)

    def train(self) -> None:
        """One step of a full pack."""
        with self.trials.watch.phase("train"):
            while self._waiting and self._fitting.running < self.trials.slots:
                task = self._waiting.popleft()
                self._tasks[task.key] = task
                self._fitting.add(task)
            done = {end.key for end in self.ended}
            running = [task for key, task in self._tasks.items() if key not in done]
            self.trials.together.append(tuple(lora_of(task) for task in running))
            self.ended += self._fitting.step()[1]

    def score(self) -> None:
        """Loss and answers of all that ended, in the same batches."""
        users = [self._users[self._tasks[end.key].user_id] for end in self.ended]
        failed = [end.error for end in self.ended if end.error is not None]
        if failed:
            raise RuntimeError(f"a trial failed: {failed[0]}")
        with self.trials.watch.phase("score"):
            scores = score(
                self._base,
                attach(self._method, self._base),
                [end.state for end in self.ended],
                [user.items for user in users],
                [user.answer_tokens for user in users],
                loss_items_of=[evaluation_items(user.validation) for user in users],
            )
        self.trials.losses += [one.loss_nats for one in scores]
        self.trials.steps += [end.steps for end in self.ended]
        for end in self.ended:
            del self._tasks[end.key]
        self.ended = []
