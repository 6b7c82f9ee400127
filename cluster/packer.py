"""The actor that owns a device: it gathers tasks of many users into one pack and answers each.

It is the asynchronous shell of a workbench: tasks come and go in the event loop, all training and
scoring runs in one worker thread. Every task is one call that streams its checkpoints and, last,
its end; the call carries the task's name, so Ray's dashboard shows each with state and duration.

A task belongs to its name, not to its caller: whoever asks for a name that is at work, or that has
just ended, follows the same events. So a trial whose process died is not trained twice.

One bad task harms nobody: what it raises ends it with a reason, and the others go on. Reasons and
the log (`packer-<n>.log` in the run's folder) hold no text and no user id.

A device that has failed for good is nobody's fault either: after it every call of the process that
had it raises, and a packer that lived on would have the least to do and fail whatever it is given.
So after a failure the device is probed, and where that fails the process ends. Ray starts another,
and what was lost is asked again.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import ray

from cluster.bench import Bench, Events
from cluster.failures import failed, log_failure, packer_log
from cluster.repeats import repeat_key
from cluster.trial import LOST, NO_BENCH, PACKER_NAME, REFUSED, STOPPED, Event, task_name
from search.space import MemoryConfig

_KEPT_ENDS = 64
_REST_SECONDS = 180.0  # before a workbench that could not be made is tried again for a trial

Change = Callable[[], Events]


class Packer:
    """One device's pack. Every method is a coroutine of one event loop."""

    def __init__(self, build: Callable[[], Bench], log: str) -> None:
        """An empty packer.

        Args:
            build: makes the workbench, here, when it is first needed: what it raises then reaches
                the caller, while what an actor's start raises does not.
            log: the file to write failures to.
        """
        self._log = packer_log(Path(log))
        self._build = build
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pack")
        self._incoming: list[Change] = []
        self._tasks: OrderedDict[str, _Task] = OrderedDict()
        self._loop: asyncio.Task[None] | None = None
        self._rests_until = 0.0

    @cached_property
    def _bench(self) -> Bench:
        """The workbench; touched in the worker thread alone."""
        return self._build()

    @property
    def _has_bench(self) -> bool:
        return "_bench" in self.__dict__

    async def evaluate(
        self,
        digest: str,
        configuration: Mapping[str, Any],
        seed: int,
        repeat: int = 0,
        *,
        checkpoints: bool = True,
    ) -> AsyncIterator[Event]:
        """A trial's checkpoints, if wanted, then its objectives (or `error`); the last has `done`.

        Each carries the `curve` so far: stage, epoch, steps and validation loss of every
        checkpoint. A `repeat` of a trial is another task, and its seed another one.
        """
        config = MemoryConfig.from_json(configuration)
        name = task_name(digest, repeat_key(config, repeat))
        async for event in self._follow(name, lambda: self._bench.add(name, digest, config, seed)):
            if checkpoints or event["done"]:
                yield event

    async def train_winner(
        self, digest: str, configuration: Mapping[str, Any], seed: int, reason: str | None
    ) -> AsyncIterator[Event]:
        """A winner's checkpoints, then its user's result, published (or `error`)."""
        config = MemoryConfig.from_json(configuration)
        name = task_name(digest, f"winner-{config.key}")
        async for event in self._follow(
            name, lambda: self._bench.add_winner(name, digest, config, seed, reason)
        ):
            yield event

    async def call(self, method: str, *arguments: Any) -> Any:
        """A method of the workbench, run between two steps of the pack."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._thread, lambda: getattr(self._bench, method)(*arguments)
        )

    async def waiting(self, name: str) -> int:
        """How many tasks have not ended; -1 if this one is here; `NO_BENCH` while that is so."""
        if name in self._tasks:
            return -1
        if not self._has_bench and time.monotonic() < self._rests_until:
            return NO_BENCH
        return sum(not task.over for task in self._tasks.values())

    async def leave(self, name: str) -> None:
        """One who followed a task doesn't any more; the last one's leaving drops it.

        One whose process died never leaves: its task goes on, to be followed again.
        """
        task = self._tasks.get(name)
        if task is None or task.over:
            return
        task.followers -= 1
        if not task.followers:
            self._end(name, "was left")

    async def drop(self, name: str) -> None:
        """Stops a task that is at work, whoever follows it: its place is free at the next step."""
        task = self._tasks.get(name)
        if task is not None and not task.over:
            self._end(name, "stopped")

    def _end(self, name: str, how: str) -> None:
        task = self._tasks.pop(name)
        self._incoming.append(lambda: self._drop(name))
        task.add(dict(STOPPED))  # NOTE: a call that follows it would wait for ever
        self._log.info("%s %s", name, how)

    async def _follow(self, name: str, add: Callable[[], None]) -> AsyncIterator[Event]:
        if name not in self._tasks:
            self._tasks[name] = _Task()
            self._log.info("%s begins", name)
            self._incoming.append(lambda: self._add(name, add))
            self._forget_old_ends()
        if self._loop is None or self._loop.done():
            self._loop = asyncio.get_running_loop().create_task(self._work())
        task, seen = self._tasks[name], 0
        task.followers += 1
        while True:
            while seen < len(task.events):  # NOTE: events may come in while this one is taken
                seen += 1
                yield task.events[seen - 1]
            if task.over:
                return
            await task.news()

    async def _work(self) -> None:
        """Steps of the pack, as long as there is anything to do."""
        loop, busy = asyncio.get_running_loop(), True
        while self._incoming or busy:
            incoming, self._incoming = self._incoming, []
            try:
                events, busy = await loop.run_in_executor(self._thread, self._turn, incoming)
            except Exception as error:  # no workbench: what was asked of it is nobody's fault
                log_failure(self._log, "the workbench", error)
                await loop.run_in_executor(self._thread, self._doubt)
                end = LOST if self._has_bench else REFUSED
                events = [(name, dict(end)) for name, task in self._tasks.items() if not task.over]
                busy = False
            for name, event in events:
                self._tell(name, event)

    def _tell(self, name: str, event: Event) -> None:
        task = self._tasks.get(name)
        if task is None:  # it was left or stopped during this very step
            return
        task.add(event)
        if event["done"]:
            self._log.info("%s ended", name)
        if event.get("lost"):
            del self._tasks[name]

    def _turn(self, incoming: Sequence[Change]) -> tuple[Events, bool]:
        """In the worker thread: what came in, one step, and scores of what is ready."""
        bench = self._bench  # where it can't be made, no task is at fault
        events: Events = []
        for change in incoming:
            events += change()
        events += self._train()
        ready = bench.ready()
        events += self._score(ready) if ready else []
        return events, bench.busy()

    def _train(self) -> Events:
        try:
            return self._bench.train()
        except Exception as error:
            return [(name, self._failure(name, error)) for name in self._bench.give_up()]

    def _drop(self, name: str) -> Events:
        self._bench.stop(name)
        return []

    def _add(self, name: str, add: Callable[[], None]) -> Events:
        try:
            add()
        except Exception as error:
            return [(name, self._failure(name, error))]
        return []

    def _score(self, names: Sequence[str]) -> Events:
        """All scored together; when that fails, each alone, so that one can't fail the others."""
        try:
            return self._bench.score(names)
        except Exception as error:
            if len(names) == 1:
                self._bench.stop(names[0])
                return [(names[0], self._failure(names[0], error))]
        return [event for name in names for event in self._score([name])]

    def _failure(self, name: str, error: Exception) -> Event:
        log_failure(self._log, name, error)
        self._doubt()
        return failed(error)

    def _doubt(self) -> None:
        """In the worker thread, after a failure: ends this process if its device is what failed."""
        if not self._has_bench:
            self._rests_until = time.monotonic() + _REST_SECONDS
        elif not self._bench.is_alive():
            self._log.error("the device answers no more: this process ends, for another to begin")
            os._exit(1)

    def _forget_old_ends(self) -> None:
        over = [name for name, task in self._tasks.items() if task.over]
        for name in over[: max(0, len(over) - _KEPT_ENDS)]:
            del self._tasks[name]


class _Task:
    """The events of one task, and a signal for those who follow it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.followers = 0
        self._changed = asyncio.Event()

    @property
    def over(self) -> bool:
        return bool(self.events) and bool(self.events[-1]["done"])

    def add(self, event: Event) -> None:
        curve = list(self.events[-1]["curve"]) if self.events else []
        if not event["done"]:
            curve.append((event["stage"], event["epoch"], event["steps"], event["loss_nats"]))
        self.events.append({**event, "curve": curve})
        self._changed.set()

    async def news(self) -> None:
        self._changed.clear()
        await self._changed.wait()


def start_packer(index: int, build: Callable[[], Bench], log: Path, options: dict[str, Any]) -> Any:
    """A packer as a named actor that Ray starts again when its process dies."""
    actor = ray.remote(Packer)
    return actor.options(
        name=PACKER_NAME.format(index),
        num_cpus=0,
        max_restarts=-1,
        max_task_retries=0,
        **options,
    ).remote(build, str(log / f"packer-{index}.log"))
